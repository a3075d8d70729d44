"""All contents of a database, for tests that compare it before and after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, inspect, text

from ralr_tune.store.address import parse_address
from ralr_tune.store.connections import make_engine

Dump = dict[str, list[tuple[Any, ...]]]


@contextmanager
def engine_of(url: str) -> Iterator[Engine]:
    """The program's engine for a storage URL."""
    engine = make_engine(parse_address(url))
    try:
        yield engine
    finally:
        engine.dispose()


def dump(url: str, *without: str) -> Dump:
    """Every row of every table except those in `without`."""
    with engine_of(url) as engine, engine.connect() as connection:
        names = [name for name in inspect(connection).get_table_names() if name not in without]
        return {name: sorted(map(tuple, connection.execute(text(f"SELECT * FROM {name}"))), key=repr) for name in names}
