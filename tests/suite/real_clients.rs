//! Real clients, whose visits are counted exactly. Slow: `scripts/test-clients` installs the
//! clients and runs this.

use std::process::Command;

use crate::support::tools::{output, tool};
use crate::support::{LIMIT, Settings, Visitas, within};

/// The number of counted visits.
fn counted(visitas: &Visitas) -> u64 {
    visitas.stats().total
}

fn url(visitas: &Visitas, path: &str) -> String {
    format!("http://127.0.0.1:{}{path}", visitas.port())
}

#[test]
#[ignore = "slow: scripts/test-clients runs it"]
fn curl_in_every_manner() {
    let Some(curl) = tool("curl") else { return };
    let visitas = Settings::new().start();
    let page = url(&visitas, "/?[1-20]");
    let run = |arguments: &[&str]| {
        output(
            Command::new(&curl)
                .args(["--silent", "--show-error", "--max-time", "20"])
                .args(arguments),
        )
    };
    for manner in [
        &["--http1.1"][..],
        &["--http1.0"],
        &["--no-keepalive"],
        &["--tcp-nodelay", "--compressed"],
    ] {
        let before = counted(&visitas);
        let pages = run(&[manner, &["--fail", &page]].concat());
        assert_eq!(pages.matches("</html>").count(), 20, "{manner:?}");
        assert_eq!(counted(&visitas) - before, 20, "{manner:?}");
    }
    let before = counted(&visitas);
    assert!(run(&["--head", &url(&visitas, "/")]).starts_with("HTTP/1.1 200 "));
    let status = ["--output", "/dev/null", "--write-out", "%{http_code} "];
    let post = |more: &[&str]| run(&[&status, more, &[&url(&visitas, "/")]].concat());
    let body = "x".repeat(5000);
    assert_eq!(post(&["--data", &body]), "405 ");
    assert_eq!(
        post(&["--data", &body, "--header", "Expect: 100-continue"]),
        "405 "
    );
    assert_eq!(
        post(&["--data", &body, "--header", "Transfer-Encoding: chunked"]),
        "405 "
    );
    assert_eq!(post(&["--data", &body.repeat(20)]), "413 ");
    assert_eq!(
        post(&["--request", "OPTIONS", "--request-target", "*"]),
        "200 "
    );
    // It is not a proxy, but it understands a request to one.
    let proxied = [
        "--proxy",
        &url(&visitas, ""),
        "http://visitas.example/livez",
    ];
    assert_eq!(run(&proxied), "ok\n");
    assert_eq!(counted(&visitas) - before, 0, "none of these is a visit");
}

#[test]
#[ignore = "slow: scripts/test-clients runs it"]
fn a_browser_is_one_visit() {
    let Some(chromium) = tool("chromium") else {
        return;
    };
    let visitas = Settings::new().start();
    for visit in 1..=3 {
        let dump = output(Command::new(&chromium).args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            &format!(
                "--user-data-dir={}",
                visitas.folder().join("browser").display()
            ),
            "--dump-dom",
            &url(&visitas, "/"),
        ]));
        assert!(
            dump.contains("</html>") && dump.contains(&format!(">{visit}<")),
            "{dump}"
        );
        assert_eq!(counted(&visitas), visit);
    }
}

/// The number after `label` in a program's output.
#[track_caller]
fn figure(report: &str, label: &str) -> u64 {
    let line = report
        .lines()
        .find(|line| line.trim_start().starts_with(label));
    let line = line.unwrap_or_else(|| panic!("no {label:?} in {report}"));
    let number = line
        .split_whitespace()
        .find_map(|word| word.parse::<f64>().ok());
    number.unwrap_or_else(|| panic!("no number in {line:?}")) as u64
}

#[test]
#[ignore = "slow: scripts/test-clients runs it"]
fn ab_with_and_without_keep_alive() {
    let Some(ab) = tool("ab") else { return };
    for keep in [&[][..], &["-k"]] {
        let visitas = Settings::new().start();
        let report = output(
            Command::new(&ab)
                .args(["-q", "-n", "5000", "-c", "50", "-l"])
                .args(keep)
                .arg(url(&visitas, "/")),
        );
        assert_eq!(figure(&report, "Complete requests:"), 5000, "{report}");
        assert_eq!(figure(&report, "Failed requests:"), 0, "{report}");
        assert!(!report.contains("Non-2xx"), "{report}");
        if !keep.is_empty() {
            assert_eq!(figure(&report, "Keep-Alive requests:"), 5000, "{report}");
        }
        assert_eq!(counted(&visitas), 5000, "{keep:?}");
    }
}

#[test]
#[ignore = "slow: scripts/test-clients runs it"]
fn wrk_gets_nothing_but_pages() {
    let Some(wrk) = tool("wrk") else { return };
    let visitas = Settings::new().start();
    let report = output(
        Command::new(&wrk)
            .args(["-t2", "-c50", "-d3s"])
            .arg(url(&visitas, "/")),
    );
    assert!(
        !report.contains("Non-2xx") && !report.contains("Socket errors"),
        "{report}"
    );
    let requests = report
        .lines()
        .find_map(|line| line.split_once(" requests in"))
        .expect("a count of requests")
        .0;
    let requests: u64 = requests.trim().parse().expect("a number");
    // wrk does not await the visits that are in flight at its end, but they are counted.
    within(LIMIT, "the last visits", || {
        crate::metrics::queued(&visitas) == 0.0
    });
    let counted = counted(&visitas);
    assert!(
        (requests..=requests + 50).contains(&counted),
        "{counted} for {requests}"
    );
}

#[test]
#[ignore = "slow: scripts/test-clients runs it"]
fn oha_gets_nothing_but_pages() {
    let Some(oha) = tool("oha") else { return };
    let visitas = Settings::new().start();
    for keep in [&[][..], &["--disable-keepalive"]] {
        let before = counted(&visitas);
        let arguments = [
            "-n",
            "5000",
            "-c",
            "50",
            "--no-tui",
            "--output-format",
            "json",
        ];
        let report = output(
            Command::new(&oha)
                .args(arguments)
                .args(keep)
                .arg(url(&visitas, "/")),
        );
        let report: serde_json::Value = serde_json::from_str(&report).expect("a report");
        assert_eq!(report["statusCodeDistribution"]["200"], 5000, "{report}");
        assert_eq!(counted(&visitas) - before, 5000);
    }
}

const PYTHON: &str = r#"
import http.client, sys
try:
    import requests
except ImportError:
    sys.exit("python3-requests is not installed")
port = int(sys.argv[1])
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
json = {"Accept": "application/json"}
def ask(status, *arguments, **named):
    connection.request(*arguments, **named)
    answer = connection.getresponse()
    assert answer.status == status, answer.status
    return answer.read()
for _ in range(100):
    ask(200, "GET", "/", headers=json)
    assert ask(200, "HEAD", "/") == b""
    ask(405, "POST", "/", body=b"x" * 3000)
    smuggled = iter([b"GET / HTTP/1.1\r\n", b"Host: x\r\n\r\n"])
    ask(405, "PUT", "/", body=smuggled, encode_chunked=True,
        headers={"Transfer-Encoding": "chunked"})
url = f"http://127.0.0.1:{port}/"
session = requests.Session()
for n in range(100):
    answer = session.get(url, headers=json, timeout=20)
    assert answer.status_code == 200 and answer.json()["total"] == 101 + n, answer.text
    assert session.post(url, data=iter([b"a", b"b"]), timeout=20).status_code == 405
"#;

#[test]
#[ignore = "slow: scripts/test-clients runs it"]
fn python_by_its_own_client_and_by_requests() {
    // Debian's Python, which has its packages.
    let python = "/usr/bin/python3";
    if tool("python3").is_none() {
        return;
    }
    let visitas = Settings::new().start();
    output(Command::new(python).args(["-c", PYTHON, &visitas.port().to_string()]));
    assert_eq!(counted(&visitas), 200);
}

const NODE: &str = r#"
const base = `http://127.0.0.1:${process.argv[1]}`;
const visit = async () => {
    const r = await fetch(base + "/", { headers: { accept: "application/json" } });
    if (r.status !== 200) throw new Error(r.status);
    return (await r.json()).cache;
};
const numbers = [];
for (let n = 0; n < 100; n++) numbers.push(await visit());
for (let n = 0; n < 5; n++) numbers.push(...await Promise.all(Array.from({ length: 100 }, visit)));
const distinct = new Set(numbers).size;
if (distinct !== 600 || Math.max(...numbers) !== 600) throw new Error("not 600 numbers");
const post = await fetch(base + "/", { method: "POST", body: new Blob(["x".repeat(3000)]) });
if (post.status !== 405) throw new Error(post.status);
const head = await fetch(base + "/", { method: "HEAD" });
if (head.status !== 200) throw new Error(head.status);
"#;

#[test]
#[ignore = "slow: scripts/test-clients runs it"]
fn node_by_fetch() {
    let Some(node) = tool("node") else { return };
    let visitas = Settings::new().start();
    output(Command::new(&node).args([
        "--input-type=module",
        "-e",
        NODE,
        &visitas.port().to_string(),
    ]));
    assert_eq!(counted(&visitas), 600);
}
