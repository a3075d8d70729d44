"""A real S3 server on loopback (moto's), which can be stopped, fail, refuse, and hold uploads."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from threading import Condition, Event, Thread
from typing import Any

BUCKET = "artifacts"
SECRET = "a-secret/with+signs"
_ROW = re.compile(r"/row(\d+)/")


def obstacle() -> str | None:
    """Why it cannot run here; None if it can."""
    missing = [name for name in ("moto", "flask", "s3fs") if find_spec(name) is None]
    return f"no {', '.join(missing)}; pip install 'moto[server]' s3fs" if missing else None


class ObjectServer:
    """The server, with one bucket. What it holds survives a stop."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self._app: Callable[..., Iterable[bytes]] = DomainDispatcherApplication(create_backend_app)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._server: Any = None
        self._fault: tuple[int, str] | None = None
        self._released = Event()
        self._released.set()
        self._uploading: list[int] = []
        self._changed = Condition()
        self.requests: list[tuple[str, str]] = []
        """(method, path with query) of every request."""
        self.start()

    @property
    def environment(self) -> dict[str, str]:
        """What a client of this server needs."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "a-key",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        from moto.moto_server.werkzeug_app import MotoRequestHandler
        from werkzeug.serving import make_server

        self._server = make_server("127.0.0.1", self.port, self._answer, True, request_handler=MotoRequestHandler)
        Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Closes its port, and every connection at its next request."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Inside, nothing answers."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def answering(self, status: int, code: str) -> Iterator[None]:
        """Inside, every request fails with this status."""
        self._fault = status, code
        try:
            yield
        finally:
            self._fault = None

    @contextmanager
    def holding_uploads(self) -> Iterator[None]:
        """Inside, uploads of rows begin and do not end."""
        self._uploading.clear()
        self._released.clear()
        try:
            yield
        finally:
            self._released.set()

    def uploading(self, within_s: float) -> int | None:
        """The row of an upload that is held; None if none begins in this time."""
        with self._changed:
            self._changed.wait_for(lambda: self._uploading, within_s)
            return self._uploading[0] if self._uploading else None

    def client(self) -> Any:
        """boto3's, to look into the bucket past this package."""
        import boto3

        found = self.environment
        return boto3.client(
            "s3",
            endpoint_url=found["AWS_ENDPOINT_URL"],
            aws_access_key_id=found["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )

    def objects(self) -> list[str]:
        """Keys of all objects."""
        return [each["Key"] for each in self.client().list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    def _answer(self, environ: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        self.requests.append((environ["REQUEST_METHOD"], f"{environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}"))
        if self._server is None:
            with suppress(OSError):
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError("stopped")
        if self._fault is not None:
            return _failed(environ, respond, *self._fault)
        row = _ROW.search(environ["PATH_INFO"])
        if environ["REQUEST_METHOD"] == "PUT" and row is not None and not self._released.is_set():
            with self._changed:
                self._uploading.append(int(row[1]))
                self._changed.notify_all()
            self._released.wait()
        return self._app(environ, respond)


def _failed(environ: dict[str, Any], respond: Callable[..., Any], status: int, code: str) -> list[bytes]:
    with suppress(ValueError, OSError):
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>for a while</Message></Error>".encode()
    respond(f"{status} Fault", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
