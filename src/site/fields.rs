//! The header fields of answers: content type, caching, CORS.

macro_rules! fields {
    ($kind:literal, $cache:literal $(, $more:expr)*) => {
        concat!(
            "Content-Type: ", $kind, "\r\n",
            "Cache-Control: ", $cache, "\r\n",
            $($more, "\r\n"),*
        )
    };
}

/// Lets scripts of other pages read an answer: nothing is secret, and no route reads credentials.
macro_rules! cors {
    () => {
        "Access-Control-Allow-Origin: *"
    };
}
pub(super) const CORS: &str = concat!(cors!(), "\r\n");

/// Lets pages that isolate themselves embed an answer (the HTML standard's COEP).
macro_rules! embedded {
    () => {
        "Cross-Origin-Resource-Policy: cross-origin"
    };
}
pub(super) const EMBEDDED: &str = concat!(embedded!(), "\r\n");

pub(super) const TEXT: &str = fields!("text/plain; charset=utf-8", "no-store");
pub(super) const JSON: &str = fields!("application/json", "no-store", cors!());
pub(super) const VISIT_JSON: &str = fields!(
    "application/json",
    "no-store",
    cors!(),
    "Vary: Accept, Accept-Language"
);
// Each request must arrive, also through the image proxies of GitHub and others: some of them go by
// the times alone.
pub(super) const VISIT_PICTURE: &str = fields!(
    "image/svg+xml",
    "no-cache, no-store, max-age=0, s-maxage=0, must-revalidate",
    cors!(),
    embedded!()
);
pub(super) const BEACON: &str = concat!("Cache-Control: no-store\r\n", embedded!(), "\r\n");
pub(super) const HISTORY_JSON: &str =
    fields!("application/json", "no-store", cors!(), "Vary: Accept");
pub(super) const HISTORY_CSV: &str = fields!(
    "text/csv; charset=utf-8; header=present",
    "no-store",
    cors!(),
    "Vary: Accept"
);
// Without this a proxy may buffer the messages.
pub(super) const EVENTS: &str = fields!(
    "text/event-stream",
    "no-store",
    cors!(),
    "X-Accel-Buffering: no"
);
pub(super) const PREFLIGHT: &str = concat!(
    cors!(),
    "\r\nAccess-Control-Allow-Methods: GET, HEAD\r\nAccess-Control-Allow-Headers: *\r\n",
    "Access-Control-Max-Age: 86400\r\nCache-Control: no-store\r\n",
    "Vary: Access-Control-Request-Method\r\n"
);
// Where a request has credentials, `*` names no field.
pub(super) const BEACON_PREFLIGHT: &str = concat!(
    "Access-Control-Allow-Methods: POST\r\nAccess-Control-Allow-Headers: *, Content-Type\r\n",
    "Access-Control-Max-Age: 86400\r\nCache-Control: no-store\r\n",
);
pub(super) const METRICS: &str = fields!("text/plain; version=0.0.4; charset=utf-8", "no-store");
pub(super) const ICON: &str = fields!("image/svg+xml", "public, max-age=86400");
pub(super) const CACHED_TEXT: &str = fields!("text/plain; charset=utf-8", "public, max-age=86400");
// The version is in the address, so a file never changes.
pub(super) const STYLE: &str = fields!(
    "text/css; charset=utf-8",
    "public, max-age=31536000, immutable"
);
pub(super) const SCRIPT: &str = fields!(
    "text/javascript; charset=utf-8",
    "public, max-age=31536000, immutable"
);
pub(super) const REFUSAL: &str = fields!("text/plain; charset=utf-8", "no-store", cors!());
pub(super) const ONLY_GET: &str = fields!(
    "text/plain; charset=utf-8",
    "no-store",
    cors!(),
    "Allow: GET, HEAD"
);
pub(super) const ONLY_POST: &str = fields!(
    "text/plain; charset=utf-8",
    "no-store",
    cors!(),
    "Allow: POST"
);
