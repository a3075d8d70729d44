"""A program in a process group of its own, under a guard that ends it with this process (see guard.py)."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ralr_tune.child import guard
from ralr_tune.client import SOCKET, TRIAL
from ralr_tune.errors import FailureKind
from ralr_tune.secrecy import hidden

_OWN, _SCHEDULERS = "RALR_TUNE_", ("SLURM_", "RAY_")
_TAIL_LINES, _TAIL_BYTES = 20, 8192
_OWN_FAULTS = frozenset(
    getattr(signal, name)
    for name in ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGPIPE", "SIGSEGV", "SIGSYS", "SIGTRAP")
)
"""Signals that a program gets for what it did itself; all others come from outside."""
_OUT_OF_MEMORY = ("out of memory", "outofmemoryerror", "memoryerror")
"""In the output, in lower case: CUDA's, torch's and Python's words."""


def environment(socket: Path, *, trial: Path | None = None, keep: Collection[str] = ()) -> dict[str, str]:
    """This process's environment for the program, with the variables that its client reads.

    `trial`: the description of its only trial. Without variables of this package and without any that holds a secret of
    the storage. Without those of schedulers, unless they are in `keep`: Lightning, for one, would requeue the enclosing
    Slurm job.
    """
    kept = {name: value for name, value in os.environ.items() if name in keep or not name.startswith(_SCHEDULERS)}
    clean = {name: value for name, value in kept.items() if not name.startswith(_OWN) and hidden(value) == value}
    return clean | {SOCKET: str(socket)} | ({} if trial is None else {TRIAL: str(trial)})


class Process:
    """A running program. It ends with this process, however that ends."""

    def __init__(self, command: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> None:
        """`log` gets its output, after what is there already."""
        self.log_to(log)
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, str(log), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
            bufsize=0,
        )
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        self._control, self._ended = self._guard.stdin, self._guard.stdout
        self._code: int | None = None

    def log_to(self, log: Path) -> None:
        """Where its output is from now on, after what is there already."""
        self._log, self._began = log, log.stat().st_size if log.exists() else 0

    @property
    def ended(self) -> int:
        """A descriptor that becomes readable when the program and its descendants have ended."""
        return self._ended.fileno()

    def wait(self, timeout_s: float | None) -> int | None:
        """The exit code, negative for a signal; None if it still runs after `timeout_s`."""
        if self._code is None and select.select([self._ended], [], [], timeout_s)[0]:
            written = self._ended.read()
            if not written:  # the guard was killed, or a signal's exception came between reading the code and here
                self._control.close()
            self._code = int(written) if written else self._guard.wait()
        return self._code

    def kill(self) -> None:
        """Kills it at once, and waits until it has ended."""
        self._signal(b"K")
        self.wait(None)

    def end(self, grace_s: float, *, asked: bool) -> bool:
        """Ends it: SIGTERM to its process group, SIGKILL `grace_s` later. Returns whether it had ended by itself.

        `asked`: it was told to leave, and gets `grace_s` before the first signal.
        """
        try:
            if self.wait(grace_s if asked else 0.0) is not None:
                return True
            self._signal(b"T")
            self.wait(grace_s)
            return False
        finally:
            self._signal(b"K")
            self.wait(None)
            self._control.close()
            self._guard.wait()
            self._ended.close()

    def tail(self) -> list[str]:
        """The last lines of its output, without those of earlier programs in the same log."""
        with suppress(OSError), self._log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._began, size - _TAIL_BYTES))
            return file.read(_TAIL_BYTES).decode(errors="replace").splitlines()[-_TAIL_LINES:]
        return []

    def _signal(self, request: bytes) -> None:
        with suppress(OSError, ValueError):  # the guard has ended, or its control is closed
            self._control.write(request)


def failure_kind(code: int, output: Sequence[str]) -> FailureKind:
    """The kind of failure that an exit code stands for, with the last lines of the output.

    A program that was ended from outside (by the system for its memory, by an administrator, by a scheduler) is lost;
    nothing shows that the program itself is wrong.
    """
    if code < 0:
        return "bug" if -code in _OWN_FAULTS else "lost"
    return "oom" if code and any(sign in line.lower() for line in output for sign in _OUT_OF_MEMORY) else "bug"


def described(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exited with code {code}"
    with suppress(ValueError):
        name = signal.Signals(-code).name
        memory = ": the system does that to a process that uses too much memory" if name == "SIGKILL" else ""
        return f"was ended by {name}{memory}"
    return f"was ended by signal {-code}"
