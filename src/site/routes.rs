//! The routes: which part of which counter a path names, and what a method asks of it.

use std::net::IpAddr;

use super::badge::{Badge, BadgeRequest};
use super::negotiation::{Format, Language, format, language, prefers_csv};
use super::{fields, history, page, query};
use crate::http::{Kind, Method, Plan, Request, Status};
use crate::visits::history::Step;

/// Which visits a part of the site is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of them: what `/` shows.
    All,
}

/// A part that each counter has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Page,
    Stats,
    History,
    Events,
    Badge { json: bool },
}

/// What a path names.
#[derive(Debug, Clone, Copy)]
enum Route {
    Counter(Scope, Part),
    Livez,
    Readyz,
    Metrics,
    Fixed(Fixed),
}

impl Part {
    /// The part at that path below its counter.
    fn at(path: &str) -> Option<Part> {
        Some(match path {
            "/" => Part::Page,
            "/stats" => Part::Stats,
            "/history" => Part::History,
            "/events" => Part::Events,
            "/badge.svg" => Part::Badge { json: false },
            "/badge.json" => Part::Badge { json: true },
            _ => return None,
        })
    }
}

impl Route {
    fn at(path: &str) -> Option<Route> {
        Some(match path {
            "/livez" => Route::Livez,
            "/readyz" => Route::Readyz,
            "/metrics" => Route::Metrics,
            "/style.css" => Route::Fixed(STYLE),
            "/live.js" => Route::Fixed(SCRIPT),
            "/favicon.ico" | "/favicon.svg" => Route::Fixed(FAVICON),
            "/robots.txt" => Route::Fixed(ROBOTS),
            _ => Route::Counter(Scope::All, Part::at(path)?),
        })
    }
}

/// What a request asks for.
#[derive(Debug, Clone)]
pub enum Task {
    /// `GET /`, by the client at that address.
    Visit(Scope, Format, Language, IpAddr),
    /// A browser fetches ahead of a visit that may never come.
    Prefetch,
    /// `HEAD /`: what a visit would be answered with, and no visit.
    Head(Scope, Format, Language),
    Stats(Scope),
    Livez,
    Readyz {
        /// One line per store.
        verbose: bool,
    },
    Metrics,
    History {
        scope: Scope,
        step: Step,
        csv: bool,
    },
    Events(Scope),
    Badge(Scope, Box<BadgeRequest>),
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
            Task::Visit(..)
                | Task::Stats(_)
                | Task::History { .. }
                | Task::Events(_)
                | Task::Badge(..)
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
const BAD_STEP: Fixed = Fixed {
    status: Status::BadRequest,
    fields: fields::HISTORY_JSON,
    body: b"{\"error\":\"The history is kept by minute, by hour and by day: \
        ask for ?by= one of these.\"}",
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
    body: page::STYLE.as_bytes(),
};
const SCRIPT: Fixed = Fixed {
    status: Status::Ok,
    fields: fields::SCRIPT,
    body: page::SCRIPT.as_bytes(),
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
    if request.path() == "*" {
        return Task::Fixed(OPTIONS);
    }
    let Some(route) = Route::at(request.path()) else {
        return not_found();
    };
    match request.method {
        Method::Get | Method::Head => read(route, request, client),
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

/// What GET or HEAD asks of a route.
fn read(route: Route, request: &Request<'_>, client: IpAddr) -> Task {
    match route {
        Route::Counter(scope, part) => match part {
            Part::Page => visit(scope, request, client),
            Part::Stats => Task::Stats(scope),
            Part::History => read_history(scope, request),
            Part::Events => Task::Events(scope),
            Part::Badge { json } => badge(scope, request, json),
        },
        Route::Livez => Task::Livez,
        Route::Readyz => Task::Readyz {
            verbose: request
                .target
                .split_once('?')
                .is_some_and(|(_, query)| asks_verbose(query)),
        },
        Route::Metrics => Task::Metrics,
        Route::Fixed(response) => Task::Fixed(response),
    }
}

fn read_history(scope: Scope, request: &Request<'_>) -> Task {
    match history::step(query::value(request.target, "by").as_deref()) {
        Some(step) => Task::History {
            scope,
            step,
            csv: prefers_csv(request),
        },
        None => Task::Fixed(BAD_STEP),
    }
}

fn badge(scope: Scope, request: &Request<'_>, json: bool) -> Task {
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
    let request = BadgeRequest {
        badge,
        json,
        if_none_match: tags("if-none-match"),
        if_match,
    };
    Task::Badge(scope, Box::new(request))
}

fn visit(scope: Scope, request: &Request<'_>, client: IpAddr) -> Task {
    if is_prefetch(request) {
        return Task::Prefetch;
    }
    let (format, language) = (format(request), language(request));
    if request.method == Method::Get {
        Task::Visit(scope, format, language, client)
    } else {
        Task::Head(scope, format, language)
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
