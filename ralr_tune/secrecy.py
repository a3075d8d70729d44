"""Secrets: where they come from, and texts without them (passwords in storage URLs, the dashboard's token)."""

from __future__ import annotations

import html
import json
import logging
import os
import re
from pathlib import Path
from urllib.parse import quote, unquote

from ralr_tune.errors import UsageError

MASK = "***"
MAX_BYTES = 10_000
"""A file larger than this holds no secret: it is something else."""

_known: set[str] = set()

_URL = re.compile(
    r"\b((?:sqlite|postgres(?:ql)?|mysql|mariadb)(?:\+\w+)?://[^\s:/@?#\"']*):(?!\*\*\*@|\d+[/?])[^\n]*(@|…)",
    re.IGNORECASE,
)
"""A storage URL with a password, which may hold spaces, also one that a message cut off: to the line's last @."""
_PASSWORD = re.compile(r"(://[^:/@]*):(.*)@", re.DOTALL)
_OPTION = re.compile(r"([?&](?:password|passwd|sslpassword)=)[^&\s\"']+", re.IGNORECASE)


def remember(secret: str) -> None:
    """From now on `hidden` knows this secret."""
    if secret:
        _known.add(secret)


def hidden(text: str) -> str:
    """The text without any secret that this process knows, and without the password of any storage URL."""
    return without(_OPTION.sub(rf"\1{MASK}", _URL.sub(rf"\1:{MASK}\2", text)), _known)


def masked_url(url: str) -> str:
    """A storage URL, whether it can be read or not, without what may be its password, which is remembered."""
    found = _PASSWORD.search(url)
    if found and found[2] != MASK:
        remember(unquote(found[2]))
    return _OPTION.sub(rf"\1{MASK}", _PASSWORD.sub(rf"\1:{MASK}@", url))


def without(text: str, secrets: set[str]) -> str:
    """The text without these secrets: raw, percent-encoded, quoted as Python, JSON, SQL or HTML do, in any mixture.

    Where a secret ends in a letter or digit, it must end there in the text, too: the password `postgres` is not meant
    by `postgresql`.
    """
    for secret in sorted(secrets, key=len, reverse=True):  # one may be a part of another
        before = r"(?<![0-9A-Za-z])" if secret[0].isalnum() else ""
        after = r"(?![0-9A-Za-z])" if secret[-1].isalnum() else ""
        text = re.sub(before + "".join(map(_any_form, secret)) + after, MASK, text)
    return text


def _any_form(char: str) -> str:
    """A pattern for all ways in which a character may be written."""
    codes = "".join(f"%{byte:02x}" for byte in char.encode(errors="surrogateescape"))
    forms = {char, html.escape(char), json.dumps(char)[1:-1], repr(char)[1:-1], ascii(char)[1:-1]}
    # quoted twice or more, a backslash stands as many
    patterns = [r"\\*" + re.escape(form).replace(r"\\", r"\\+") for form in sorted(forms, key=len, reverse=True)]
    patterns += [f"(?i:{codes})", f"(?i:{quote(codes, safe='')})", rf"(?i:&\#0*{ord(char)};|&\#x0*{ord(char):x};)"]
    if char in "{}%'\"":
        patterns.insert(0, re.escape(char) * 2)  # str.format, printf, SQL
    return f"(?:{'|'.join(patterns)}{'|[+]' if char == ' ' else ''})"


class HidingFormatter(logging.Formatter):
    """Log lines and their tracebacks, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return hidden(super().format(record))


def given(variable: str) -> str | None:
    """The secret that VARIABLE holds, or the file that VARIABLE_FILE names (less one newline at its end).

    Raises UsageError, naming the variable, where both are set or the file holds no secret.
    """
    named = f"{variable}_FILE"
    value, path = os.environ.get(variable), os.environ.get(named)
    if value and path:
        raise UsageError(f"{variable} and {named}: give one of the two")
    secret = read(Path(path).expanduser(), f"{named}={path}") if path else value
    if secret:
        remember(secret)
    return secret or None


def read(path: Path, what: str) -> str:
    """The secret in a file. UsageError, beginning with `what`, where there is none."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)  # never the whole of something endless
        secret = content.decode()
    except OSError as error:
        raise UsageError(f"{what}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{what}: is not UTF-8 text") from None
    if len(content) > MAX_BYTES:
        raise UsageError(f"{what}: larger than {MAX_BYTES} bytes; it must hold the secret alone")
    secret = secret.removesuffix("\n").removesuffix("\r")
    if not secret.strip():
        raise UsageError(f"{what}: is empty")
    if "\0" in secret:
        raise UsageError(f"{what}: holds a NUL character")
    return secret
