"""One process that serves trial after trial: how a Python function trains (the other end is `own.serve`).

It imports the user's code once, and keeps its CUDA context. After a trial that failed, or that did not end in time, the
process is replaced. When the worker ends, it ends as well.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ralr_tune.child.channel import Channel
from ralr_tune.child.plan import LOG, Plan, Start, describe
from ralr_tune.child.process import Process, environment
from ralr_tune.child.program import Program, conversation
from ralr_tune.errors import TrialError


class ServedPrograms:
    """Processes of one command, each of which serves one trial at a time (see program.Programs).

    `reuse`: False starts a new one for each trial.
    """

    def __init__(self, command: Sequence[str], *, variables: Collection[str] = (), reuse: bool = True) -> None:
        self._command, self._variables, self._reuse = tuple(command), tuple(variables), reuse
        self._idle: list[_Server] = []
        self._lock = threading.Lock()
        weakref.finalize(self, _end_all, self._idle)

    @contextmanager
    def running(self, plan: Plan, start: Start) -> Generator[Program]:
        written = describe(plan, start)  # first: a new process finds its log's folder
        server = self._take()
        if server is None:
            server = _Server(self._command, self._variables, start.folder / LOG)
        healthy, reusable = True, False
        try:
            program = server.program(plan, start)
            try:
                with conversation(program):
                    program.begin(written)
                    yield program
            except TrialError as error:
                healthy = error.kind == "diverged"
                raise
            finally:
                reusable = healthy and (program.returned or (program.asked and program.leaves_within(plan.grace_s)))
                program.obeyed = program.returned or reusable or not program.asked
        finally:
            if reusable and self._reuse:
                self._put(server)
            else:
                server.end(plan.grace_s)

    def _take(self) -> _Server | None:
        with self._lock:
            while self._idle:
                server = self._idle.pop()
                if server.alive:
                    return server
                server.end(0.0)
        return None

    def _put(self, server: _Server) -> None:
        with self._lock:
            self._idle.append(server)


class _Server:
    """A running process and its channel."""

    def __init__(self, command: Sequence[str], variables: Collection[str], log: Path) -> None:
        """`log` gets its output until the first trial begins."""
        self._channel = Channel()
        try:
            self._process = Process(command, log=log, environment=environment(self._channel.path, keep=variables))
        except BaseException:
            self._channel.close()
            raise
        self._channel.watch(self._process.ended)
        self._served = False

    @property
    def alive(self) -> bool:
        return self._process.wait(0.0) is None

    def program(self, plan: Plan, start: Start) -> Program:
        """The next trial's; `begin` it."""
        if self._served:
            self._process.log_to(start.folder / LOG)
        program = Program(plan, start, self._channel, self._process, returned=self._served)
        self._served = True
        return program

    def end(self, grace_s: float) -> None:
        try:
            self._process.end(grace_s, asked=False)
        finally:
            self._channel.close()


def _end_all(servers: list[_Server]) -> None:
    while servers:
        servers.pop().end(0.0)
