"""Rows put into `acessos` before anything is measured, and how large the table and its indexes are."""

import statistics
import time
from pathlib import Path

from .contenders import Contender
from .session import ContenderError, Session, get
from .stores import Stores

ROWS_PER_STATEMENT = 5_000_000
LOOKS = 21


def preload(contender: Contender, rows: int, stores: Stores, logs: Path, database: str) -> float:
    """The contender creates its schema; the rows then come from SQL, as from any other writer to the table. Gives the time
    of a look at the history of them all, in milliseconds: the median of some."""
    print(f"preloading {rows} rows", flush=True)
    stores.fresh_database(database)
    with Session(contender, stores, logs, database=database):
        pass
    left = rows
    while left > 0:
        step = min(left, ROWS_PER_STATEMENT)
        stores.sql(f"INSERT INTO acessos (momento) SELECT now() FROM generate_series(1, {step})", database)
        left -= step
    stores.sql("VACUUM (FREEZE, ANALYZE)", database)
    with Session(contender, stores, logs, database=database) as session:
        shown, _ = session.visit()
        looks = [_look_ms(session.ports[0]) for _ in range(LOOKS)]
    if shown != rows + 1:
        raise ContenderError(f"with {rows} rows preloaded, the first visit was shown the total {shown}")
    return statistics.median(looks)


def _look_ms(port: int) -> float:
    began = time.monotonic()
    status, body = get(port, "/history?by=day")
    if status != 200:
        raise ContenderError(f"the history was answered with {status}: {body!r}")
    return (time.monotonic() - began) * 1000


def relation_bytes(stores: Stores, database: str) -> dict[str, int]:
    table, indexes = stores.sql("SELECT pg_table_size('acessos'), pg_indexes_size('acessos')", database).split("|")
    return {"table": int(table), "indexes": int(indexes)}
