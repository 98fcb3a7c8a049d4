//! The routes: what each method and path asks for, decided from the request alone.

use std::net::IpAddr;

use super::badge::{self, Badge};
use super::negotiation::{Format, Language, format, language, prefers_csv};
use super::{history, page, query};
use crate::http::{Method, Request, Status};
use crate::visits::history::Step;

/// What a request asks for.
#[derive(Debug, Clone)]
pub enum Task {
    /// `GET /`: a visit, by the client at that address.
    Visit(Format, Language, IpAddr),
    /// A browser fetches ahead of a visit that may never come.
    Prefetch,
    /// `HEAD /`: what a visit would be answered with, and no visit.
    Head(Format, Language),
    /// Both numbers, and no visit.
    Stats,
    /// Whether the process serves.
    Livez,
    /// Whether visits are taken.
    Readyz {
        /// With a line a store.
        verbose: bool,
    },
    /// Prometheus text.
    Metrics,
    /// The history as JSON or CSV, and no visit.
    History {
        /// What a point of it is.
        step: Step,
        /// As CSV.
        csv: bool,
    },
    /// The numbers as they change, and no visit.
    Events,
    /// The total as a badge, and no visit.
    Badge(Box<BadgeAsked>),
    /// A browser asks whether another page's script may ask: it may (the Fetch standard's
    /// CORS-preflight request).
    Preflight,
    /// An answer known in advance.
    Small(Small),
}

/// A badge as it was asked for.
#[derive(Debug, Clone)]
pub struct BadgeAsked {
    pub(super) badge: Badge,
    /// As JSON for shields.io.
    pub(super) json: bool,
    /// The entity tags of what the client has (RFC 9110, section 13.1.2).
    pub(super) has: String,
    /// The entity tags of which one has to be the badge's (section 13.1.1); `None`: any badge will
    /// do.
    pub(super) must_be: Option<String>,
}

/// An answer known in advance.
#[derive(Debug, Clone, Copy)]
pub struct Small {
    pub(super) status: Status,
    pub(super) fields: &'static str,
    pub(super) body: &'static [u8],
}

macro_rules! fields {
    ($kind:literal, $cache:literal $(, $more:expr)*) => {
        concat!(
            "Content-Type: ", $kind, "\r\n",
            "Cache-Control: ", $cache, "\r\n",
            $($more, "\r\n"),*
        )
    };
}

/// Lets scripts of other pages read an answer. None of it is a secret, and no route looks at
/// credentials.
macro_rules! cors {
    () => {
        "Access-Control-Allow-Origin: *"
    };
}
pub(super) const CORS: &str = concat!(cors!(), "\r\n");

pub(super) const TEXT_FIELDS: &str = fields!("text/plain; charset=utf-8", "no-store");
pub(super) const JSON_FIELDS: &str = fields!("application/json", "no-store", cors!());
pub(super) const VISIT_JSON_FIELDS: &str = fields!(
    "application/json",
    "no-store",
    cors!(),
    "Vary: Accept, Accept-Language"
);
pub(super) const HISTORY_JSON_FIELDS: &str =
    fields!("application/json", "no-store", cors!(), "Vary: Accept");
pub(super) const HISTORY_CSV_FIELDS: &str = fields!(
    "text/csv; charset=utf-8; header=present",
    "no-store",
    cors!(),
    "Vary: Accept"
);
// A proxy that buffers would keep the messages to itself.
pub(super) const EVENTS_FIELDS: &str = fields!(
    "text/event-stream",
    "no-store",
    cors!(),
    "X-Accel-Buffering: no"
);
pub(super) const PREFLIGHT_FIELDS: &str = concat!(
    cors!(),
    "\r\nAccess-Control-Allow-Methods: GET, HEAD\r\nAccess-Control-Allow-Headers: *\r\n",
    "Access-Control-Max-Age: 86400\r\nCache-Control: no-store\r\nVary: Access-Control-Request-Method\r\n"
);
pub(super) const METRICS_FIELDS: &str =
    fields!("text/plain; version=0.0.4; charset=utf-8", "no-store");
const ICON_FIELDS: &str = fields!("image/svg+xml", "public, max-age=86400");
const CACHED_TEXT_FIELDS: &str = fields!("text/plain; charset=utf-8", "public, max-age=86400");
// Each has its version in its address, so it never changes.
const STYLE_FIELDS: &str = fields!(
    "text/css; charset=utf-8",
    "public, max-age=31536000, immutable"
);
const SCRIPT_FIELDS: &str = fields!(
    "text/javascript; charset=utf-8",
    "public, max-age=31536000, immutable"
);
const REFUSAL_FIELDS: &str = fields!("text/plain; charset=utf-8", "no-store", cors!());
const NOT_ALLOWED_FIELDS: &str = fields!(
    "text/plain; charset=utf-8",
    "no-store",
    cors!(),
    "Allow: GET, HEAD"
);

const ICON: &[u8] = include_bytes!("favicon.svg");

const NOT_FOUND: Small = Small {
    status: Status::NotFound,
    fields: REFUSAL_FIELDS,
    body: b"There is nothing here.\n",
};
const BAD_STEP: Small = Small {
    status: Status::BadRequest,
    fields: HISTORY_JSON_FIELDS,
    body: b"{\"error\":\"The history is kept by minute, by hour and by day: ask for ?by= one of these.\"}",
};
const NOT_ALLOWED: Small = Small {
    status: Status::MethodNotAllowed,
    fields: NOT_ALLOWED_FIELDS,
    body: b"Only GET and HEAD are allowed here.\n",
};
pub(super) const PREFETCH: Small = Small {
    status: Status::ServiceUnavailable,
    fields: REFUSAL_FIELDS,
    body: b"A prefetch is no visit, so it was neither counted nor answered.\n",
};
/// `OPTIONS *`: what the server as a whole can do (RFC 9110, section 9.3.7).
const OPTIONS: Small = Small {
    status: Status::Ok,
    fields: "Allow: GET, HEAD\r\n",
    body: b"",
};
const FAVICON: Small = Small {
    status: Status::Ok,
    fields: ICON_FIELDS,
    body: ICON,
};
const ROBOTS: Small = Small {
    status: Status::Ok,
    fields: CACHED_TEXT_FIELDS,
    body: b"User-agent: *\nDisallow: /\n",
};

const STYLE: Small = Small {
    status: Status::Ok,
    fields: STYLE_FIELDS,
    body: page::STYLE.as_bytes(),
};
const SCRIPT: Small = Small {
    status: Status::Ok,
    fields: SCRIPT_FIELDS,
    body: page::SCRIPT.as_bytes(),
};

/// Whether the path is for those who run the process.
pub(super) fn is_ops(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/metrics")
}

/// What is answered where nothing is.
pub(super) fn nothing() -> Task {
    Task::Small(NOT_FOUND)
}

/// What the request asks for, by the client at that address.
pub(super) fn plan(request: &Request<'_>, client: IpAddr) -> Task {
    let found = match request.path() {
        "/" => visit(request, client),
        "/stats" => Task::Stats,
        "/livez" => Task::Livez,
        "/readyz" => Task::Readyz {
            verbose: request
                .target
                .split_once('?')
                .is_some_and(|(_, query)| asks_verbose(query)),
        },
        "/metrics" => Task::Metrics,
        "/history" => read_history(request),
        "/events" => Task::Events,
        "/badge.svg" => badge(request, false),
        "/badge.json" => badge(request, true),
        "/style.css" => Task::Small(STYLE),
        "/live.js" => Task::Small(SCRIPT),
        "/favicon.ico" | "/favicon.svg" => Task::Small(FAVICON),
        "/robots.txt" => Task::Small(ROBOTS),
        "*" => return Task::Small(OPTIONS),
        _ => return nothing(),
    };
    match request.method {
        Method::Get | Method::Head => found,
        Method::Other("OPTIONS")
            if request
                .fields("access-control-request-method")
                .next()
                .is_some() =>
        {
            Task::Preflight
        }
        Method::Other(_) => Task::Small(NOT_ALLOWED),
    }
}

fn read_history(request: &Request<'_>) -> Task {
    match history::step(query::value(request.target, "by").as_deref()) {
        Some(step) => Task::History {
            step,
            csv: prefers_csv(request),
        },
        None => Task::Small(BAD_STEP),
    }
}

fn badge(request: &Request<'_>, json: bool) -> Task {
    let value = |name| query::value(request.target, name);
    let badge = Badge::new(value("label").as_deref(), value("color").as_deref());
    let tags = |name| {
        request
            .fields(name)
            .map(String::from_utf8_lossy)
            .collect::<Vec<_>>()
            .join(",")
    };
    let must_be = request.fields("if-match").next().map(|_| tags("if-match"));
    Task::Badge(Box::new(BadgeAsked {
        badge,
        json,
        has: tags("if-none-match"),
        must_be,
    }))
}

/// The header fields of a badge with that entity tag.
pub(super) fn badge_fields(json: bool, tag: &str) -> String {
    let kind = if json {
        "application/json"
    } else {
        "image/svg+xml"
    };
    format!(
        "Content-Type: {kind}\r\nCache-Control: public, max-age={}\r\nETag: {tag}\r\n{CORS}",
        badge::FRESH_S
    )
}

fn visit(request: &Request<'_>, client: IpAddr) -> Task {
    if is_prefetch(request) {
        return Task::Prefetch;
    }
    let (format, language) = (format(request), language(request));
    if request.method == Method::Get {
        Task::Visit(format, language, client)
    } else {
        Task::Head(format, language)
    }
}

/// `?verbose`, with or without a value.
fn asks_verbose(query: &str) -> bool {
    query
        .split('&')
        .any(|pair| pair.split('=').next() == Some("verbose"))
}

/// Whether the browser fetches this ahead of a visit that may never come (the Fetch standard's
/// `Sec-Purpose`, and the names browsers used before).
fn is_prefetch(request: &Request<'_>) -> bool {
    let ahead = |value: &[u8]| {
        let mut words = value.split(|byte| !byte.is_ascii_alphanumeric());
        words.any(|word| {
            [b"prefetch".as_slice(), b"prerender", b"preview"]
                .iter()
                .any(|ahead| word.eq_ignore_ascii_case(ahead))
        })
    };
    ["sec-purpose", "purpose", "x-purpose", "x-moz"]
        .iter()
        .any(|name| request.fields(name).any(ahead))
}
