from __future__ import annotations

import html
import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from ralr_tune.errors import UsageError
from ralr_tune.secrecy import (
    MASK,
    MAX_BYTES,
    HidingFormatter,
    hidden,
    masked_url,
    remember,
    secret_from_environment,
    without,
)

NASTY = r"""p{0}%40/:@#?&'"\ é<x"""
NAME = "RALR_TUNE_TEST_SECRET"

FORMS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "repr": repr,
    "ascii": ascii,
    "json": json.dumps,
    "json with unicode": lambda text: json.dumps(text, ensure_ascii=False),
    "json in json": lambda text: json.dumps(json.dumps(text)),
    "html": html.escape,
    "percent": lambda text: quote(text, safe=""),
    "percent in lower case": lambda text: re.sub("%..", lambda code: code[0].lower(), quote(text, safe="")),
    "percent twice": lambda text: quote(quote(text, safe=""), safe=""),
    "percent as sqlalchemy": lambda text: quote(text, safe=" +"),
    "form": quote_plus,
    "braces doubled": lambda text: text.replace("{", "{{").replace("}", "}}"),
    "percents doubled": lambda text: text.replace("%", "%%"),
    "sql": lambda text: text.replace("'", "''"),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("secret", [NASTY, "plain", "a\tb\nc", "%7B", "{{}}", "\\\\", "'", "пароль🙂"])
def test_a_secret_is_found_in_any_form(secret: str, form: Callable[[str], str]) -> None:
    found = without(f"before {form(secret)} after", {secret})
    assert re.fullmatch(rf"before [\\'\"]*{re.escape(MASK)}[\\'\"]* after", found)  # quotes around it may stay


def test_a_secret_that_is_a_word_is_not_found_inside_words() -> None:
    assert without("postgresql://postgres:postgres@h", {"postgres"}) == "postgresql://***:***@h"


def test_the_longer_of_two_secrets_is_masked_first() -> None:
    assert without("hush-hush hush", {"hush", "hush-hush"}) == "*** ***"


def test_a_remembered_secret_is_masked() -> None:
    assert hidden("my Gr8-secret.") == "my Gr8-secret."
    remember("Gr8-secret")
    remember("")
    assert hidden("my Gr8-secret.") == "my ***."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at postgresql://me:s3cret@h:5432/d: no", "at postgresql://me:***@h:5432/d: no"),
        ("mysql+pymysql://me:a@b'c:d@h/d", "mysql+pymysql://me:***@h/d"),
        ("'postgres://me:s3cr…'", "'postgres://me:***…'"),
        ("mariadb://me@h/d?password=s3cret&x=1 and", "mariadb://me@h/d?password=***&x=1 and"),
        ("postgresql://me:pass word@h/d: no", "postgresql://me:***@h/d: no"),
        ("postgresql://me@h:5432/d", "postgresql://me@h:5432/d"),
        ("postgresql://h:5432/d: no 'me'@'h'", "postgresql://h:5432/d: no 'me'@'h'"),
        ("mysql+pymysql://me:***@h/d: no 'me'@'h'", "mysql+pymysql://me:***@h/d: no 'me'@'h'"),
        ("sqlite:////tmp/a:b@c.db", "sqlite:////tmp/a:b@c.db"),
        ("http://127.0.0.1:8080/x@y", "http://127.0.0.1:8080/x@y"),
    ],
)
def test_passwords_in_urls_are_masked_whether_known_or_not(text: str, expected: str) -> None:
    assert hidden(text) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://me:pass word@h/d", "postgresql://me:***@h/d"),
        ("postgresql://me:a@b/c?@h/d", "postgresql://me:***@h/d"),
        ("oracle://me:x\n@h/d", "oracle://me:***@h/d"),
        ("mysql://me@h/d?passwd=x", "mysql://me@h/d?passwd=***"),
        ("digits", "digits"),
    ],
)
def test_a_url_is_masked_even_if_it_is_malformed(url: str, expected: str) -> None:
    assert masked_url(url) == masked_url(expected) == expected


def test_logs_hide_secrets_in_messages_and_tracebacks() -> None:
    remember(NASTY)
    try:
        try:
            raise KeyError(NASTY)
        except KeyError as cause:
            raise RuntimeError(f"with {quote(NASTY)}") from cause
    except RuntimeError:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "failed: %s", (NASTY,), sys.exc_info())
    text = HidingFormatter("%(message)s").format(record)
    assert "p{0}" not in text
    assert text.count(MASK) == 3
    assert "RuntimeError: with ***" in text


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (NAME, f"{NAME}_FILE"):
        monkeypatch.delenv(variable, raising=False)


def test_a_secret_comes_from_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert secret_from_environment(NAME) is None
    monkeypatch.setenv(NAME, "")
    assert secret_from_environment(NAME) is None
    monkeypatch.setenv(NAME, NASTY)
    assert secret_from_environment(NAME) == NASTY
    assert hidden(NASTY) == MASK


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_comes_from_a_file_without_its_last_newline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(f"{NASTY} {end}".encode())
    monkeypatch.setenv(f"{NAME}_FILE", str(path))
    assert secret_from_environment(NAME) == f"{NASTY} "


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"x" * (MAX_BYTES + 1), "larger than"),
        (b"\xff", "not UTF-8"),
        (b"a\0b", "NUL"),
        (None, "No such file"),
    ],
)
def test_the_error_for_a_file_without_a_secret_names_variable_and_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv(f"{NAME}_FILE", str(path))
    with pytest.raises(UsageError) as raised:
        secret_from_environment(NAME)
    assert str(raised.value).startswith(f"{NAME}_FILE={path}: ")
    assert reason in str(raised.value)


def test_a_folder_instead_of_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path))
    with pytest.raises(UsageError, match="directory"):
        secret_from_environment(NAME)


def test_variable_and_file_exclude_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(NAME, "x")
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "secret"))
    with pytest.raises(UsageError, match=f"{NAME} and {NAME}_FILE are both set; set only one"):
        secret_from_environment(NAME)
