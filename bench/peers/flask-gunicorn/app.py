"""The exercise's app with what its users do next: gunicorn, and connections kept in a pool of the worker."""

import os
from contextlib import contextmanager

import psycopg2.pool
import redis
from flask import Flask, jsonify, render_template_string, request

THREADS = int(os.environ.get("THREADS", "8"))

app = Flask(__name__)
cache = redis.Redis(host=os.environ["REDIS_HOST"], port=int(os.environ.get("REDIS_PORT", "6379")))
pool = psycopg2.pool.ThreadedConnectionPool(
    THREADS,
    THREADS,
    host=os.environ["DB_HOST"],
    port=os.environ.get("DB_PORT", "5432"),
    user=os.environ["DB_USER"],
    password=os.environ["DB_PASSWORD"],
    dbname=os.environ["DB_NAME"],
)

PAGE = """<!doctype html>
<html lang="pt-BR">
<head><meta charset="utf-8"><title>Contador de visitas</title></head>
<body>
<h1>Contador de visitas</h1>
<p>Total de acessos (PostgreSQL): <strong>{{ total }}</strong></p>
<p>Contador em cache (Redis): <strong>{{ cache }}</strong></p>
</body>
</html>
"""


@contextmanager
def pooled():
    connection = pool.getconn()
    try:
        connection.autocommit = True
        yield connection
    finally:
        pool.putconn(connection, close=bool(connection.closed))


@app.get("/")
def visit():
    with pooled() as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO acessos DEFAULT VALUES")
        cursor.execute("SELECT count(*) FROM acessos")
        total = cursor.fetchone()[0]
    cached = cache.incr("contador_cache")
    if request.accept_mimetypes.best == "application/json":
        return jsonify(total=total, cache=cached)
    return render_template_string(PAGE, total=total, cache=cached)


@app.get("/readyz")
def ready():
    return "ok\n", {"Content-Type": "text/plain"}


with pooled() as connection, connection.cursor() as cursor:
    cursor.execute("SELECT pg_advisory_lock(1)")  # Workers that create the same table at once collide.
    cursor.execute(
        "CREATE TABLE IF NOT EXISTS acessos (id SERIAL PRIMARY KEY, momento TIMESTAMPTZ NOT NULL DEFAULT now())"
    )
    cursor.execute("SELECT pg_advisory_unlock(1)")
