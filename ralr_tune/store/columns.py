"""Types of the columns of our tables: texts that every database can hold, whatever its encoding.

MySQL's columns say utf8mb4 themselves. PostgreSQL has one encoding for a whole database, which a connection learns.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from sqlalchemy import Dialect, String, Text, TypeDecorator
from sqlalchemy.dialects.mysql import LONGTEXT, VARCHAR
from sqlalchemy.types import TypeEngine

NAME_LENGTH = 200  # of study and arm: both stand in one unique key, and MySQL's keys hold 3072 bytes

_encodings: WeakKeyDictionary[Dialect, str] = WeakKeyDictionary()
"""Of a server's database, as the server calls it; none for one that holds any text."""


def short_text(length: int = NAME_LENGTH) -> TypeEngine[str]:
    """A short text that tells capitals apart: MySQL's default collation takes arms `A` and `a` for one."""
    return String(length).with_variant(VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")


_LONG = LONGTEXT(charset="utf8mb4")


def long_text() -> TypeEngine[str]:
    """A text without bound: MySQL's TEXT ends at 64 kB."""
    return Text().with_variant(_LONG, "mysql")


def know_encoding(dialect: Dialect, server_encoding: str) -> None:
    """From now on, texts for this engine's PostgreSQL are kept to what its encoding can hold."""
    if server_encoding not in ("UTF8", "SQL_ASCII"):  # the latter holds whatever bytes it is given
        _encodings[dialect] = server_encoding.replace("WIN", "cp")  # as Python calls Windows' code pages


def _can_hold(dialect: Dialect, text: str) -> bool:
    """Whether the database behind `dialect` can hold a text; of an encoding unknown to Python, whether it is ASCII."""
    try:
        text.encode(_encodings.get(dialect, "utf-8"))
    except LookupError:
        return text.isascii()
    except UnicodeEncodeError:
        return False
    return True


class Words(TypeDecorator[str]):
    """A message for people: what the database cannot hold is escaped, so that no failure goes unrecorded.

    This concerns bytes of file names that are not UTF-8, NUL characters, and PostgreSQL in an encoding such as LATIN1.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        return _LONG if dialect.name == "mysql" else self.impl_instance

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        value = value.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
        return value if _can_hold(dialect, value) else value.encode("ascii", "backslashreplace").decode()


class FileText(TypeDecorator[str]):
    """The text of a study file, unchanged: if the database cannot hold it, in ASCII behind a mark."""

    impl = Text
    cache_ok = True
    mark = "# ralr_tune: unicode_escape\n"

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        return _LONG if dialect.name == "mysql" else self.impl_instance

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or _can_hold(dialect, value):
            return value
        return self.mark + value.encode("unicode_escape").decode("ascii")

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or not value.startswith(self.mark):
            return value
        return value.removeprefix(self.mark).encode("ascii").decode("unicode_escape")
