"""The exercise as its text asks for it: every visit opens a connection, inserts, commits, counts and closes."""

import os
from contextlib import closing

import psycopg2
import redis
from flask import Flask, jsonify, render_template_string, request

app = Flask(__name__)
cache = redis.Redis(host=os.environ["REDIS_HOST"], port=int(os.environ.get("REDIS_PORT", "6379")))

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


def connect():
    return psycopg2.connect(
        host=os.environ["DB_HOST"],
        port=os.environ.get("DB_PORT", "5432"),
        user=os.environ["DB_USER"],
        password=os.environ["DB_PASSWORD"],
        dbname=os.environ["DB_NAME"],
    )


def create_table():
    with closing(connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE IF NOT EXISTS acessos (id SERIAL PRIMARY KEY, momento TIMESTAMPTZ NOT NULL DEFAULT now())"
        )


@app.get("/")
def visit():
    with closing(connect()) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO acessos DEFAULT VALUES")
        connection.commit()
        cursor.execute("SELECT count(*) FROM acessos")
        total = cursor.fetchone()[0]
    cached = cache.incr("contador_cache")
    if request.accept_mimetypes.best == "application/json":
        return jsonify(total=total, cache=cached)
    return render_template_string(PAGE, total=total, cache=cached)


@app.get("/readyz")
def ready():
    return "ok\n", {"Content-Type": "text/plain"}


create_table()

if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "5000")))
