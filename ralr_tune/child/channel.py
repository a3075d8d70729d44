"""The worker's end of the channel: a UNIX socket in a folder that only this user may enter.

A socket whose path is in the environment, and not an inherited descriptor, which programs such as torchrun do not pass
on, nor standard output, which a program may use for anything. Several connections may come one after the other: each
call of the client in a shell script is a new one.
"""

from __future__ import annotations

import selectors
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ralr_tune.child.messages import MAX_BYTES, Answer, Message, Refused, answered, parse, refused
from ralr_tune.errors import DiskError

_BACKLOG = 16
_MAX_CONNECTIONS = 64
"""Open connections; a further one is closed at once."""


MAX_REFUSED = 1000
"""Refused messages of one program; a program that sends more does nothing else."""


class Flood(Exception):
    """The program has sent too many messages that were refused."""


class Connection:
    """One connection of the program: its unread bytes, and whether it waits for an answer."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self.socket = connected
        self._received = b""
        self.ended = False

    def lines(self) -> Iterator[bytes]:
        """The complete lines received so far. Raises Refused for a line that is too long."""
        while b"\n" in self._received:
            line, _, self._received = self._received.partition(b"\n")
            yield line
        if len(self._received) > MAX_BYTES:
            self.ended = True
            raise Refused(f"a message has at most {MAX_BYTES} bytes")

    def read(self) -> None:
        """Reads what has arrived, at most one message more than the longest."""
        try:
            found = self.socket.recv(MAX_BYTES + 1)
        except BlockingIOError:
            return
        except OSError:
            found = b""
        self._received += found
        self.ended = self.ended or not found

    def send(self, line: bytes) -> None:
        """Sends an answer; a program that does not read its answers loses its connection."""
        try:
            self.socket.sendall(line)
        except OSError:
            self.ended = True


class Channel:
    """The socket, before the program starts; `watch` it once it has started."""

    def __init__(self) -> None:
        # mode 0700; short: a socket's path has 107 bytes; an object, so that it also goes if an interrupt comes here
        self._folder = tempfile.TemporaryDirectory(prefix="ralr_tune-", ignore_cleanup_errors=True)
        self.path = Path(self._folder.name) / "socket"
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.setblocking(False)
        try:
            self._listener.bind(str(self.path))
        except OSError as error:
            self._listener.close()
            self._folder.cleanup()
            raise DiskError(f"{self.path}: cannot be created: {error}; set TMPDIR to a shorter path") from error
        self._listener.listen(_BACKLOG)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._ended = -1
        self._received: list[tuple[Connection, bytes]] = []
        self._waiting: Connection | None = None
        self._refused = 0
        self._token: str | None = None

    def watch(self, ended: int) -> None:
        """`ended` is a descriptor that becomes readable when the program has exited."""
        self._ended = ended
        self._selector.register(ended, selectors.EVENT_READ)

    def begin(self, token: str) -> None:
        """A new trial: messages with the token of another one are refused."""
        self._token, self._refused = token, 0

    def receive(self, timeout_s: float | None) -> Message | None:
        """The next valid message; None if the program has exited and everything it sent was read.

        Wrong messages are answered with an error. Raises TimeoutError if there is none in
        `timeout_s`, and Flood.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            while self._received:
                connection, line = self._received.pop(0)
                try:
                    message = parse(line, self._token)
                except Refused as reason:
                    self._refuse(connection, str(reason))
                else:
                    self._waiting = connection
                    return message
            if not self._poll(None if deadline is None else max(0.0, deadline - time.monotonic())):
                return None

    def answer(self, answer: Answer, **more: str) -> bool:
        """Answers the last message, with `more` keys; does nothing, and returns False, if it was answered."""
        if self._waiting is None:
            return False
        waiting, self._waiting = self._waiting, None
        self._send(waiting, answered(answer, **more))
        return True

    def refuse(self, message: str) -> None:
        """Answers the last message with an error. Raises Flood."""
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._refuse(waiting, message)

    def close(self) -> None:
        """Closes all connections and removes the socket."""
        self._listener.close()
        open_ones = [key.data for key in self._selector.get_map().values() if key.data is not None]
        for connection in (*open_ones, *(each for each, _ in self._received)):
            connection.socket.close()
        self._selector.close()
        self._folder.cleanup()

    def _poll(self, timeout_s: float | None) -> bool:
        """Waits for events; False if there is nothing but the end of the program."""
        ready = self._selector.select(timeout_s)
        if not ready:
            raise TimeoutError
        found = [key for key, _ in ready if key.fd != self._ended]
        for key in found:
            if key.data is None:
                self._accept()
            else:
                self._read(key.data)
        return bool(found)

    def _accept(self) -> None:
        with suppress(OSError):
            connected, _ = self._listener.accept()
            if len(self._selector.get_map()) > _MAX_CONNECTIONS:
                connected.close()
                return
            self._selector.register(connected, selectors.EVENT_READ, Connection(connected))

    def _read(self, connection: Connection) -> None:
        connection.read()
        try:
            self._received += [(connection, line) for line in connection.lines()]
        except Refused as reason:
            self._refuse(connection, str(reason))
        if connection.ended and connection.socket.fileno() >= 0:
            self._selector.unregister(connection.socket)
            if connection is not self._waiting and not self._has_unread(connection):
                connection.socket.close()

    def _has_unread(self, connection: Connection) -> bool:
        return any(other is connection for other, _ in self._received)

    def _refuse(self, connection: Connection, message: str) -> None:
        self._refused += 1
        if self._refused > MAX_REFUSED:
            raise Flood(f"it sent more than {MAX_REFUSED} messages that were refused, the last one because: {message}")
        self._send(connection, refused(message))

    def _send(self, connection: Connection, line: bytes) -> None:
        connection.send(line)
        if connection.ended and not self._has_unread(connection):
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        if connection.socket.fileno() >= 0:
            with suppress(KeyError):
                self._selector.unregister(connection.socket)
            connection.socket.close()
