//! Behind real proxies with persistent upstream connections no answer is lost, and none goes to
//! another request. Slow: `scripts/test-clients` installs the proxies and runs this.

use std::process::Command;

use crate::support::client::request;
use crate::support::load::visits_at_once;
use crate::support::ports::free_port;
use crate::support::process::Process;
use crate::support::scratch::Folder;
use crate::support::tools::tool;
use crate::support::{Client, LIMIT, Settings, Visitas, within};

/// A proxy in front of visitas.
struct Behind {
    visitas: Visitas,
    port: u16,
    _process: Process,
    _folder: Folder,
}

/// nginx with persistent upstream connections, HTTP/1.1, and unbuffered bodies.
const NGINX: &str = "
daemon off; pid FOLDER/pid; error_log stderr warn; worker_processes 1;
events { worker_connections 1024; }
http {
    access_log off; client_body_temp_path FOLDER/body; proxy_temp_path FOLDER/proxy;
    fastcgi_temp_path FOLDER/f; uwsgi_temp_path FOLDER/u; scgi_temp_path FOLDER/s;
    keepalive_requests 1000000;
    upstream visitas { server 127.0.0.1:UPSTREAM; keepalive 32; }
    server {
        listen 127.0.0.1:LISTEN;
        location / {
            proxy_pass http://visitas; proxy_http_version 1.1; proxy_request_buffering off;
            proxy_set_header Connection \"\"; proxy_set_header Host $host;
        }
    }
}
";

/// HAProxy where every upstream connection serves any client.
const HAPROXY: &str = "
global
    maxconn 1000
defaults
    mode http
    option http-keep-alive
    http-reuse always
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen visitas
    bind 127.0.0.1:LISTEN
    server one 127.0.0.1:UPSTREAM
";

#[track_caller]
fn behind(program: &str, configuration: &str, arguments: &[&str]) -> Option<Behind> {
    let program_path = tool(program)?;
    let visitas = Settings::new().start();
    let (folder, port) = (Folder::new(program), free_port());
    let text = configuration
        .replace("FOLDER", &folder.path().display().to_string())
        .replace("UPSTREAM", &visitas.port().to_string())
        .replace("LISTEN", &port.to_string());
    let file = folder.file("configuration", &text);
    let process = Process::start(
        program,
        Command::new(program_path).args(arguments).arg(file),
        "TERM",
    );
    within(LIMIT, program, || Client::try_connect(port).is_ok());
    Some(Behind {
        visitas,
        port,
        _process: process,
        _folder: folder,
    })
}

/// 50,000 visits over 50 connections, then requests of every kind with their different answers.
fn nothing_is_lost_or_mixed(behind: Option<Behind>) {
    let Some(behind) = behind else { return };
    let outcomes = visits_at_once(&[behind.port], 50, 1000);
    outcomes.all_ok(50_000);
    outcomes.each_cache_number_once(1);
    assert_eq!(behind.visitas.stats().total, 50_000);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| (0..50).for_each(|_| mixed(&behind)));
        }
    });
    assert_eq!(behind.visitas.stats().total, 50_000 + 20 * 50);
}

fn mixed(behind: &Behind) {
    let mut client = Client::connect(behind.port);
    let smuggled = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{smuggled}",
        smuggled.len()
    ));
    assert_eq!(client.read().status, 405);
    assert_eq!(client.get("/livez").text(), "ok\n");
    let chunk = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len());
    client.send(format!(
        "PUT /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"
    ));
    assert_eq!(client.read().status, 404);
    assert_eq!(client.request("HEAD", "/", &[]).status, 200);
    client.send(
        request("GET", "/", &[("Accept", "application/json")])
            + &request("GET", "/robots.txt", &[]),
    );
    client.read().counts();
    assert!(client.read().text().starts_with("User-agent"));
}

#[test]
#[ignore = "slow: scripts/test-clients runs it"]
fn behind_nginx_nothing_is_lost_or_mixed() {
    nothing_is_lost_or_mixed(behind("nginx", NGINX, &["-e", "stderr", "-c"]));
}

#[test]
#[ignore = "slow: scripts/test-clients runs it"]
fn behind_haproxy_nothing_is_lost_or_mixed() {
    nothing_is_lost_or_mixed(behind("haproxy", HAPROXY, &["-db", "-f"]));
}
