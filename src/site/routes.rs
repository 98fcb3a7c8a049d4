//! The routes: which part of which counter a path names, and what a method asks of it.

use std::net::IpAddr;

use super::badge::{Badge, BadgeRequest};
use super::cors::Origin;
use super::history::HistoryRequest;
use super::named::ListRequest;
use super::negotiation::{Format, Language, asks_csv, format, language};
use super::visit::Form;
use super::{assets, fields, history, query};
use crate::http::{Kind, Method, Plan, Request, Status};
use crate::visits::Name;

/// Which visits a part of the site is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of them: what `/` shows.
    All,
    /// Those of one counter: what `/c/NAME` shows.
    Name(Name),
}

impl Scope {
    pub(super) fn name(&self) -> Option<&Name> {
        match self {
            Scope::All => None,
            Scope::Name(name) => Some(name),
        }
    }

    /// What its pages' titles begin with, and the path before its routes.
    pub(super) fn place(&self, base: &str) -> [String; 2] {
        match self {
            Scope::All => [String::new(), base.to_owned()],
            Scope::Name(name) => [format!("{name} · "), format!("{base}/c/{name}")],
        }
    }
}

/// A part that each counter has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Page,
    /// A visit that is answered with the badge.
    Picture,
    /// A visit that is answered without content.
    Beacon,
    Stats,
    History,
    Events,
    Badge {
        json: bool,
    },
}

/// What a path names.
#[derive(Debug, Clone)]
enum Route {
    Counter(Scope, Part),
    Counters,
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
            "/visit.svg" => Part::Picture,
            "/visit" => Part::Beacon,
            "/stats" => Part::Stats,
            "/history" => Part::History,
            "/events" => Part::Events,
            "/badge.svg" => Part::Badge { json: false },
            "/badge.json" => Part::Badge { json: true },
            _ => return None,
        })
    }
}

/// What a request asks for.
#[derive(Debug, Clone)]
pub enum Task {
    /// By the client at that address.
    Visit(Scope, Form, IpAddr),
    /// A browser fetches ahead of a visit that may never come.
    Prefetch(Scope, Form),
    /// `HEAD`: what a visit would be answered with, and no visit.
    Head(Scope, Form),
    Stats(Scope),
    Livez,
    Readyz {
        /// One line per store.
        verbose: bool,
    },
    Metrics,
    History(Scope, HistoryRequest),
    HistoryPage(Scope, Language),
    Events(Scope),
    Badge(Scope, Box<BadgeRequest>),
    /// The list of names.
    Counters(Box<ListRequest>),
    /// A browser asks whether another page's script may read an answer (the Fetch standard's
    /// CORS-preflight request): it may.
    Preflight,
    /// The same for a beacon.
    BeaconPreflight(Origin),
    Fixed(Fixed),
}

impl Task {
    pub(super) fn plan(self) -> Plan<Task> {
        let kind = match self {
            Task::Visit(..) => Kind::Visit,
            Task::Livez | Task::Readyz { .. } | Task::Metrics => Kind::Probe,
            Task::Prefetch(..) => Kind::Prefetch,
            _ => Kind::Other,
        };
        let waits = matches!(
            self,
            Task::Visit(..)
                | Task::Stats(_)
                | Task::History(..)
                | Task::HistoryPage(..)
                | Task::Events(_)
                | Task::Badge(..)
                | Task::Counters(_)
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
        ask for ?by= one of these, and for ?format= csv, json or html.\"}",
};
const BAD_LIST: Fixed = Fixed {
    status: Status::BadRequest,
    fields: fields::HISTORY_JSON,
    body: b"{\"error\":\"The list takes ?after= a name, ?limit= 1 to 1000, and ?format= json or csv.\"}",
};
const ONLY_GET: Fixed = Fixed {
    status: Status::MethodNotAllowed,
    fields: fields::ONLY_GET,
    body: b"Only GET and HEAD are allowed here.\n",
};
const ONLY_POST: Fixed = Fixed {
    status: Status::MethodNotAllowed,
    fields: fields::ONLY_POST,
    body: b"Only POST is allowed here.\n",
};
pub(super) const PREFETCH: Fixed = Fixed {
    status: Status::ServiceUnavailable,
    fields: fields::REFUSAL,
    body: b"A prefetch is no visit, so it was neither counted nor answered.\n",
};
/// `OPTIONS *`: about the server as a whole (RFC 9110, section 9.3.7).
const OPTIONS: Fixed = Fixed {
    status: Status::Ok,
    fields: "Allow: GET, HEAD, POST\r\n",
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

/// The routes as they are placed on the server.
#[derive(Debug)]
pub(super) struct Routes {
    /// What every path begins with; empty, or `/visits`.
    pub(super) base: String,
    /// Health and metrics are on another port.
    pub(super) ops_apart: bool,
    /// There are counters by name.
    pub(super) named: bool,
}

impl Routes {
    /// What the request of the client at that address asks for.
    pub(super) fn task(&self, request: &Request<'_>, client: IpAddr, name: Find<'_>) -> Task {
        if request.path() == "*" {
            return Task::Fixed(OPTIONS);
        }
        match self.find(request.path(), name) {
            Some(Route::Counters) if !self.named => Task::Fixed(NOT_FOUND),
            Some(route) if !(self.ops_apart && route.is_ops()) => route.task(request, client),
            _ => Task::Fixed(NOT_FOUND),
        }
    }

    /// The same on the port for operators.
    pub(super) fn ops_task(&self, request: &Request<'_>, client: IpAddr) -> Task {
        match self.find(request.path(), &|_| None) {
            Some(route) if route.is_ops() => route.task(request, client),
            _ => Task::Fixed(NOT_FOUND),
        }
    }

    /// The route of a path. Health and metrics are at the root too, whatever the base.
    fn find(&self, path: &str, name: Find<'_>) -> Option<Route> {
        match path.strip_prefix(&*self.base) {
            Some(below) if below.starts_with('/') => Route::at(below, name),
            Some("") => Route::at("/", name),
            _ => Route::at(path, name).filter(Route::is_ops),
        }
    }
}

/// Finds the name of a text among those that are admitted.
type Find<'a> = &'a dyn Fn(&str) -> Option<Name>;

impl Route {
    fn at(path: &str, name: Find<'_>) -> Option<Route> {
        if let Some(below) = path.strip_prefix("/c/") {
            let (text, part) = below.split_at(below.find('/').unwrap_or(below.len()));
            let part = match part {
                "" => Part::Page,
                "/" => return None,
                part => Part::at(part)?,
            };
            return Some(Route::Counter(Scope::Name(name(text)?), part));
        }
        Some(match path {
            "/livez" => Route::Livez,
            "/readyz" => Route::Readyz,
            "/metrics" => Route::Metrics,
            "/style.css" => Route::Fixed(STYLE),
            "/live.js" => Route::Fixed(SCRIPT),
            "/favicon.ico" | "/favicon.svg" => Route::Fixed(FAVICON),
            "/robots.txt" => Route::Fixed(ROBOTS),
            "/counters" => Route::Counters,
            _ => Route::Counter(Scope::All, Part::at(path)?),
        })
    }

    /// Whether it is for those who operate the process.
    fn is_ops(&self) -> bool {
        matches!(self, Route::Livez | Route::Readyz | Route::Metrics)
    }

    fn task(self, request: &Request<'_>, client: IpAddr) -> Task {
        match (self, request.method) {
            (Route::Counter(scope, Part::Beacon), Method::Other("POST")) => {
                visit(scope, beacon, request, client)
            }
            (Route::Counter(_, Part::Beacon), Method::Other("OPTIONS"))
                if is_preflight(request) =>
            {
                Task::BeaconPreflight(Origin::of(request))
            }
            (Route::Counter(_, Part::Beacon), _) => Task::Fixed(ONLY_POST),
            (route, Method::Get | Method::Head) => route.read(request, client),
            (_, Method::Other("OPTIONS")) if is_preflight(request) => Task::Preflight,
            (_, Method::Other(_)) => Task::Fixed(ONLY_GET),
        }
    }

    /// What GET or HEAD asks of it.
    fn read(self, request: &Request<'_>, client: IpAddr) -> Task {
        match self {
            Route::Counter(scope, part) => match part {
                Part::Page => visit(scope, page_or_json, request, client),
                Part::Picture => visit(scope, picture, request, client),
                Part::Beacon => Task::Fixed(ONLY_POST),
                Part::Stats => Task::Stats(scope),
                Part::History => read_history(scope, request),
                Part::Events => Task::Events(scope),
                Part::Badge { json } => badge(scope, request, json),
            },
            Route::Counters => {
                let list = ListRequest::of(request);
                list.map_or(Task::Fixed(BAD_LIST), |list| Task::Counters(Box::new(list)))
            }
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
}

fn is_preflight(request: &Request<'_>) -> bool {
    let mut asked = request.fields("access-control-request-method");
    asked.next().is_some()
}

fn read_history(scope: Scope, request: &Request<'_>) -> Task {
    let value = |name| query::value(request.target, name);
    let format = value("format");
    match (history::by(value("by").as_deref()), asks_csv(request)) {
        (Some(_), _) if format.as_deref() == Some("html") => {
            Task::HistoryPage(scope, language(request))
        }
        (Some(by), Some(csv)) => {
            let download = format.is_some();
            Task::History(scope, HistoryRequest { by, csv, download })
        }
        _ => Task::Fixed(BAD_HISTORY),
    }
}

fn badge(scope: Scope, request: &Request<'_>, json: bool) -> Task {
    let tags = |name| {
        request
            .fields(name)
            .map(String::from_utf8_lossy)
            .collect::<Vec<_>>()
            .join(",")
    };
    let if_match = request.fields("if-match").next().map(|_| tags("if-match"));
    let request = BadgeRequest {
        badge: described_badge(request),
        json,
        if_none_match: tags("if-none-match"),
        if_match,
    };
    Task::Badge(scope, Box::new(request))
}

/// A visit of the form that `form` finds.
fn visit(
    scope: Scope,
    form: fn(&Request<'_>) -> Form,
    request: &Request<'_>,
    client: IpAddr,
) -> Task {
    let form = form(request);
    if is_prefetch(request) {
        Task::Prefetch(scope, form)
    } else if request.method == Method::Head {
        Task::Head(scope, form)
    } else {
        Task::Visit(scope, form, client)
    }
}

fn page_or_json(request: &Request<'_>) -> Form {
    match format(request) {
        Format::Html => Form::Page(language(request)),
        Format::Text => Form::Text(language(request)),
        Format::Json => Form::Json,
    }
}

fn picture(request: &Request<'_>) -> Form {
    Form::Picture(Box::new(described_badge(request)))
}

fn beacon(request: &Request<'_>) -> Form {
    Form::Beacon(Origin::of(request))
}

/// The badge that the query describes.
fn described_badge(request: &Request<'_>) -> Badge {
    Badge::of(|name| query::value(request.target, name))
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
