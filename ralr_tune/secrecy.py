"""Secrets (passwords in storage URLs, the dashboard's token): reading them, and removing them from texts."""

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
"""Maximum size of a secret file; a larger file is not a secret."""

_known: set[str] = set()

_URL = re.compile(
    r"\b((?:sqlite|postgres(?:ql)?|mysql|mariadb)(?:\+\w+)?://[^\s:/@?#\"']*):(?!\*\*\*@|\d+[/?])[^\n]*(@|…)",
    re.IGNORECASE,
)
"""A storage URL with a password, up to the last @ of the line: it may hold spaces, or be cut off by a message."""
_PASSWORD = re.compile(r"(://[^:/@]*):(.*)@", re.DOTALL)
_OPTION = re.compile(r"([?&](?:password|passwd|sslpassword)=)[^&\s\"']+", re.IGNORECASE)


def remember(secret: str) -> None:
    """Register a secret: from now on `hidden` masks it."""
    if secret:
        _known.add(secret)


def hidden(text: str) -> str:
    """Mask every registered secret in a text, and the password of every storage URL."""
    return without(_OPTION.sub(rf"\1{MASK}", _URL.sub(rf"\1:{MASK}\2", text)), _known)


def masked_url(url: str) -> str:
    """Mask what may be the password in a storage URL, even if the URL is malformed, and register that password."""
    found = _PASSWORD.search(url)
    if found and found[2] != MASK:
        remember(unquote(found[2]))
    return _OPTION.sub(rf"\1{MASK}", _PASSWORD.sub(rf"\1:{MASK}@", url))


def masked_webhook(url: str) -> str:
    """Keep only scheme and host of a URL, and register all that follows, since its path or query may be the secret."""
    scheme, _, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path = rest.removeprefix(authority)
    user, _, host = authority.rpartition("@")
    for secret in (path, user, unquote(path)):
        remember(secret.strip("/?#"))
    return f"{scheme}://{host.partition(':')[0]}/{MASK}" if path.strip("/") or user else url


def without(text: str, secrets: set[str]) -> str:
    """Mask these secrets in a text: raw, percent-encoded, quoted as in Python, JSON, SQL or HTML, or any mixture.

    A secret that starts or ends with a letter or digit must also start or end a word of the text: the password
    `postgres` does not match `postgresql`.
    """
    for secret in sorted(secrets, key=len, reverse=True):  # longest first: one secret may contain another
        before = r"(?<![0-9A-Za-z])" if secret[0].isalnum() else ""
        after = r"(?![0-9A-Za-z])" if secret[-1].isalnum() else ""
        text = re.sub(before + "".join(map(_any_form, secret)) + after, MASK, text)
    return text


def _any_form(char: str) -> str:
    """A pattern for all the ways to write a character."""
    codes = "".join(f"%{byte:02x}" for byte in char.encode(errors="surrogateescape"))
    forms = {char, html.escape(char), json.dumps(char)[1:-1], repr(char)[1:-1], ascii(char)[1:-1]}
    # repeated quoting multiplies the backslashes
    patterns = [r"\\*" + re.escape(form).replace(r"\\", r"\\+") for form in sorted(forms, key=len, reverse=True)]
    patterns += [f"(?i:{codes})", f"(?i:{quote(codes, safe='')})", rf"(?i:&\#0*{ord(char)};|&\#x0*{ord(char):x};)"]
    if char in "{}%'\"":
        patterns.insert(0, re.escape(char) * 2)  # str.format, printf, SQL
    return f"(?:{'|'.join(patterns)}{'|[+]' if char == ' ' else ''})"


class HidingFormatter(logging.Formatter):
    """Formats log records and their tracebacks with secrets masked."""

    def format(self, record: logging.LogRecord) -> str:
        return hidden(super().format(record))


def secret_from_environment(variable: str) -> str | None:
    """The secret in VARIABLE, or in the file that VARIABLE_FILE names (without one newline at its end).

    Raises UsageError, naming the variable, if both are set or the file holds no secret.
    """
    file_variable = f"{variable}_FILE"
    value, path = os.environ.get(variable), os.environ.get(file_variable)
    if value and path:
        raise UsageError(f"{variable} and {file_variable} are both set; set only one of them")
    secret = read_secret_file(Path(path).expanduser(), f"{file_variable}={path}") if path else value
    if secret:
        remember(secret)
    return secret or None


def read_secret_file(path: Path, what: str) -> str:
    """The secret in a file. Raises UsageError, beginning with `what`, if it holds none."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)  # bounded: the file may be endless, such as /dev/zero
        secret = content.decode()
    except OSError as error:
        raise UsageError(f"{what}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{what}: not UTF-8 text") from None
    if len(content) > MAX_BYTES:
        raise UsageError(f"{what}: larger than {MAX_BYTES} bytes; the file must hold only the secret")
    secret = secret.removesuffix("\n").removesuffix("\r")
    if not secret.strip():
        raise UsageError(f"{what}: is empty; write the secret into this file")
    if "\0" in secret:
        raise UsageError(f"{what}: contains a NUL character; a secret must be text")
    return secret
