"""The URL of a store of artifacts, checked as a text. It never holds credentials."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from ralr_tune.errors import UsageError
from ralr_tune.machine.home import expand_home
from ralr_tune.nearest import nearest
from ralr_tune.secrecy import masked_url

Protocol = Literal["s3", "gs", "file"]

ALLOWED = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, or a folder that all workers share (/FOLDER or file:///FOLDER)"
OPTION = "--artifacts"

_OTHER_NAMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}
_BUCKETS: tuple[Protocol, ...] = ("s3", "gs")
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials or the machine's role",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth application-default login` or the machine's service account",
}
"""Where the clients of each protocol find credentials; this package carries none."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?(.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,220}[A-Za-z0-9]")
_MAX_LENGTH = 700
"""Keys of S3 and Google have at most 1,024 bytes, and a study's name is part of them."""


@dataclass(frozen=True)
class StoreUrl:
    """A store: a bucket with a prefix, or a folder."""

    protocol: Protocol
    path: str
    """BUCKET/PREFIX, or an absolute path; without a slash at its end."""

    def __str__(self) -> str:
        return self.path if self.protocol == "file" else f"{self.protocol}://{self.path}"

    @property
    def credentials(self) -> str:
        """Where its client finds credentials."""
        return _CREDENTIALS.get(self.protocol, "")


def parse_store(text: str, *, remote: bool = False) -> StoreUrl:
    """The store that a URL or a path means; a path becomes absolute.

    `remote`: workers may run on other machines, so that a relative path would mean another folder there.
    Raises UsageError, which repeats nothing of a URL with credentials.
    """
    if not text.strip() or not text.isprintable() or len(text.encode(errors="surrogateescape")) > _MAX_LENGTH:
        raise UsageError(
            f"{OPTION} {text[:80]!r}: not a text of 1 to {_MAX_LENGTH} printable characters; allowed: {ALLOWED}"
        )
    found = _SCHEME.fullmatch(text)
    if found is None:
        return StoreUrl("file", _folder(text, remote))
    scheme, slashes, rest = found[1].lower(), found[2], found[3]
    scheme = _OTHER_NAMES.get(scheme, scheme)
    if scheme not in (*_BUCKETS, "file"):
        close = nearest(scheme, [*_BUCKETS, "file"], cutoff=0.5)
        hint = f"; did you mean {close[0]}://?" if close else ""
        raise UsageError(f"{OPTION}: protocol {found[1]!r} is not supported; allowed: {ALLOWED}{hint}")
    if not slashes:
        raise UsageError(f"{OPTION}: {scheme}: without //; allowed: {ALLOWED}")
    if scheme == "file":
        return StoreUrl("file", _folder_of_url(rest, remote))
    return StoreUrl(cast(Protocol, scheme), _bucket(scheme, text, rest))


def _bucket(scheme: str, text: str, rest: str) -> str:
    bucket, _, prefix = rest.partition("/")
    if "@" in rest or ":" in bucket or "?" in rest or "#" in rest:
        masked_url(text)  # registers the password, so that no log shows it
        raise UsageError(
            f"{OPTION} {scheme}://...: holds credentials or options; write {scheme}://BUCKET/PREFIX and give the "
            f"credentials by {_CREDENTIALS[scheme]}"
        )
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"{OPTION} {text}: {bucket!r} is not the name of a bucket; allowed: {ALLOWED}")
    parts = prefix.strip("/").split("/") if prefix.strip("/") else []
    if any(part in ("", ".", "..") for part in parts):
        raise UsageError(f"{OPTION} {text}: the prefix has an empty part, '.' or '..'; allowed: {ALLOWED}")
    return "/".join([bucket, *parts])


def _folder_of_url(rest: str, remote: bool) -> str:
    host, _, path = rest.partition("/")
    if host not in ("", "localhost"):
        raise UsageError(f"{OPTION} file://{host}/...: a host is not supported; write file:///FOLDER")
    return _folder(f"/{path}", remote)


def _folder(text: str, remote: bool) -> str:
    try:
        path = expand_home(text)
    except ValueError as error:
        raise UsageError(f"{OPTION} {text}: {error}") from None
    if remote and not path.is_absolute():
        raise UsageError(
            f"{OPTION} {text}: workers on other machines need the full path of a folder that they share, "
            "such as /shared/artifacts"
        )
    return str(path.absolute()).rstrip("/") or "/"


def folder_path(url: StoreUrl) -> Path:
    """The folder of a `file` store."""
    return Path(url.path)
