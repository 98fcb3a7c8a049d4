//! What a client sends reaches pages, headers and log lines only as text.

use crate::support::client::ANSWER_LIMIT;
use crate::support::{LIMIT, Settings, within};

/// Part of every request below, wherever a client can put it.
const CANARY: &str = "kanarienvogel";

/// Requests that try to end a line, a string, an element or a header in the output about them.
fn attempts() -> Vec<String> {
    let hostile = [
        "<script>CANARY</script>",
        "\"><i>CANARY",
        "CANARY\",\"level\":\"FORGED",
        "%0d%0aForged:%20CANARY",
        "CANARY\\n\\u001b[31m",
        "{{CANARY}}${CANARY}",
        "CANARY\u{85}\u{2028}FORGED",
        "CANARY\u{1b}]0;FORGED\u{7}",
        "CANARY\r\nFORGED: x",
        "CANARY\nFORGED",
        "CANARY\0FORGED",
    ];
    let places = [
        "GET /HERE HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /?HERE HTTP/1.1\r\nHost: x\r\nPurpose: prefetch\r\n\r\n",
        "GET /readyz?verbose=HERE HTTP/1.1\r\nHost: x\r\n\r\n",
        "HEAD / HTTP/1.1\r\nHost: HERE\r\nX-Forwarded-For: HERE\r\nX-Forwarded-Host: HERE\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nAccept-Language: HERE\r\nAccept: HERE\r\n\
         User-Agent: HERE\r\nReferer: HERE\r\n\r\n",
        "GET /stats HTTP/1.1\r\nHost: x\r\nCookie: HERE\r\nConnection: HERE\r\n\
         Expect: HERE\r\nRange: HERE\r\n\r\n",
        "HERE / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HERE\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHERE: x\r\nHost: x\r\n\r\n",
        "POST /metrics HTTP/1.1\r\nHost: x\r\n\
         Transfer-Encoding: HERE\r\nContent-Length: HERE\r\n\r\n",
        "GET /history?format=html&by=minute&HERE HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /visit.svg?style=HERE&locale=HERE&color=HERE HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /visit HTTP/1.1\r\nHost: x\r\nOrigin: HERE\r\nContent-Type: HERE\r\n\r\n",
        "OPTIONS /visit HTTP/1.1\r\nHost: x\r\nOrigin: HERE\r\n\
         Access-Control-Request-Method: HERE\r\nAccess-Control-Request-Headers: HERE\r\n\r\n",
        "GET http://HERE/ HTTP/1.1\r\nHost: HERE\r\n\r\n",
    ];
    let filled = |place: &str, text: &str| place.replace("HERE", text).replace("CANARY", CANARY);
    places
        .iter()
        .flat_map(|place| hostile.iter().map(move |text| filled(place, text)))
        .collect()
}

#[test]
fn nothing_a_client_sends_is_in_an_answer() {
    let visitas = Settings::new().start();
    for attempt in attempts() {
        let mut client = visitas.connect();
        client.send(&attempt);
        client.half_close();
        let raw = String::from_utf8(client.closed_within(ANSWER_LIMIT)).expect("answers of UTF-8");
        assert!(raw.starts_with("HTTP/1.1 "), "{attempt:?}: {raw:?}");
        for word in [CANARY, "FORGED", "Forged", "<i>", "<script>"] {
            assert!(!raw.contains(word), "{attempt:?}: {raw:?}");
        }
    }
}

#[test]
fn nothing_a_client_sends_makes_a_log_line() {
    for format in ["text", "json"] {
        let visitas = Settings::new()
            .set("ACCESS_LOG", "on")
            .set("LOG_FORMAT", format)
            .start();
        let mark = visitas.stderr().mark();
        for attempt in attempts() {
            let mut client = visitas.connect();
            client.send(&attempt);
            client.half_close();
            client.closed_within(ANSWER_LIMIT);
        }
        visitas.get("/the-last-one");
        let is_last = |line: &String| line.contains("/the-last-one");
        within(LIMIT, "the last line", || {
            visitas.stderr().since(mark).iter().any(is_last)
        });
        let lines = visitas.stderr().since(mark);
        assert!(
            lines.iter().filter(|line| line.contains(CANARY)).count() > 10,
            "targets are logged: {lines:#?}"
        );
        for line in lines {
            assert!(!line.chars().any(char::is_control), "{line:?}");
            if format == "json" {
                let json: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                assert_eq!(
                    (&json["level"], &json["message"]),
                    (&"INFO".into(), &"access".into()),
                    "{line}"
                );
                assert!(
                    json["target"].is_string() && json["status"].is_u64(),
                    "{line}"
                );
            } else {
                let (line, agent) = line.rsplit_once(" \"").unwrap_or_else(|| panic!("{line}"));
                assert!(agent.ends_with('"'), "{line}");
                let words: Vec<&str> = line.split(' ').collect();
                let [_, "ACCESS", "127.0.0.1", _, target, status, _, took, _] = words[..] else {
                    panic!("{line}")
                };
                let refused = status.starts_with(['4', '5']);
                assert!(refused || target.starts_with(['/', 'h', '*']), "{line}");
                assert!(
                    status.parse::<u16>().is_ok() && took.ends_with("ms"),
                    "{line}"
                );
            }
        }
    }
}
