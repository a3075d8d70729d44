"""Column types of this package's tables: texts that a database in any encoding can store.

On MySQL, each column declares utf8mb4. PostgreSQL has one encoding per database; a new connection reads it.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from sqlalchemy import Dialect, String, Text, TypeDecorator
from sqlalchemy.dialects.mysql import LONGTEXT, VARCHAR
from sqlalchemy.types import TypeEngine

NAME_LENGTH = 200  # of study and arm: both are in one unique key, and MySQL's keys are limited to 3072 bytes

_encodings: WeakKeyDictionary[Dialect, str] = WeakKeyDictionary()
"""By engine: the encoding of its database (the server's name, with cp for WIN); absent if it can store any text."""


def short_text(length: int = NAME_LENGTH) -> TypeEngine[str]:
    """A short case-sensitive text: MySQL's default collation treats arms `A` and `a` as equal."""
    return String(length).with_variant(VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")


_LONG = LONGTEXT(charset="utf8mb4")


def long_text() -> TypeEngine[str]:
    """A text without a length limit: MySQL's TEXT holds at most 64 kB."""
    return Text().with_variant(_LONG, "mysql")


def remember_encoding(dialect: Dialect, server_encoding: str) -> None:
    """Stores the encoding of this engine's PostgreSQL database; the column types then escape what it cannot store."""
    if server_encoding not in ("UTF8", "SQL_ASCII"):  # SQL_ASCII stores any bytes
        _encodings[dialect] = server_encoding.replace("WIN", "cp")  # Python's names of Windows' code pages


def _can_store(dialect: Dialect, text: str) -> bool:
    """Whether the database can store a text; if Python does not know its encoding, whether the text is ASCII."""
    try:
        text.encode(_encodings.get(dialect, "utf-8"))
    except LookupError:
        return text.isascii()
    except UnicodeEncodeError:
        return False
    return True


class EscapedText(TypeDecorator[str]):
    """A message for the user. Characters that the database cannot store are escaped, so that each failure is recorded.

    These are bytes of file names that are not UTF-8, NUL, and on PostgreSQL characters outside, for example, LATIN1.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        return _LONG if dialect.name == "mysql" else self.impl_instance

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        value = value.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
        return value if _can_store(dialect, value) else value.encode("ascii", "backslashreplace").decode()


class FileText(TypeDecorator[str]):
    """The text of a study file. If the database cannot store it, it is escaped to ASCII and gets a prefix, `mark`."""

    impl = Text
    cache_ok = True
    mark = "# ralr_tune: unicode_escape\n"

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        return _LONG if dialect.name == "mysql" else self.impl_instance

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or _can_store(dialect, value):
            return value
        return self.mark + value.encode("unicode_escape").decode("ascii")

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or not value.startswith(self.mark):
            return value
        return value.removeprefix(self.mark).encode("ascii").decode("unicode_escape")
