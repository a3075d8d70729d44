"""Replaces an interpreter: the server runs the program, and this ends as the program does. Standard library only."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ORPHAN_S = 1.0


def main(address: str, interpreter: str) -> None:
    """Run `-m ralr_tune` in the server at `address`; any other arguments in `interpreter`."""
    if sys.argv[1:3] != ["-m", "ralr_tune"]:
        os.execv(interpreter, [interpreter, *sys.argv[1:]])
    server = socket.socket(socket.AF_UNIX)
    server.connect(address)
    parent = os.getppid()
    process = {"arguments": sys.argv[3:], "folder": os.getcwd(), "environment": dict(os.environ), "parent": parent}
    request = json.dumps(process).encode()
    socket.send_fds(server, [len(request).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(request)
    for number in FORWARDED:
        signal.signal(number, lambda number, frame: server.sendall(bytes([number])))
    while not select.select([server], [], [], ORPHAN_S)[0]:
        if os.getppid() != parent:  # the program would see it and leave
            os._exit(1)
    _end(int(server.recv(16) or b"1"))


def _end(code: int) -> None:
    """Exit with `code`; -n: by signal n, as `subprocess` has it."""
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
