"""What a store of objects does: write, read, list and remove whole objects. A folder and fsspec's file systems do.

An object is written whole or not at all, directly to its final key: buckets have no rename, and closing a file of
fsspec after an exception would commit what was written so far. No key that a training depends on is written twice with
different content; a log is replaced by its later content, by its only writer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from ralr_tune.errors import RalrTuneError
from ralr_tune.machine.files import replacing
from ralr_tune.secrecy import hidden

_MAX_REASON = 200
"""Characters of an error of a client that a message repeats."""


class StoreError(Exception):
    """The store cannot be used now; the message is one line without secrets.

    `lasting`: waiting does not help, because rights, a bucket or credentials are missing.
    """

    def __init__(self, reason: str, *, lasting: bool = False) -> None:
        self.lasting = lasting
        super().__init__(reason)


class Missing(Exception):
    """There is no object of this name, although the store answers."""


class ObjectStore(Protocol):
    """The objects below one root. A name has one or two parts: "marker", "row12/1-5.ckpt".

    Every method raises StoreError if the store does not answer or refuses.
    """

    def put(self, name: str, content: bytes) -> None:
        """Writes an object, whole or not at all; one of this name is replaced."""

    def get(self, name: str) -> bytes:
        """Raises Missing."""

    def sizes(self, group: str = "") -> Mapping[str, int]:
        """The bytes of every object by name, or of those in one group ("row12"); never from a cache."""

    def remove(self, name: str) -> None:
        """Removes an object; one that does not exist is no error."""


class FolderStore:
    """Objects as files of a folder that all workers share.

    Only `create` makes the root: when the file system is not mounted, a write must fail and not fill the local disk.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def create(self) -> None:
        """Makes the root in a folder that exists, or that lacks only its last part."""
        with self._errors():
            self._root.parent.mkdir(exist_ok=True)
            self._root.mkdir(exist_ok=True)

    def put(self, name: str, content: bytes) -> None:
        with self._errors():
            self._check_root()
            with replacing(self._root / name) as temporary, temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # the worker's machine may be lost next

    def get(self, name: str) -> bytes:
        with self._errors():
            try:
                return (self._root / name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                self._check_root()
                raise Missing(name) from None

    def sizes(self, group: str = "") -> Mapping[str, int]:
        found = {}
        with self._errors():
            self._check_root()
            for path in (self._root / group).rglob("*"):
                with suppress(FileNotFoundError):  # another worker has removed it
                    if path.is_file():
                        found[path.relative_to(self._root).as_posix()] = path.stat().st_size
        return found

    def remove(self, name: str) -> None:
        path = self._root / name
        with self._errors():
            path.unlink(missing_ok=True)
        if path.parent != self._root:
            with suppress(OSError):  # other objects are in it
                path.parent.rmdir()

    def _check_root(self) -> None:
        if not self._root.is_dir():
            raise StoreError(f"there is no folder {self._root} on this machine", lasting=True)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            lasting = isinstance(error, PermissionError | FileNotFoundError | NotADirectoryError)
            raise StoreError(error.strerror or str(error), lasting=lasting) from error


class FsspecStore:
    """Objects of one of fsspec's file systems."""

    def __init__(self, file_system: Any, root: str) -> None:
        self._files, self._root = file_system, root

    def put(self, name: str, content: bytes) -> None:
        with _client_errors():
            try:
                self._files.pipe_file(self._key(name), content)
            except FileNotFoundError as error:
                raise StoreError("there is no such bucket", lasting=True) from error

    def get(self, name: str) -> bytes:
        with _client_errors():
            try:
                return bytes(self._files.cat_file(self._key(name)))
            except FileNotFoundError:
                raise Missing(name) from None

    def sizes(self, group: str = "") -> Mapping[str, int]:
        with _client_errors():
            self._files.invalidate_cache()
            found = self._files.find(self._key(group), detail=True)
        return {str(path).lstrip("/")[len(self._root) + 1 :]: int(each["size"]) for path, each in found.items()}

    def remove(self, name: str) -> None:
        with _client_errors(), suppress(FileNotFoundError):
            self._files.rm_file(self._key(name))

    def _key(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")


@contextmanager
def _client_errors() -> Iterator[None]:
    """Every error of a client becomes a StoreError: botocore's and aiohttp's share no base class with OSError."""
    try:
        yield
    except (StoreError, Missing, RalrTuneError):
        raise
    except PermissionError as error:
        raise StoreError(f"access is refused: {_reason(error)}", lasting=True) from error
    except Exception as error:
        lasting = "Credential" in type(error).__name__  # botocore's NoCredentialsError and its relatives
        raise StoreError(_reason(error), lasting=lasting) from error


def _reason(error: Exception) -> str:
    text = " ".join(hidden(str(error)).split()) or type(error).__name__
    return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}..."
