//! Why a request is rejected, and the answer that says so.

use super::status::Status;

macro_rules! rejects {
    ($($name:ident => $status:ident, $sentence:literal;)+) => {
        /// Why a request is rejected. The connection closes after any of these: nobody knows where
        /// the next request begins.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Reject { $($name),+ }

        impl Reject {
            pub(super) fn answer(self) -> (Status, &'static str) {
                match self { $(Reject::$name => (Status::$status, $sentence)),+ }
            }
        }
    };
}

rejects! {
    Malformed => BadRequest, "This is not a valid HTTP/1.1 request.";
    LineEnd => BadRequest, "Every line of a request ends with CR and LF.";
    Target => BadRequest, "The request target is not one this server can have.";
    Tunnel => NotImplemented, "This server is no proxy and opens no tunnels.";
    Host => BadRequest, "A request needs exactly one valid Host field.";
    Authority => BadRequest, "The request target and the Host field name different hosts.";
    Length => BadRequest, "Content-Length must be one number, and not beside Transfer-Encoding.";
    LastCoding => BadRequest,
        "Transfer-Encoding must be in one HTTP/1.1 field and end with chunked.";
    UnknownCoding => NotImplemented, "The only transfer coding this server knows is chunked.";
    Chunk => BadRequest, "The chunked body is malformed.";
    Expectation => ExpectationFailed, "The only expectation this server knows is 100-continue.";
    Version => VersionNotSupported, "This server speaks HTTP/1.1 and HTTP/1.0.";
    LineTooLong => UriTooLong, "The request line is longer than 8 KiB.";
    FieldsTooLarge => HeaderFieldsTooLarge, "The header fields take more than 32 KiB.";
    TooManyFields => HeaderFieldsTooLarge, "There are more than 128 header fields.";
    BodyTooLarge => ContentTooLarge, "The body is larger than 64 KiB.";
    Slow => RequestTimeout, "The request took too long to arrive.";
    Incomplete => BadRequest, "The request ended before it was complete.";
    OutOfMemory => ServiceUnavailable, "Too many requests wait for memory. Please try again.";
    Proxy => BadRequest, "The PROXY header is malformed.";
}
