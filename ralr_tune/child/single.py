"""A new process for each start of a trial: how any program trains."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from ralr_tune.child.channel import Channel
from ralr_tune.child.plan import LOG, Plan, Start, describe
from ralr_tune.child.process import Process, environment
from ralr_tune.child.program import Program, conversation


@dataclass(frozen=True)
class SinglePrograms:
    """Starts `command` for each start of a trial (see program.Programs)."""

    command: Callable[[Start], list[str]]
    variables: Collection[str] = ()
    """Schedulers' variables that it gets nevertheless."""

    @contextmanager
    def running(self, plan: Plan, start: Start) -> Generator[Program]:
        written = describe(plan, start)
        channel = Channel()
        try:
            channel.begin(written.token)
            process = Process(
                self.command(start),
                log=start.folder / LOG,
                environment=environment(channel.path, trial=written.path, keep=self.variables),
            )
            channel.watch(process.ended)
            program = Program(plan, start, channel, process)
            try:
                with conversation(program):
                    yield program
            finally:
                ended = process.end(plan.grace_s, asked=program.asked)
                program.obeyed = ended or not program.asked
        finally:
            channel.close()
