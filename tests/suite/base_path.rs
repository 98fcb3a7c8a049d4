//! `BASE_PATH`: everything is below one path, for a place behind a proxy. Probes stay at the root.

use std::process::Command;

use crate::support::html::Page;
use crate::support::ports::free_port;
use crate::support::process::Process;
use crate::support::scratch::Folder;
use crate::support::server::READ_ROUTES;
use crate::support::tools::tool;
use crate::support::{Client, LIMIT, Settings, Visitas, within};

const BASE: &str = "/my/visits";

fn start() -> Visitas {
    Settings::new().set("BASE_PATH", BASE).start()
}

#[test]
fn every_route_is_below_it_and_nowhere_else() {
    let visitas = start();
    for part in READ_ROUTES {
        let status = |path: &str| visitas.request("HEAD", path, &[]).status;
        assert_eq!(status(&format!("{BASE}{part}")), 200, "{part}");
        assert_eq!(status(part), 404, "{part} at the root");
        assert_eq!(status(&format!("{BASE}{BASE}{part}")), 404, "{part} twice");
        assert_eq!(status(&format!("{BASE}x{part}")), 404, "{part} beside it");
    }
    let post = |path: &str| visitas.request("POST", path, &[]).status;
    assert_eq!((post(&format!("{BASE}/visit")), post("/visit")), (204, 404));
    assert_eq!(visitas.get("/my").status, 404);
    for probe in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(visitas.get(probe).status, 200, "{probe}");
        assert_eq!(
            visitas.get(&format!("{BASE}{probe}")).status,
            200,
            "{probe}"
        );
    }
}

#[test]
fn the_path_itself_is_the_page_with_and_without_a_slash() {
    let visitas = start();
    let json = [("Accept", "application/json")];
    for (visit, path) in [
        (1, BASE.to_owned()),
        (2, format!("{BASE}/")),
        (3, format!("{BASE}?x")),
    ] {
        assert_eq!(
            visitas.request("GET", &path, &json).counts().total,
            visit,
            "{path}"
        );
    }
}

/// Every address in the pages is below the path, and leads somewhere on that port.
#[track_caller]
fn links_only_below(base: &str, port: u16) {
    page_links_only_below(base, base, port);
    page_links_only_below(base, &format!("{base}/history?format=html"), port);
}

#[track_caller]
fn page_links_only_below(base: &str, page: &str, port: u16) {
    let mut client = Client::connect(port);
    let page = Page::read(&client.get(page).text());
    let mut links = 0;
    for element in &page.elements {
        let addresses = element.attributes.iter();
        for (_, address) in addresses.filter(|(name, _)| name == "href" || name == "src") {
            if address.starts_with('#') {
                continue;
            }
            assert!(address.starts_with(&format!("{base}/")), "{element:?}");
            // A client sends no fragment.
            let address = address.split('#').next().expect("an address");
            let address = &address.replace("&amp;", "&");
            assert_eq!(client.get(address).status, 200, "{element:?}");
            links += 1;
        }
    }
    assert!(links >= 4, "{links} links");
}

#[test]
fn the_page_links_only_below_it() {
    links_only_below(BASE, start().port());
}

/// nginx as docs/embedding.md sets it up, beside a site of its own.
#[test]
fn behind_nginx_as_documented_it_is_a_part_of_the_site() {
    let Some(nginx) = tool("nginx") else { return };
    let visitas = Settings::new().set("BASE_PATH", "/visits").start();
    let document = include_str!("../../docs/embedding.md");
    let block = document
        .split("```nginx\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let location = block
        .expect("a block for nginx")
        .replace("127.0.0.1:5000", &format!("127.0.0.1:{}", visitas.port()));
    let (folder, port) = (Folder::new("nginx"), free_port());
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {}/{name};", folder.path().display()))
        .concat();
    let configuration = format!(
        "daemon off; pid {}/pid; error_log stderr warn; worker_processes 1;
        events {{ worker_connections 64; }}
        http {{ access_log off; {temporary}
            server {{ listen 127.0.0.1:{port}; location / {{ return 200 'the site'; }} {location} }}
        }}",
        folder.path().display()
    );
    let file = folder.file("configuration", &configuration);
    let mut command = Command::new(nginx);
    let command = command.args(["-e", "stderr", "-c"]).arg(file);
    let _process = Process::start("nginx", command, "TERM");
    within(LIMIT, "nginx", || Client::try_connect(port).is_ok());

    links_only_below("/visits", port);
    let mut client = Client::connect(port);
    assert_eq!(client.get("/stats").text(), "the site");
    assert_eq!(client.get("/visits/visit.svg").status, 200);
    let beacon = client.request("POST", "/visits/visit", &[("Content-Length", "0")]);
    assert_eq!(beacon.status, 204);
    let mut listener = Client::connect(port);
    listener.send("GET /visits/events HTTP/1.0\r\nHost: x\r\n\r\n");
    listener.wait_for("\"total\":3");
    client.get("/visits/");
    listener.wait_for("\"total\":4");
    assert_eq!(client.get("/visits/stats").fields().total, 4);
}

#[test]
fn its_page_is_live_below_it() {
    let visitas = start();
    let mut listener = visitas.connect();
    listener.send(format!("GET {BASE}/events HTTP/1.1\r\nHost: x\r\n\r\n"));
    listener.wait_for("\"total\":0");
    visitas.get(BASE);
    listener.wait_for("\"total\":1");
}

#[test]
fn the_port_for_operators_has_its_routes_at_the_root_and_below_it() {
    let ops = free_port();
    let visitas = Settings::new()
        .set("BASE_PATH", BASE)
        .set("OPS_PORT", ops)
        .start();
    for probe in ["/livez", "/readyz", "/metrics"] {
        let below = format!("{BASE}{probe}");
        let mut client = Client::connect(ops);
        assert_eq!(client.get(probe).status, 200, "{probe}");
        assert_eq!(client.get(&below).status, 200, "{below}");
        assert_eq!(visitas.get(probe).status, 404, "{probe} on PORT");
        assert_eq!(visitas.get(&below).status, 404, "{below} on PORT");
    }
    assert_eq!(Client::connect(ops).get(BASE).status, 404);
}

#[test]
fn the_ready_line_and_the_health_check_know_it() {
    let mut visitas = Settings::new().set("BASE_PATH", BASE).launch();
    let line = visitas.wait_ready();
    let address = format!("http://127.0.0.1:{}{BASE}: ", visitas.port());
    assert!(line.contains(&address), "{line}");
    let ended = Settings::new()
        .set("PORT", visitas.port())
        .set("BASE_PATH", BASE)
        .argument("healthcheck")
        .run();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}
