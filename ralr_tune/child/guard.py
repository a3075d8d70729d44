"""Runs a program, and ends it and everything it started when the worker that asked for it is gone.

    python -I -S guard.py LOG PROGRAM ARGUMENT...

Standard input is the worker's control: "T" sends SIGTERM to the program's process group, "K" SIGKILL; its end, also
when the worker was killed, does the same as "K". When the program and all its descendants have ended, the guard writes
the program's exit code, negative for a signal, to its standard output, and closes that. It stays until standard input
ends, and then removes the socket: a worker that was killed cannot do so.

A separate process: only one that is still there can end the descendants of a program that was killed, and no signal of
the worker's terminal reaches it. It imports nothing of this package, so that it starts in 20 ms.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from contextlib import suppress

_CANNOT_START = 127
"""Exit code of a program that cannot be started, as in a shell."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_PASSES = 500
"""Rounds in which descendants are killed: those that start others between two rounds need several."""
_DEFAULTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD)


def main(log: str, command: list[str]) -> None:
    """Runs the command to its end, reports its exit code, and stays until the worker is done with it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _control_process(_PR_SET_CHILD_SUBREAPER, 1)
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    child = _start(log, command)
    _control(child, ended)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    _end_descendants()
    with suppress(BrokenPipeError):  # the worker is gone
        os.write(1, str(os.waitstatus_to_exitcode(status)).encode())
    os.close(1)
    while os.read(0, 1):
        pass
    _remove_socket()


def _control_process(option: int, value: int) -> None:
    """Linux only; elsewhere descendants that left the process group may stay."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _start(log: str, command: list[str]) -> int:
    """Starts the command in its own process group."""
    guard = os.getpid()
    child = os.fork()
    if child:
        with suppress(PermissionError, ProcessLookupError):  # it has started, or ended, already
            os.setpgid(child, child)
        return child
    try:
        os.setpgid(0, 0)
        _control_process(_PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in _DEFAULTS:
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if os.getppid() == guard:
            os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]}: cannot be started: {error.strerror}\n".encode(errors="backslashreplace"))
    finally:
        os._exit(_CANNOT_START)


def _control(child: int, ended: int) -> None:
    """Passes signals on until the child has exited, without reaping it: its number stays its own until then."""
    sources = [0, ended]
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        ready, _, _ = select.select(sources, [], [])
        if ended in ready:
            os.read(ended, 4096)
        if 0 in ready:
            request = os.read(0, 1)
            os.killpg(child, signal.SIGTERM if request == b"T" else signal.SIGKILL)
            if not request:
                sources.remove(0)


def _end_descendants() -> None:
    """Kills what the program left behind; descendants without a parent are children of this process."""
    for _ in range(_PASSES):
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return
        with suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            for left in file.read().split():
                os.kill(int(left), signal.SIGKILL)
        time.sleep(0.01)


def _remove_socket() -> None:
    """And its folder, unless the worker has done so."""
    if path := os.environ.get("RALR_TUNE_SOCKET"):
        with suppress(OSError):
            os.unlink(path)
        with suppress(OSError):
            os.rmdir(os.path.dirname(path))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
