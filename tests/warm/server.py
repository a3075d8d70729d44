"""Imports the program once, then forks it for each client."""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

LAZY = ("optuna.importance", "plotly.graph_objects", "sklearn.datasets", "sklearn.ensemble", "torchvision")
"""Modules that functions of the program import when they are called."""
RESTORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


def serve(address: str, executable: str) -> None:
    """Fork a keeper for each client until standard input ends."""
    _import_everything()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(64)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the tests, and they end the server
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers report to their clients, not here
    print("ready", flush=True)
    while 0 not in select.select([listening, 0], [], [])[0]:
        connection, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            _keep(connection, executable)
            return
        connection.close()


def _import_everything() -> None:
    import ralr_tune

    packages = pkgutil.walk_packages(ralr_tune.__path__, "ralr_tune.")
    names = [found.name for found in packages if not found.name.endswith(("__main__", ".env"))]
    optional = "ralr_tune.integrations."  # each of these needs a framework
    for name in (*(name for name in names if not name.startswith(optional)), *LAZY):
        importlib.import_module(name)
    gc.freeze()  # what was imported stays in pages that all programs share


def _keep(connection: socket.socket, executable: str) -> None:
    """Fork the program; forward signals to it, kill it if its client is gone, and return its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, files = _received(connection)
    program = os.fork()
    if program == 0:
        connection.close()
        _become(request, files, executable)
        return
    for file in files:
        os.close(file)
    ended = os.pidfd_open(program)
    while ended not in select.select([connection, ended], [], [])[0]:
        number = connection.recv(1)
        os.kill(program, number[0] if number else signal.SIGKILL)
        if not number:
            break
    code = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
    with suppress(OSError):  # the client may be gone
        connection.sendall(str(code).encode())
    os._exit(0)


def _received(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    size, files, _, _ = socket.recv_fds(connection, 4, 3)
    text = b""
    while len(text) < int.from_bytes(size, "big"):
        text += connection.recv(65536)
    return json.loads(text), files


def _become(request: dict[str, Any], files: list[int], executable: str) -> None:
    """`python -m ralr_tune` after its imports."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    for name, number in (("stdout", 1), ("stderr", 2)):  # what Python knows of the server's streams does not hold
        setattr(sys, name, open(number, "w", encoding="utf-8", buffering=1 if number == 2 else -1))  # noqa: SIM115
    for number in RESTORED:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.getppid = lambda: request["parent"]  # of the client, which it stands for
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.executable = executable  # its workers start from the server, too
    sys.argv = ["ralr_tune", *request["arguments"]]
    sys.orig_argv = [executable, "-m", *sys.argv]
    sys.path[0] = request["folder"]
    runpy.run_module("ralr_tune", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
