//! The counter in axum by somebody who knows group commit: one task commits all visits that queued
//! during the last commit. It has no fence, no deadlines, and no care for outages.

use std::env;
use std::sync::LazyLock;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::{Client, Config, NoTls};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Waiter = oneshot::Sender<(i64, i64)>;
type Queue = mpsc::UnboundedSender<Waiter>;

const MAX_BATCH: usize = 4096;
const COMMIT: &str = "
    WITH visits AS (INSERT INTO acessos (momento) SELECT now() FROM generate_series(1, $1))
    UPDATE total SET visits = visits + $1 RETURNING visits";
/// The total is one row, which no visit waits for: there is one committer.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS acessos
        (id bigint GENERATED ALWAYS AS IDENTITY (CACHE 256) PRIMARY KEY,
         momento timestamptz NOT NULL DEFAULT now());
    CREATE TABLE IF NOT EXISTS total (visits bigint NOT NULL) WITH (fillfactor = 10);
    CREATE OR REPLACE FUNCTION emptied() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN UPDATE total SET visits = 0; RETURN NULL; END';
    CREATE OR REPLACE TRIGGER emptied AFTER TRUNCATE ON acessos EXECUTE FUNCTION emptied();
    DELETE FROM total;
    INSERT INTO total SELECT count(*) FROM acessos";

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
    [
        start,
        middle,
        &end.replace("<!--", &format!("<!--{}", "-".repeat(rest))),
    ]
    .map(str::to_owned)
});

/// One thread: here two, or two runtimes, cost more in wake-ups than they gain.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let (queue, queued) = mpsc::unbounded_channel();
    tokio::spawn(commit_batches(queued, database().await?, cache().await?));
    let routes = Router::new()
        .route("/readyz", get(|| async { "ok\n" }))
        .route("/", get(visit));
    let service = TowerToHyperService::new(routes.with_state(queue));
    let address = format!(
        "{}:{}",
        setting("HOST", "127.0.0.1"),
        setting("PORT", "5000")
    );
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let mut http = http1::Builder::new();
        tokio::spawn(
            http.pipeline_flush(true)
                .serve_connection(TokioIo::new(stream), service.clone()),
        );
    }
}

fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

async fn database() -> Result<Client, Error> {
    let mut config = Config::new();
    config
        .host(env::var("DB_HOST")?)
        .port(setting("DB_PORT", "5432").parse()?);
    config
        .user(env::var("DB_USER")?)
        .password(env::var("DB_PASSWORD")?);
    let (client, connection) = config.dbname(env::var("DB_NAME")?).connect(NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute(TABLES).await?;
    Ok(client)
}

async fn cache() -> Result<MultiplexedConnection, Error> {
    let address = format!(
        "redis://{}:{}",
        env::var("REDIS_HOST")?,
        setting("REDIS_PORT", "6379")
    );
    Ok(redis::Client::open(address)?
        .get_multiplexed_async_connection()
        .await?)
}

/// A batch is counted in Redis while the next one is committed. Who is dropped gets a 503.
async fn commit_batches(
    mut queued: mpsc::UnboundedReceiver<Waiter>,
    database: Client,
    cache: MultiplexedConnection,
) {
    let commit = database
        .prepare(COMMIT)
        .await
        .expect("the statement is valid");
    loop {
        let mut batch = Vec::with_capacity(256);
        queued.recv_many(&mut batch, MAX_BATCH).await;
        match database.query_one(&commit, &[&(batch.len() as i32)]).await {
            Ok(row) => drop(tokio::spawn(answer(batch, row.get(0), cache.clone()))),
            Err(error) => eprintln!("{error}"),
        }
    }
}

async fn answer(batch: Vec<Waiter>, total: i64, mut cache: MultiplexedConnection) {
    let visits = batch.len() as i64;
    match cache.incr::<_, _, i64>("contador_cache", visits).await {
        Ok(counted) => {
            for (waiter, left) in batch.into_iter().zip((0..visits).rev()) {
                // A visitor who left concerns nobody.
                let _ = waiter.send((total - left, counted - left));
            }
        }
        Err(error) => eprintln!("{error}"),
    }
}

async fn visit(State(queue): State<Queue>, request: Request) -> Response {
    let (waiter, counted) = oneshot::channel();
    let queued = queue.send(waiter);
    let (Ok(()), Ok((total, cache))) = (queued, counted.await) else {
        return (StatusCode::SERVICE_UNAVAILABLE, "a store is down\n").into_response();
    };
    if request
        .headers()
        .get(header::ACCEPT)
        .is_some_and(|accept| accept == "application/json")
    {
        let json = format!("{{\"total\":{total},\"cache\":{cache}}}");
        return ([(header::CONTENT_TYPE, "application/json")], json).into_response();
    }
    let [start, middle, end] = &*PAGE;
    let (mut total_digits, mut cache_digits) = (itoa::Buffer::new(), itoa::Buffer::new());
    let (total, cache) = (total_digits.format(total), cache_digits.format(cache));
    Html([start, total, middle, cache, end].concat()).into_response()
}
