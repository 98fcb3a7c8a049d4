//! The routes: what each method and path asks for, decided from the request alone.

use super::negotiation::{Format, Language, format, language};
use crate::http::{Method, Request, Status};

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub enum Task {
    /// `GET /`: a visit.
    Visit(Format, Language),
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
    /// An answer known in advance.
    Small(Small),
}

/// An answer known in advance.
#[derive(Debug, Clone, Copy)]
pub struct Small {
    pub(super) status: Status,
    pub(super) fields: &'static str,
    pub(super) body: &'static [u8],
}

macro_rules! fields {
    ($kind:literal, $cache:literal $(, $more:literal)*) => {
        concat!(
            "Content-Type: ", $kind, "\r\n",
            "Cache-Control: ", $cache, "\r\n",
            "X-Content-Type-Options: nosniff\r\n",
            $($more, "\r\n"),*
        )
    };
}

pub(super) const TEXT_FIELDS: &str = fields!("text/plain; charset=utf-8", "no-store");
pub(super) const JSON_FIELDS: &str = fields!("application/json", "no-store");
pub(super) const VISIT_JSON_FIELDS: &str = fields!("application/json", "no-store", "Vary: Accept, Accept-Language");
pub(super) const METRICS_FIELDS: &str = fields!("text/plain; version=0.0.4; charset=utf-8", "no-store");
const ICON_FIELDS: &str = fields!("image/svg+xml", "public, max-age=86400");
const CACHED_TEXT_FIELDS: &str = fields!("text/plain; charset=utf-8", "public, max-age=86400");
const NOT_ALLOWED_FIELDS: &str = fields!("text/plain; charset=utf-8", "no-store", "Allow: GET, HEAD");

const ICON: &[u8] = include_bytes!("favicon.svg");

const NOT_FOUND: Small = Small { status: Status::NotFound, fields: TEXT_FIELDS, body: b"There is nothing here.\n" };
const NOT_ALLOWED: Small = Small {
    status: Status::MethodNotAllowed,
    fields: NOT_ALLOWED_FIELDS,
    body: b"Only GET and HEAD are allowed here.\n",
};
const PREFETCH: Small = Small {
    status: Status::ServiceUnavailable,
    fields: TEXT_FIELDS,
    body: b"A prefetch is no visit, so it was neither counted nor answered.\n",
};
/// `OPTIONS *`: what the server as a whole can do (RFC 9110, section 9.3.7).
const OPTIONS: Small = Small { status: Status::Ok, fields: "Allow: GET, HEAD\r\n", body: b"" };
const FAVICON: Small = Small { status: Status::Ok, fields: ICON_FIELDS, body: ICON };
const ROBOTS: Small = Small { status: Status::Ok, fields: CACHED_TEXT_FIELDS, body: b"User-agent: *\nDisallow: /\n" };

/// What the request asks for.
pub(super) fn plan(request: &Request<'_>) -> Task {
    let found = match request.path() {
        "/" => visit(request),
        "/stats" => Task::Stats,
        "/livez" => Task::Livez,
        "/readyz" => {
            Task::Readyz { verbose: request.target.split_once('?').is_some_and(|(_, query)| asks_verbose(query)) }
        }
        "/metrics" => Task::Metrics,
        "/favicon.ico" | "/favicon.svg" => Task::Small(FAVICON),
        "/robots.txt" => Task::Small(ROBOTS),
        "*" => return Task::Small(OPTIONS),
        _ => return Task::Small(NOT_FOUND),
    };
    match request.method {
        Method::Get | Method::Head => found,
        Method::Other(_) => Task::Small(NOT_ALLOWED),
    }
}

fn visit(request: &Request<'_>) -> Task {
    if is_prefetch(request) {
        return Task::Small(PREFETCH);
    }
    let (format, language) = (format(request), language(request));
    if request.method == Method::Get { Task::Visit(format, language) } else { Task::Head(format, language) }
}

/// `?verbose`, with or without a value.
fn asks_verbose(query: &str) -> bool {
    query.split('&').any(|pair| pair.split('=').next() == Some("verbose"))
}

/// Whether the browser fetches this ahead of a visit that may never come (the Fetch standard's `Sec-Purpose`, and the
/// names browsers used before).
fn is_prefetch(request: &Request<'_>) -> bool {
    let ahead = |value: &[u8]| {
        let mut words = value.split(|byte| !byte.is_ascii_alphanumeric());
        words.any(|word| {
            [b"prefetch".as_slice(), b"prerender", b"preview"].iter().any(|ahead| word.eq_ignore_ascii_case(ahead))
        })
    };
    ["sec-purpose", "purpose", "x-purpose", "x-moz"].iter().any(|name| request.fields(name).any(ahead))
}
