//! The rules of RFC 9112 and RFC 9110 for a server. Every request is sent in one piece, cut at
//! every byte, and several in one packet. docs/http.md has the table.

use crate::support::client::{ANSWER_LIMIT, request};
use crate::support::{Client, Settings, Visitas};

macro_rules! get {
    ($fields:literal) => {
        concat!("GET /livez HTTP/1.1\r\nHost: x\r\n", $fields, "\r\n")
    };
}

macro_rules! chunks {
    ($body:literal) => {
        concat!(
            "GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            $body
        )
    };
}

mod body;
mod connection;
mod head;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Kept,
    Closed,
}
use After::{Closed, Kept};

/// Reads answers with these statuses, and then the end of the connection or the answer to one more
/// request.
#[track_caller]
fn expect(client: &mut Client, shown: &str, statuses: &[u16], after: After) {
    for (index, status) in statuses.iter().enumerate() {
        let response = client
            .try_read(false)
            .unwrap_or_else(|why| panic!("{shown}: answer {index}: {why:?}"));
        assert_eq!(
            response.status, *status,
            "{shown}: answer {index}: {response:?}"
        );
        let last = index + 1 == statuses.len();
        let closes = response.header("Connection") == Some("close");
        assert_eq!(
            closes,
            last && after == Closed,
            "{shown}: answer {index}: {response:?}"
        );
        assert!(
            response.status == 100 || response.header("Date").is_some(),
            "{shown}: {response:?}"
        );
    }
    match after {
        Closed => assert_eq!(
            client.closed_within(ANSWER_LIMIT),
            b"",
            "{shown}: one answer too many"
        ),
        Kept => {
            client.send(request("GET", "/robots.txt", &[]));
            assert!(
                client.read().text().starts_with("User-agent"),
                "{shown}: the next answer"
            );
        }
    }
}

/// A server under test.
struct Rules(Visitas);

/// The answer to a request.
struct Expected<'a> {
    visitas: &'a Visitas,
    status: u16,
    after: After,
}

impl Rules {
    fn start() -> Rules {
        Rules(Settings::new().start())
    }

    /// This status, on a connection that stays open.
    fn kept(&self, status: u16) -> Expected<'_> {
        Expected {
            visitas: &self.0,
            status,
            after: Kept,
        }
    }

    /// This status, and then the connection is closed.
    fn closed(&self, status: u16) -> Expected<'_> {
        Expected {
            after: Closed,
            ..self.kept(status)
        }
    }
}

impl Expected<'_> {
    /// Sends each of these in one piece, and in two pieces cut at every byte.
    #[track_caller]
    fn all(&self, all: &[&str]) {
        for sent in all {
            let mut client = self.visitas.connect();
            client.send(sent);
            self.check(&mut client, format!("{sent:?}"));
            let connect = |cut| (cut, self.visitas.connect());
            let mut cuts: Vec<(usize, Client)> = (1..sent.len()).map(connect).collect();
            // A refused connection may be closed before everything is sent.
            for (cut, client) in &mut cuts {
                let _ = client.try_send(&sent.as_bytes()[..*cut]);
            }
            settle(self.visitas);
            for (cut, client) in &mut cuts {
                let _ = client.try_send(&sent.as_bytes()[*cut..]);
            }
            for (cut, client) in &mut cuts {
                self.check(client, format!("{sent:?} cut at {cut}"));
            }
        }
    }

    #[track_caller]
    fn check(&self, client: &mut Client, sent: String) {
        expect(client, &sent, &[self.status], self.after);
    }
}

/// Waits until both workers have read what was sent before.
fn settle(visitas: &Visitas) {
    (0..4).for_each(|_| assert_eq!(visitas.get("/livez").status, 200));
}
