//! The routes: what each method and path asks for.

use std::net::IpAddr;

use super::badge::{Badge, BadgeRequest};
use super::history::HistoryRequest;
use super::negotiation::{Format, Language, format, language, prefers_csv};
use super::{assets, fields, history, query};
use crate::http::{Kind, Method, Plan, Request, Status};

/// What a request asks for.
#[derive(Debug, Clone)]
pub enum Task {
    /// `GET /`, by the client at that address.
    Visit(Format, Language, IpAddr),
    /// A browser fetches ahead of a visit that may never come.
    Prefetch,
    /// `HEAD /`: what a visit would be answered with, and no visit.
    Head(Format, Language),
    Stats,
    Livez,
    Readyz {
        /// One line per store.
        verbose: bool,
    },
    Metrics,
    History(HistoryRequest),
    Events,
    Badge(Box<BadgeRequest>),
    /// A browser asks whether another page's script may read an answer (the Fetch standard's
    /// CORS-preflight request): it may.
    Preflight,
    Fixed(Fixed),
}

impl Task {
    pub(super) fn plan(self) -> Plan<Task> {
        let kind = match self {
            Task::Visit(..) => Kind::Visit,
            Task::Livez | Task::Readyz { .. } | Task::Metrics => Kind::Probe,
            Task::Prefetch => Kind::Prefetch,
            _ => Kind::Other,
        };
        let waits = matches!(
            self,
            Task::Visit(..) | Task::Stats | Task::History(_) | Task::Events | Task::Badge(_)
        );
        Plan {
            task: self,
            kind,
            waits,
        }
    }
}

/// An answer known in advance.
#[derive(Debug, Clone, Copy)]
pub struct Fixed {
    pub(super) status: Status,
    pub(super) fields: &'static str,
    pub(super) body: &'static [u8],
}

const ICON: &[u8] = include_bytes!("favicon.svg");

const NOT_FOUND: Fixed = Fixed {
    status: Status::NotFound,
    fields: fields::REFUSAL,
    body: b"There is nothing here.\n",
};
const BAD_HISTORY: Fixed = Fixed {
    status: Status::BadRequest,
    fields: fields::HISTORY_JSON,
    body: b"{\"error\":\"The history is kept by minute, hour, day and month: \
        ask for ?by= one of these, and for ?format= csv or json.\"}",
};
const NOT_ALLOWED: Fixed = Fixed {
    status: Status::MethodNotAllowed,
    fields: fields::NOT_ALLOWED,
    body: b"Only GET and HEAD are allowed here.\n",
};
pub(super) const PREFETCH: Fixed = Fixed {
    status: Status::ServiceUnavailable,
    fields: fields::REFUSAL,
    body: b"A prefetch is no visit, so it was neither counted nor answered.\n",
};
/// `OPTIONS *`: about the server as a whole (RFC 9110, section 9.3.7).
const OPTIONS: Fixed = Fixed {
    status: Status::Ok,
    fields: "Allow: GET, HEAD\r\n",
    body: b"",
};
const FAVICON: Fixed = Fixed {
    status: Status::Ok,
    fields: fields::ICON,
    body: ICON,
};
const ROBOTS: Fixed = Fixed {
    status: Status::Ok,
    fields: fields::CACHED_TEXT,
    body: b"User-agent: *\nDisallow: /\n",
};

const STYLE: Fixed = Fixed {
    status: Status::Ok,
    fields: fields::STYLE,
    body: assets::STYLE,
};
const SCRIPT: Fixed = Fixed {
    status: Status::Ok,
    fields: fields::SCRIPT,
    body: assets::SCRIPT,
};

/// Whether the path is one for those who operate the process.
pub(super) fn is_ops(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/metrics")
}

pub(super) fn not_found() -> Task {
    Task::Fixed(NOT_FOUND)
}

/// What the request of the client at that address asks for.
pub(super) fn task(request: &Request<'_>, client: IpAddr) -> Task {
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
        "/style.css" => Task::Fixed(STYLE),
        "/live.js" => Task::Fixed(SCRIPT),
        "/favicon.ico" | "/favicon.svg" => Task::Fixed(FAVICON),
        "/robots.txt" => Task::Fixed(ROBOTS),
        "*" => return Task::Fixed(OPTIONS),
        _ => return not_found(),
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
        Method::Other(_) => Task::Fixed(NOT_ALLOWED),
    }
}

fn read_history(request: &Request<'_>) -> Task {
    let value = |name| query::value(request.target, name);
    let format = value("format");
    let csv = match &format {
        Some(format) => history::is_csv(format),
        None => Some(prefers_csv(request)),
    };
    match (history::by(value("by").as_deref()), csv) {
        (Some(by), Some(csv)) => Task::History(HistoryRequest {
            by,
            csv,
            download: format.is_some(),
        }),
        _ => Task::Fixed(BAD_HISTORY),
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
    let if_match = request.fields("if-match").next().map(|_| tags("if-match"));
    Task::Badge(Box::new(BadgeRequest {
        badge,
        json,
        if_none_match: tags("if-none-match"),
        if_match,
    }))
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

/// Whether the browser fetches ahead (the Fetch standard's `Sec-Purpose`, and its older names).
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
