"""The counter in FastAPI: asyncpg's pool, redis-py's asyncio client."""

import os
from contextlib import asynccontextmanager

import asyncpg
import redis.asyncio
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse

PAGE = """<!doctype html>
<html lang="pt-BR">
<head><meta charset="utf-8"><title>Contador de visitas</title></head>
<body>
<h1>Contador de visitas</h1>
<p>Total de acessos (PostgreSQL): <strong>{total}</strong></p>
<p>Contador em cache (Redis): <strong>{cache}</strong></p>
</body>
</html>
"""


@asynccontextmanager
async def lifespan(app: FastAPI):
    size = int(os.environ.get("POOL", "5"))
    app.state.cache = redis.asyncio.Redis(host=os.environ["REDIS_HOST"], port=int(os.environ.get("REDIS_PORT", "6379")))
    async with asyncpg.create_pool(
        host=os.environ["DB_HOST"],
        port=int(os.environ.get("DB_PORT", "5432")),
        user=os.environ["DB_USER"],
        password=os.environ["DB_PASSWORD"],
        database=os.environ["DB_NAME"],
        min_size=size,
        max_size=size,
    ) as app.state.pool:
        async with app.state.pool.acquire() as connection, connection.transaction():
            # Workers that create the same table at once collide.
            await connection.execute("SELECT pg_advisory_xact_lock(1)")
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS acessos (id SERIAL PRIMARY KEY, momento TIMESTAMPTZ NOT NULL DEFAULT now())"
            )
        yield
    await app.state.cache.aclose()


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def visit(request: Request):
    async with app.state.pool.acquire() as connection:
        await connection.execute("INSERT INTO acessos DEFAULT VALUES")
        total = await connection.fetchval("SELECT count(*) FROM acessos")
    cached = await app.state.cache.incr("contador_cache")
    if request.headers.get("accept") == "application/json":
        return JSONResponse({"total": total, "cache": cached})
    return HTMLResponse(PAGE.format(total=total, cache=cached))


@app.get("/readyz")
async def ready():
    return PlainTextResponse("ok\n")
