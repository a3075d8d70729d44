"""Opening a store, and checking it before a study depends on it."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from ralr_tune.errors import UsageError
from ralr_tune.invocation import install
from ralr_tune.objects.stores import FolderStore, FsspecStore, Missing, ObjectStore, StoreError
from ralr_tune.objects.url import OPTION, StoreUrl, folder_path
from ralr_tune.secrecy import remember

T = TypeVar("T")

CHECK_S = 8.0
"""Seconds for which a command tries to reach a store before it gives up."""

_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}
"""Package by protocol; the extra is named like the protocol."""
_OPTIONS: dict[str, dict[str, Any]] = {
    # `objects.patience` retries: the clients' own retries would only delay its line
    "s3": {"config_kwargs": {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 1}}},
    "gs": {},
}
_CHECKED = b"ralr_tune checks that it can write, read and remove here\n"


def open_store(url: StoreUrl, folder: str = "") -> ObjectStore:
    """The store, with `folder` below it as the root. Nothing is created or connected yet.

    Raises UsageError if the package of its protocol is not installed.
    """
    if url.protocol == "file":
        return FolderStore(folder_path(url) / folder)
    for name in _SECRETS:
        remember(os.environ.get(name, ""))
    logging.getLogger("asyncio").addFilter(_not_of_a_lost_connection)  # the same function once, however often added
    return FsspecStore(_file_system(url), f"{url.path}/{folder}".rstrip("/"))


def _file_system(url: StoreUrl) -> Any:
    package = _PACKAGES[url.protocol]
    try:
        import_module(package)
        fsspec: Any = import_module("fsspec")
    except ImportError:
        raise UsageError(f"{OPTION} {url}: {package} is not installed; type: {install(url.protocol)}") from None
    return fsspec.filesystem(url.protocol, use_listings_cache=False, **_OPTIONS[url.protocol])


def _not_of_a_lost_connection(record: logging.LogRecord) -> bool:
    """Without asyncio's tracebacks of connections that the store closed: the request fails, too, and is retried."""
    return not record.exc_info or not isinstance(record.exc_info[1], ConnectionError)


def check_store(url: StoreUrl) -> float:
    """Writes, reads and removes a small object; returns the seconds of write and read.

    Raises UsageError, one line, if that is not possible; leaves nothing behind.
    """
    if url.protocol == "file":
        _check_folder(url)
    name = f"ralr_tune-check-{secrets.token_hex(8)}"
    store = open_store(url)
    if url.protocol == "file" and not folder_path(url).exists():
        store = open_store(StoreUrl("file", str(folder_path(url).parent)))  # `create_store` makes the folder itself
    try:
        began = time.perf_counter()
        reached(lambda: store.put(name, _CHECKED))
        read = reached(lambda: store.get(name))
        took = time.perf_counter() - began
        reached(lambda: store.remove(name))
    except (StoreError, Missing) as error:
        with suppress(StoreError):
            store.remove(name)
        raise unusable(url, error) from error
    if read != _CHECKED:
        raise UsageError(f"{OPTION} {url}: what was written is not what is read; use another store")
    return took


def create_store(url: StoreUrl, folder: str, marker: str) -> None:
    """Makes the root `folder` with an object `marker`, by which workers recognize it. Raises UsageError."""
    store = open_store(url, folder)
    try:
        if isinstance(store, FolderStore):
            store.create()
        reached(lambda: store.put(marker, folder.encode()))
    except StoreError as error:
        raise unusable(url, error) from error


def reached(call: Callable[[], T]) -> T:
    """`call()`, repeated for CHECK_S while it fails for a reason that may pass. Raises StoreError."""
    end = time.monotonic() + CHECK_S
    while True:
        try:
            return call()
        except StoreError as error:
            if error.lasting or time.monotonic() >= end:
                raise
        time.sleep(0.5)


def unusable(url: StoreUrl, error: Exception) -> UsageError:
    """The error for a store that cannot be used, with what to do."""
    lasting = getattr(error, "lasting", False)
    advice = "check that it exists and that you may write there" if lasting else "check that it can be reached"
    credentials = f", with credentials by {url.credentials}" if url.credentials else ""
    return UsageError(f"{OPTION} {url}: cannot be written: {error}; {advice}{credentials}")


def _check_folder(url: StoreUrl) -> None:
    folder = folder_path(url)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{OPTION} {url}: not a folder")
    if not _existing(folder).is_dir():
        raise UsageError(f"{OPTION} {url}: there is no folder {folder.parent}; create it, or mount its file system")


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else folder.parent
