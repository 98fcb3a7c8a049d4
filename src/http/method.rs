//! A request's method (RFC 9110, section 9).

/// GET and HEAD are served; every other one is known by name only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method<'b> {
    Get,
    Head,
    Other(&'b str),
}

impl<'b> Method<'b> {
    pub(super) fn parse(name: &'b str) -> Method<'b> {
        match name {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            other => Method::Other(other),
        }
    }

    pub fn name(self) -> &'b str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Other(name) => name,
        }
    }
}
