//! `BASE_PATH`: everything is below one path, for a place behind a proxy. Probes stay at the root.

use crate::support::html::Page;
use crate::support::{Client, Settings, Visitas};

const BASE: &str = "/my/visits";

fn start() -> Visitas {
    Settings::new().set("BASE_PATH", BASE).start()
}

const PARTS: [&str; 12] = [
    "/",
    "/visit.svg",
    "/stats",
    "/history",
    "/events",
    "/badge.svg",
    "/badge.json",
    "/style.css",
    "/live.js",
    "/favicon.ico",
    "/favicon.svg",
    "/robots.txt",
];

#[test]
fn every_route_is_below_it_and_nowhere_else() {
    let visitas = start();
    for part in PARTS {
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

#[test]
fn the_page_links_only_below_it() {
    let visitas = start();
    let page = Page::read(&visitas.get(BASE).text());
    let mut links = 0;
    for element in &page.elements {
        let addresses = element.attributes.iter();
        for (_, address) in addresses.filter(|(name, _)| name == "href" || name == "src") {
            if address.starts_with('#') {
                continue;
            }
            assert!(address.starts_with(&format!("{BASE}/")), "{element:?}");
            assert_eq!(visitas.get(address).status, 200, "{element:?}");
            links += 1;
        }
    }
    assert!(links >= 4, "{links} links");
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
    let ops = crate::support::ports::free_port();
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
