//! The counter as TechEmpower's entries with may_minihttp are: a prepared statement per request,
//! pipelined on few connections. Each is its own transaction, so only commits of different
//! connections share a flush. It has no care for outages.

mod pipeline;
mod stores;

use std::sync::LazyLock;
use std::{env, io};

use may::sync::mpsc;
use may_minihttp::{HttpService, HttpServiceFactory, Request, Response};

use pipeline::Client;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The page around its two numbers, filled up to PAGE_BYTES.
static PAGE: LazyLock<[String; 3]> = LazyLock::new(|| {
    let start = "<!doctype html>\n<html lang=\"pt-BR\">\n<head><meta charset=\"utf-8\">\
        <title>Contador de visitas</title></head>\n<body>\n<h1>Contador de visitas</h1>\n\
        <p>Total de acessos (PostgreSQL): <strong>";
    let middle = "</strong></p>\n<p>Contador em cache (Redis): <strong>";
    let end = "</strong></p>\n</body>\n</html>\n<!---->\n";
    let bytes: usize = setting("PAGE_BYTES", "0")
        .parse()
        .expect("PAGE_BYTES is a number");
    let rest = bytes.saturating_sub(start.len() + middle.len() + end.len());
    let end = end.replace("<!--", &format!("<!--{}", "-".repeat(rest)));
    [start.to_owned(), middle.to_owned(), end]
});

/// Connections of visitors share those of PostgreSQL.
struct Counter {
    postgres: Vec<Client>,
    redis: Client,
}

/// The counter for one connection, which has one request at a time.
struct Visitor {
    postgres: Client,
    redis: Client,
    answered: mpsc::Sender<i64>,
    answers: mpsc::Receiver<i64>,
}

impl HttpServiceFactory for Counter {
    type Service = Visitor;

    fn new_service(&self, id: usize) -> Visitor {
        let (answered, answers) = mpsc::channel();
        let postgres = self.postgres[id % self.postgres.len()].clone();
        Visitor {
            postgres,
            redis: self.redis.clone(),
            answered,
            answers,
        }
    }
}

impl HttpService for Visitor {
    fn call(&mut self, request: Request, response: &mut Response) -> io::Result<()> {
        if request.path() != "/" {
            response.body("ok\n");
            return Ok(());
        }
        let total = self.ask(&self.postgres)?.to_string();
        let cache = self.ask(&self.redis)?.to_string();
        let json = request.headers().iter().any(|header| {
            header.name.eq_ignore_ascii_case("Accept") && header.value == b"application/json"
        });
        if json {
            response.header("Content-Type: application/json");
            response.body_vec(format!("{{\"total\":{total},\"cache\":{cache}}}").into_bytes());
            return Ok(());
        }
        response.header("Content-Type: text/html; charset=utf-8");
        let [start, middle, end] = &*PAGE;
        for part in [start, &total, middle, &cache, end] {
            response.body_mut().extend_from_slice(part.as_bytes());
        }
        Ok(())
    }
}

impl Visitor {
    fn ask(&self, store: &Client) -> io::Result<i64> {
        store.ask(self.answered.clone());
        self.answers.recv().map_err(io::Error::other)
    }
}

fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn main() -> io::Result<()> {
    let connections = setting("POOL", "16").parse().map_err(io::Error::other)?;
    let counter = Counter {
        postgres: stores::postgres(connections)?,
        redis: stores::redis()?,
    };
    let address = format!(
        "{}:{}",
        setting("HOST", "127.0.0.1"),
        setting("PORT", "5000")
    );
    let server = counter.start(address)?;
    server
        .join()
        .map_err(|_| io::Error::other("a coroutine panicked"))
}
