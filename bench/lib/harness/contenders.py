"""The contenders: what each is, how it starts, what it is made of."""

from dataclasses import dataclass, field
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent.parent
CHECKOUT = BENCH.parent


@dataclass
class Contender:
    """One server to measure."""

    name: str
    kind: str  # "visits": GET / is a visit; "front": a constant answer, no store
    note: str
    command: list[str]
    path: str = "/"
    ready: str = "/readyz"
    build: list[str] | None = None
    program: str = ""  # under the cache: the binary, or the Python environment
    strict: bool = False  # see account.py
    env: dict[str, str] = field(default_factory=dict)


def peer(name: str, kind: str, note: str, program: str) -> Contender:
    folder = BENCH / "peers" / name
    return Contender(
        name,
        kind,
        note,
        command=[str(folder / "run")],
        build=[str(folder / "build")],
        ready="/readyz" if kind == "visits" else "/",
        program=f"peers/{name}/{program}",
        env={"BUILT": "1"},
    )


def visitas(binary: Path, name: str = "visitas") -> Contender:
    return Contender(name, "visits", "this project", command=_as_script(binary), program=str(binary), strict=True)


def visitas_livez(binary: Path) -> Contender:
    return Contender(
        "visitas-livez",
        "front",
        "this project, GET /livez: its HTTP front alone",
        command=_as_script(binary),
        program=str(binary),
        path="/livez",
    )


def _as_script(binary: Path) -> list[str]:
    """The peers start by a bash script; so does this one, so that start times compare."""
    return ["bash", "-c", 'exec "$0"', str(binary)]


def everyone(binary: Path) -> list[Contender]:
    """All contenders, in the order in which tables show them."""
    return [
        visitas(binary),
        peer("axum", "visits", "axum, deadpool-postgres, redis", "release/axum-peer"),
        peer("actix", "visits", "actix-web, deadpool-postgres, redis", "release/actix-peer"),
        peer("go", "visits", "Go net/http, pgx, go-redis, as Debian has them", "counter"),
        peer("fastapi", "visits", "FastAPI, asyncpg, redis-py asyncio, uvicorn", "venv"),
        peer("flask-gunicorn", "visits", "Flask under gunicorn, kept connections", "venv"),
        peer("flask-exercise", "visits", "the exercise: Flask's own server, a connection per request", "venv"),
        visitas_livez(binary),
        peer("front-hyper", "front", "hyper, a constant", "release/front-hyper"),
        peer("front-nginx", "front", "nginx, a constant", "root/usr/sbin/nginx"),
        peer("front-may-minihttp", "front", "may_minihttp 0.1.11, a constant", "release/front-may-minihttp"),
    ]
