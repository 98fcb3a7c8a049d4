//! A small blocking HTTP/1.1 client: it sends raw bytes, keeps connections, and bounds every read.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The limit for an answer unless a test sets another: above every time-out of the suite.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// An answer, with its headers in order.
#[derive(Clone)]
pub struct Response {
    pub version: String,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        write!(
            f,
            "{} {} {:?} {body:?}",
            self.version, self.status, self.headers
        )
    }
}

/// The two numbers of a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub total: u64,
    pub cache: Option<i64>,
}

/// Why there was no answer.
#[derive(Debug)]
#[allow(dead_code, reason = "panics print the fields")]
pub enum NoAnswer {
    /// The request could not be sent.
    NotSent(io::Error),
    /// The connection was closed before the first byte of an answer.
    Closed,
    /// It was closed in the middle of an answer, or time was up. `got` holds what came.
    Incomplete { why: String, got: String },
    /// Not an HTTP/1.1 answer.
    Malformed(String),
}

impl Response {
    /// The only header of this name.
    ///
    /// # Panics
    /// When there are two.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self
            .headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let first = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "two {name} headers in {self:?}");
        first
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("a body of UTF-8")
    }

    /// The sentence of a refusal: the body, the field `error` of JSON, or the page's reason.
    ///
    /// # Panics
    /// When it is not one plain sentence.
    #[track_caller]
    pub fn sentence(&self) -> String {
        let sentence = match self.header("Content-Type") {
            Some("application/json") => {
                let json: serde_json::Value =
                    serde_json::from_slice(&self.body).unwrap_or_default();
                json["error"].as_str().unwrap_or_default().to_owned()
            }
            Some("text/plain; charset=utf-8") => self.text().trim_end().to_owned(),
            Some("text/html; charset=utf-8") => {
                let text = self.text();
                let reason = text.split_once("<p id=\"reason\">").unwrap_or_default().1;
                reason.split_once("</p>").unwrap_or_default().0.to_owned()
            }
            _ => String::new(),
        };
        let plain = sentence.ends_with('.')
            && sentence.lines().count() == 1
            && (10..300).contains(&sentence.len());
        assert!(
            plain,
            "no plain sentence: {self:?} {:?}",
            String::from_utf8_lossy(&self.body)
        );
        sentence
    }

    /// The numbers of a body that is exactly `{"total":N,"cache":M}`.
    #[track_caller]
    pub fn counts(&self) -> Counts {
        assert_eq!(self.status, 200, "not counted: {self:?}");
        let text = self.text();
        let counts = self.fields();
        let cache = counts
            .cache
            .map_or("null".to_owned(), |cache| cache.to_string());
        assert_eq!(
            text.trim_end(),
            format!("{{\"total\":{},\"cache\":{cache}}}", counts.total),
            "the JSON of a visit"
        );
        counts
    }

    /// The numbers of a JSON body that may have other fields.
    #[track_caller]
    pub fn fields(&self) -> Counts {
        let json: serde_json::Value =
            serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        let total = json["total"]
            .as_u64()
            .unwrap_or_else(|| panic!("no total in {self:?}"));
        let cache = json
            .get("cache")
            .unwrap_or_else(|| panic!("no cache in {self:?}"));
        assert!(
            cache.is_null() || cache.is_i64(),
            "neither a number nor null: {self:?}"
        );
        Counts {
            total,
            cache: cache.as_i64(),
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    /// Bytes that were read and belong to no answer yet.
    buffer: Vec<u8>,
    limit: Duration,
}

impl Client {
    /// A connection to this port of 127.0.0.1.
    pub fn try_connect(port: u16) -> io::Result<Client> {
        let stream =
            TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), ANSWER_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        Ok(Client {
            stream,
            buffer: Vec::new(),
            limit: ANSWER_LIMIT,
        })
    }

    #[track_caller]
    pub fn connect(port: u16) -> Client {
        Client::try_connect(port)
            .unwrap_or_else(|error| panic!("no connection to port {port}: {error}"))
    }

    /// Sets the limit for each answer.
    pub fn limit(mut self, limit: Duration) -> Client {
        self.limit = limit;
        self
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("bytes sent");
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// The same connection, for another thread.
    pub fn duplicate(&self) -> Client {
        Client {
            stream: self.stream.try_clone().expect("the same connection"),
            buffer: Vec::new(),
            limit: self.limit,
        }
    }

    /// Closes the connection in both directions.
    pub fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Closes the sending side; answers can still be read.
    pub fn half_close(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("a half-close");
    }

    /// Sends a request and waits for its answer.
    pub fn try_request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response, NoAnswer> {
        self.try_send(request(method, path, headers))
            .map_err(NoAnswer::NotSent)?;
        self.try_read(method == "HEAD")
    }

    #[track_caller]
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        self.try_request(method, path, headers)
            .unwrap_or_else(|why| panic!("{method} {path}: {why:?}"))
    }

    #[track_caller]
    pub fn get(&mut self, path: &str) -> Response {
        self.request("GET", path, &[])
    }

    /// A visit that asks for JSON.
    pub fn try_visit(&mut self) -> Result<Response, NoAnswer> {
        self.try_request("GET", "/", &[("Accept", "application/json")])
    }

    /// Reads the next answer to any method but HEAD.
    #[track_caller]
    pub fn read(&mut self) -> Response {
        self.try_read(false)
            .unwrap_or_else(|why| panic!("no answer: {why:?}"))
    }

    /// Reads the next answer. An answer to HEAD has no body, whatever its headers say.
    pub fn try_read(&mut self, to_head: bool) -> Result<Response, NoAnswer> {
        let end = Instant::now() + self.limit;
        let head_length = loop {
            if let Some(found) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break found + 4;
            }
            self.fill(end)?;
        };
        let head: Vec<u8> = self.buffer.drain(..head_length).collect();
        let mut response = parse_head(&head).map_err(NoAnswer::Malformed)?;
        if to_head || matches!(response.status, 100..=199 | 204 | 304) {
            return Ok(response);
        }
        if response.header("Transfer-Encoding").is_some() {
            return Err(NoAnswer::Malformed(format!(
                "an encoding that visitas never needs: {response:?}"
            )));
        }
        let length = match response.header("Content-Length") {
            Some(length) => length
                .parse()
                .map_err(|_| NoAnswer::Malformed(format!("{response:?}")))?,
            None => {
                return Err(NoAnswer::Malformed(format!(
                    "no Content-Length: {response:?}"
                )));
            }
        };
        while self.buffer.len() < length {
            self.fill(end).map_err(|why| match why {
                NoAnswer::Closed => NoAnswer::Incomplete {
                    why: "ended in a body".to_owned(),
                    got: format!("{response:?}"),
                },
                other => other,
            })?;
        }
        response.body = self.buffer.drain(..length).collect();
        Ok(response)
    }

    /// Waits until the server closes the connection; gives the bytes that came before.
    ///
    /// # Panics
    /// When it does not close within `limit`.
    #[track_caller]
    pub fn closed_within(&mut self, limit: Duration) -> Vec<u8> {
        let end = Instant::now() + limit;
        loop {
            match self.fill(end) {
                Ok(()) => {}
                Err(NoAnswer::Closed) => return std::mem::take(&mut self.buffer),
                // A reset is an end too: unread bytes cause one.
                Err(NoAnswer::Incomplete { why, .. }) if why != TIME_IS_UP => {
                    return std::mem::take(&mut self.buffer);
                }
                Err(_) => panic!(
                    "still open after {limit:?}; got {:?}",
                    String::from_utf8_lossy(&self.buffer)
                ),
            }
        }
    }

    /// Waits for this text, and drops what came.
    ///
    /// # Panics
    /// When it does not come in time.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let end = Instant::now() + self.limit;
        while !self
            .buffer
            .windows(text.len())
            .any(|some| some == text.as_bytes())
        {
            self.fill(end)
                .unwrap_or_else(|why| panic!("no {text:?}: {why:?}"));
        }
        self.buffer.clear();
    }

    /// Whether nothing comes for this long, not even the end of the connection.
    pub fn silent_for(&mut self, time: Duration) -> bool {
        let is_silence = |why: NoAnswer| match why {
            NoAnswer::Incomplete { why, .. } => why == TIME_IS_UP,
            _ => false,
        };
        self.buffer.is_empty() && self.fill(Instant::now() + time).is_err_and(is_silence)
    }

    /// Reads some more bytes, until `end` at most.
    fn fill(&mut self, end: Instant) -> Result<(), NoAnswer> {
        let got = |buffer: &[u8]| String::from_utf8_lossy(buffer).into_owned();
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(NoAnswer::Incomplete {
                why: TIME_IS_UP.to_owned(),
                got: got(&self.buffer),
            });
        }
        self.stream
            .set_read_timeout(Some(left))
            .map_err(NoAnswer::NotSent)?;
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) if self.buffer.is_empty() => Err(NoAnswer::Closed),
            Ok(0) => Err(NoAnswer::Incomplete {
                why: "ended in an answer".to_owned(),
                got: got(&self.buffer),
            }),
            Ok(length) => {
                self.buffer.extend_from_slice(&chunk[..length]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(NoAnswer::Incomplete {
                    why: TIME_IS_UP.to_owned(),
                    got: got(&self.buffer),
                })
            }
            // This process was stopped and continued (signal(7)).
            Err(error) if error.kind() == ErrorKind::Interrupted => self.fill(end),
            Err(error) => Err(NoAnswer::Incomplete {
                why: error.to_string(),
                got: got(&self.buffer),
            }),
        }
    }
}

const TIME_IS_UP: &str = "time is up";

/// The bytes of a request without a body.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: visitas.example\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text + "\r\n"
}

/// Strict: a lenient client would hide a server's mistakes.
fn parse_head(head: &[u8]) -> Result<Response, String> {
    let text = std::str::from_utf8(head).map_err(|error| error.to_string())?;
    let mut lines = text.strip_suffix("\r\n\r\n").unwrap_or(text).split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let mut parts = status_line.splitn(3, ' ');
    let (version, status, reason) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let status = status
        .filter(|status| status.len() == 3)
        .and_then(|status| status.parse().ok());
    let (true, Some(status), Some(_)) =
        (matches!(version, "HTTP/1.1" | "HTTP/1.0"), status, reason)
    else {
        return Err(format!("status line {status_line:?}"));
    };
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| format!("header line {line:?}"))?;
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(token) || value.contains(['\r', '\n', '\0']) {
            return Err(format!("header line {line:?}"));
        }
        headers.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
    }
    Ok(Response {
        version: version.to_owned(),
        status,
        headers,
        body: Vec::new(),
    })
}
