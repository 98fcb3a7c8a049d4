//! The status codes in use (RFC 9110, section 15).

macro_rules! statuses {
    ($($name:ident $code:literal $reason:literal;)+) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Status { $($name),+ }

        impl Status {
            pub const ALL: [Status; [$($code),+].len()] = [$(Status::$name),+];

            pub fn code(self) -> u16 {
                match self { $(Status::$name => $code),+ }
            }

            pub(super) fn line(self) -> &'static [u8] {
                match self {
                    $(Status::$name => {
                        concat!("HTTP/1.1 ", $code, " ", $reason, "\r\n").as_bytes()
                    }),+
                }
            }
        }
    };
}

statuses! {
    Ok 200 "OK";
    NoContent 204 "No Content";
    NotModified 304 "Not Modified";
    BadRequest 400 "Bad Request";
    NotFound 404 "Not Found";
    MethodNotAllowed 405 "Method Not Allowed";
    RequestTimeout 408 "Request Timeout";
    PreconditionFailed 412 "Precondition Failed";
    ContentTooLarge 413 "Content Too Large";
    UriTooLong 414 "URI Too Long";
    ExpectationFailed 417 "Expectation Failed";
    TooManyRequests 429 "Too Many Requests";
    HeaderFieldsTooLarge 431 "Request Header Fields Too Large";
    NotImplemented 501 "Not Implemented";
    ServiceUnavailable 503 "Service Unavailable";
    VersionNotSupported 505 "HTTP Version Not Supported";
}
