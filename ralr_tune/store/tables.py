"""This package's tables and the database's clock, in types that SQLite, PostgreSQL and MySQL all support.

Times are seconds since 1970 by the database's clock, as doubles. Structured data is JSON text: it is always written and
read as a whole, and no query looks into it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Double, Index, Integer, MetaData, Table, UniqueConstraint
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from ralr_tune.errors import StorageError
from ralr_tune.store.columns import NAME_LENGTH, EscapedText, FileText, long_text, short_text

NO_SOURCE = -1
"""Source of a row that does not repeat another trial's configuration."""

metadata = MetaData()
_INNODB: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}


schema = Table(
    "ralr_tune_schema",  # locks out release 0.1, which accepts no other version; later ones read schema.py's table
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    **_INNODB,
)

studies = Table(
    "ralr_tune_studies",
    metadata,
    Column("name", short_text(), primary_key=True),
    Column("text", FileText, nullable=False),
    Column("fingerprint", short_text(), nullable=False),
    Column("created", Double, nullable=False),
    Column("environment", long_text()),
    **_INNODB,
)

generations = Table(
    "ralr_tune_generations",  # states of the data and code of a study; without a row, it has one generation
    metadata,
    Column("study", short_text(), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("created", Double, nullable=False),
    Column("identity", long_text()),  # NULL until a worker has read data and code
    Column("text", FileText),  # the study file and its fingerprint when the next generation began; NULL in the newest
    Column("fingerprint", short_text()),
    **_INNODB,
)

ledger = Table(
    "ralr_tune_ledger",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study", short_text(), nullable=False),  # of a later generation: STUDY@2 (see generations.py)
    Column("arm", short_text(), nullable=False),
    Column("stage", short_text(16), nullable=False),
    Column("block", Integer, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("role", short_text(32), nullable=False),
    Column("source", Integer, nullable=False),  # NO_SOURCE and not NULL: a unique key treats NULLs as different
    Column("seed", BigInteger, nullable=False),
    Column("params", long_text(), nullable=False),
    Column("trial", Integer),
    Column("state", short_text(8), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("owner", short_text(255)),  # the last worker that held the row; kept when it is freed or done
    Column("token", short_text(32)),  # of the last claim: shows a worker whose response was lost that it won
    Column("lease_end", Double),
    Column("outcome", short_text(16)),
    Column("failure", short_text(16)),
    Column("message", EscapedText),
    Column("epoch", Integer, nullable=False),
    Column("value", Double),
    Column("train_value", Double),
    Column("curve", long_text()),
    Column("seconds", Double),
    Column("started", Double),
    Column("finished", Double),
    UniqueConstraint("study", "arm", "stage", "block", "ordinal", "role", "source", name="ralr_tune_ledger_planned"),
    Index("ralr_tune_ledger_waiting", "study", "stage", "state"),
    **_INNODB,
)

incidents = Table(
    "ralr_tune_incidents",  # failures, including those from which a trial recovered
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study", short_text(), nullable=False),  # as in the ledger
    Column("row", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("kind", short_text(16), nullable=False),
    Column("signature", short_text(64), nullable=False),  # a hash, the same for equal failures (incidents.py)
    Column("message", EscapedText, nullable=False),
    Column("detail", EscapedText, nullable=False),  # the traceback; "" if there is none
    Column("owner", short_text(255)),
    Column("epoch", Integer, nullable=False),
    Column("time", Double, nullable=False),
    UniqueConstraint("row", "attempt", "kind", name="ralr_tune_incidents_once"),
    Index("ralr_tune_incidents_study", "study", "kind"),
    **_INNODB,
)


stores = Table(
    "ralr_tune_stores",  # where the artifacts of a study are kept; without a row, in its out folder
    metadata,
    Column("study", short_text(), primary_key=True),
    Column("url", long_text(), nullable=False),
    Column("folder", short_text(), nullable=False),  # of this study in this database, in the store
    Column("created", Double, nullable=False),
    **_INNODB,
)

artifacts = Table(
    "ralr_tune_artifacts",  # the one object of a ledger row that is valid: what its next attempt resumes from
    metadata,
    Column("row", Integer, primary_key=True, autoincrement=False),
    Column("study", short_text(), nullable=False),  # without the number of its generation
    Column("name", short_text(), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("sha256", short_text(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    **_INNODB,
)


def check_name(what: str, name: str) -> str:
    """The name, if it fits its column; otherwise StorageError (MySQL might truncate it without a warning)."""
    if not 0 < len(name) <= NAME_LENGTH:
        raise StorageError(f"{what} {name!r} has {len(name)} characters; allowed: 1 to {NAME_LENGTH}")
    return name


class Now(FunctionElement[float]):
    """The database's clock at this moment (not at the statement's start): seconds since 1970, to the millisecond."""

    type = Double()
    inherit_cache = True


@compiles(Now, "sqlite")
def _sqlite(element: Now, compiler: Any, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"  # 2440587.5 = julianday('1970-01-01')


@compiles(Now, "postgresql")
def _postgresql(element: Now, compiler: Any, **options: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


@compiles(Now, "mysql")
def _mysql(element: Now, compiler: Any, **options: Any) -> str:
    return "unix_timestamp(sysdate(6))"  # the session's time zone is UTC (database.py): no hour occurs twice
