//! The counter in axum: deadpool-postgres, redis' multiplexed connection manager.

use std::env;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::{Router, routing::get};
use deadpool_postgres::{Config, ManagerConfig, Pool, PoolConfig, RecyclingMethod, Runtime};
use redis::AsyncCommands;
use redis::aio::ConnectionManager;
use tokio_postgres::NoTls;

type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone)]
struct Stores {
    pool: Pool,
    cache: ConnectionManager,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let stores = connect().await?;
    let app = Router::new()
        .route("/", get(visit))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ok\n" }))
        .with_state(stores);
    let address = format!("{}:{}", setting("HOST", "127.0.0.1"), setting("PORT", "5000"));
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, app).await?;
    Ok(())
}

fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

async fn connect() -> Result<Stores, Error> {
    let mut config = Config::new();
    config.host = Some(env::var("DB_HOST")?);
    config.port = Some(setting("DB_PORT", "5432").parse()?);
    config.user = Some(env::var("DB_USER")?);
    config.password = Some(env::var("DB_PASSWORD")?);
    config.dbname = Some(env::var("DB_NAME")?);
    config.manager = Some(ManagerConfig { recycling_method: RecyclingMethod::Fast });
    config.pool = Some(PoolConfig::new(setting("POOL", "32").parse()?));
    let pool = config.create_pool(Some(Runtime::Tokio1), NoTls)?;
    pool.get()
        .await?
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS acessos
             (id SERIAL PRIMARY KEY, momento TIMESTAMPTZ NOT NULL DEFAULT now())",
        )
        .await?;
    let redis_url = format!("redis://{}:{}", env::var("REDIS_HOST")?, setting("REDIS_PORT", "6379"));
    let cache = redis::Client::open(redis_url)?.get_connection_manager().await?;
    Ok(Stores { pool, cache })
}

async fn visit(State(stores): State<Stores>, headers: HeaderMap) -> Response {
    match count(stores).await {
        Ok((total, cache)) if headers.get(header::ACCEPT).is_some_and(|a| a == "application/json") => {
            Json(serde_json::json!({ "total": total, "cache": cache })).into_response()
        }
        Ok((total, cache)) => Html(page(total, cache)).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

async fn count(mut stores: Stores) -> Result<(i64, i64), Error> {
    let total = {
        let client = stores.pool.get().await?;
        let insert = client.prepare_cached("INSERT INTO acessos DEFAULT VALUES").await?;
        client.execute(&insert, &[]).await?;
        let select = client.prepare_cached("SELECT count(*) FROM acessos").await?;
        client.query_one(&select, &[]).await?.get(0)
    };
    let cache = stores.cache.incr("contador_cache", 1).await?;
    Ok((total, cache))
}

fn page(total: i64, cache: i64) -> String {
    format!(
        "<!doctype html>\n<html lang=\"pt-BR\">\n<head><meta charset=\"utf-8\">\
         <title>Contador de visitas</title></head>\n<body>\n<h1>Contador de visitas</h1>\n\
         <p>Total de acessos (PostgreSQL): <strong>{total}</strong></p>\n\
         <p>Contador em cache (Redis): <strong>{cache}</strong></p>\n</body>\n</html>\n"
    )
}
