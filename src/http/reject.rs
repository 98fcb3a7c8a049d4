//! Why a request is rejected, and the answer that says so.

use super::status::Status;

/// Why a request is rejected. The connection closes after any of these: nobody knows where the next
/// request begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reject {
    Malformed,
    LineEnd,
    Target,
    Tunnel,
    Host,
    Authority,
    Length,
    LastCoding,
    UnknownCoding,
    Chunk,
    Expectation,
    Version,
    LineTooLong,
    FieldsTooLarge,
    TooManyFields,
    BodyTooLarge,
    Slow,
    Incomplete,
    OutOfMemory,
    Proxy,
}

impl Reject {
    pub(super) fn answer(self) -> (Status, &'static str) {
        match self {
            Reject::Malformed => (Status::BadRequest, "This is not a valid HTTP/1.1 request."),
            Reject::LineEnd => (
                Status::BadRequest,
                "Every line of a request ends with CR and LF.",
            ),
            Reject::Target => (
                Status::BadRequest,
                "The request target is not one this server can have.",
            ),
            Reject::Tunnel => (
                Status::NotImplemented,
                "This server is no proxy and opens no tunnels.",
            ),
            Reject::Host => (
                Status::BadRequest,
                "A request needs exactly one valid Host field.",
            ),
            Reject::Authority => (
                Status::BadRequest,
                "The request target and the Host field name different hosts.",
            ),
            Reject::Length => (
                Status::BadRequest,
                "Content-Length must be one number, and not beside Transfer-Encoding.",
            ),
            Reject::LastCoding => (
                Status::BadRequest,
                "Transfer-Encoding must be in one HTTP/1.1 field and end with chunked.",
            ),
            Reject::UnknownCoding => (
                Status::NotImplemented,
                "The only transfer coding this server knows is chunked.",
            ),
            Reject::Chunk => (Status::BadRequest, "The chunked body is malformed."),
            Reject::Expectation => (
                Status::ExpectationFailed,
                "The only expectation this server knows is 100-continue.",
            ),
            Reject::Version => (
                Status::VersionNotSupported,
                "This server speaks HTTP/1.1 and HTTP/1.0.",
            ),
            Reject::LineTooLong => (Status::UriTooLong, "The request line is longer than 8 KiB."),
            Reject::FieldsTooLarge => (
                Status::HeaderFieldsTooLarge,
                "The header fields take more than 32 KiB.",
            ),
            Reject::TooManyFields => (
                Status::HeaderFieldsTooLarge,
                "There are more than 128 header fields.",
            ),
            Reject::BodyTooLarge => (Status::ContentTooLarge, "The body is larger than 64 KiB."),
            Reject::Slow => (
                Status::RequestTimeout,
                "The request took too long to arrive.",
            ),
            Reject::Incomplete => (
                Status::BadRequest,
                "The request ended before it was complete.",
            ),
            Reject::Proxy => (Status::BadRequest, "The PROXY header is malformed."),
            Reject::OutOfMemory => (
                Status::ServiceUnavailable,
                "Too many requests wait for memory. Please try again.",
            ),
        }
    }
}
