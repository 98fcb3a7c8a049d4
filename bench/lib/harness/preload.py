"""Rows put into `acessos` before anything is measured, and how large the table and its indexes are."""

from pathlib import Path

from .contenders import Contender
from .session import ContenderError, Session
from .stores import Stores

ROWS_PER_STATEMENT = 5_000_000


def preload(contender: Contender, rows: int, stores: Stores, logs: Path, database: str) -> None:
    """The contender creates its schema; the rows then come from SQL, as from any other writer to the table."""
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
    if shown != rows + 1:
        raise ContenderError(f"with {rows} rows preloaded, the first visit was shown the total {shown}")


def relation_bytes(stores: Stores, database: str) -> dict[str, int]:
    table, indexes = stores.sql("SELECT pg_table_size('acessos'), pg_indexes_size('acessos')", database).split("|")
    return {"table": int(table), "indexes": int(indexes)}
