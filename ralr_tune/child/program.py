"""The conversation with a running program about one trial: what it may say when, and what it is answered."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, Protocol

from ralr_tune.child.channel import Channel, Flood
from ralr_tune.child.messages import Failed, Final, Log, Message, Ready, Report, Steps
from ralr_tune.child.plan import KEPT, LOG, WORKERS_OWN, Plan, Schedule, Start, Written, write_schedule
from ralr_tune.child.process import Process, described, failure_kind
from ralr_tune.errors import FailureKind, Interrupted, TrialError
from ralr_tune.records import EpochRecord

_MOMENT_S = 1.0
"""For the exit code of a program that has said that it failed."""


class Programs(Protocol):
    """Where programs come from: a new process for each start, or one that serves all of them."""

    def running(self, plan: Plan, start: Start) -> AbstractContextManager[Program]:
        """A program that trains a trial; on leaving, it does so no longer, and nothing that it started is left.

        Raises TrialError, DiskError.
        """


class Program:
    """A running program and what it has reported of its trial."""

    def __init__(self, plan: Plan, start: Start, channel: Channel, process: Process, *, returned: bool = False) -> None:
        self._plan, self._start, self._channel, self._process = plan, start, channel, process
        self._next, self._last = start.first_epoch, math.nan
        self._answered = time.perf_counter()
        self._schedule: Schedule | None = None if plan.by_step else plan.schedule(1)
        self._leaving: Literal["stop", "release"] = "stop"
        self.asked = False
        """Whether it was told to leave."""
        self.obeyed = True
        """False: it was told to leave, and did not within the grace."""
        self.returned = returned
        """Whether it has ended this trial and waits for another one."""

    def begin(self, written: Written) -> None:
        """Gives the trial to a process that serves one after another, as soon as it is ready. Raises TrialError."""
        while not self.returned:
            if self._received("before its first trial") is not None:
                self._channel.refuse("no trial has begun")
            elif not self.returned:
                raise self._ended("before its first trial")
        self.returned = False
        self._channel.begin(written.token)
        self._channel.answer("continue", trial=str(written.path))
        self._answered = time.perf_counter()

    def report(self) -> Report:
        """The next epoch. Raises TrialError: "diverged" for a value that is not finite, "bug" if there is none."""
        while True:
            message = self._receive(f"before it reported epoch {self._next}")
            if isinstance(message, Final):
                self._channel.refuse('a test value is allowed only in the stage "test"')
            elif report := self._accepted(message):
                return report

    def record(self, report: Report) -> EpochRecord:
        """As the study records it; the time of an epoch is that between two answers unless the program says it."""
        assert self._schedule is not None
        epoch, now = report.epoch, time.perf_counter()
        return EpochRecord(
            epoch=epoch,
            value=report.value,
            train_loss=report.loss if math.isfinite(report.loss) else math.nan,
            lr=self._schedule.rates[epoch - 1][0],
            factor=self._schedule.factors[epoch - 1][0],
            seconds=now - self._answered if report.seconds is None else report.seconds,
            others={name: report.metrics[name] for name in self._plan.epoch_metrics},
        )

    def leave(self, answer: Literal["stop", "release"]) -> None:
        """Answers the last message, if it was not answered, that the program must end."""
        self._leaving = answer
        if not self.returned:
            self.asked = self._channel.answer(answer) or self.asked

    def finish(self) -> None:
        """Lets the program end by itself after its last message. Raises TrialError if it fails."""
        self.go_on()
        while message := self._received("after its last report"):
            if not self._is_repeated(message):
                self._channel.refuse("all epochs are reported")
        if not self.returned and self._process.wait(None):
            raise self._ended("after its last report")

    def leaves_within(self, seconds: float) -> bool:
        """Whether the program, told to leave, ends its trial in that time, as one does that serves all trials."""
        deadline = time.monotonic() + seconds
        try:
            while (message := self._channel.receive(max(0.0, deadline - time.monotonic()))) is not None:
                if isinstance(message, Ready):
                    self.returned = True
                    return True
                if isinstance(message, Failed):
                    return False
                self._channel.answer(self._leaving)
        except (TimeoutError, Flood):
            pass
        return False

    def test_value(self) -> float:
        """The metric on the test split. Raises TrialError."""
        while True:
            message = self._receive("before it reported a test value")
            if isinstance(message, Final):
                self.finish()
                return message.value
            if self._accepted(message):
                self.go_on()

    def kill(self) -> None:
        """Kills its process, as the system does that has no memory left."""
        self._process.kill()

    def go_on(self) -> None:
        """Answers the last message, if it was not answered, that training goes on."""
        if not self.returned:  # the message of a process that waits for another trial is answered with that
            self._channel.answer("continue")
        self._answered = time.perf_counter()

    def _accepted(self, report: Report) -> Report | None:
        """The report if it is of the next epoch; otherwise it is answered here."""
        if self._is_repeated(report):
            return None
        if self._next > self._plan.epochs:
            self._channel.refuse("all epochs are reported")
        elif report.epoch != self._next:
            self._channel.refuse(f"epoch = {report.epoch}: must be {self._next}, the next one")
        elif self._schedule is None:
            self._channel.refuse(
                "this study changes the rate at every step: declare the steps of an epoch before you train, and apply "
                "the schedule that is the answer (Trial.declare_steps of the client)"
            )
        elif not math.isfinite(report.value):
            self.leave("stop")
            raise TrialError("diverged", f"the program reported the value {report.value} in epoch {report.epoch}")
        elif absent := [name for name in self._plan.epoch_metrics if name not in report.metrics]:
            self._channel.refuse(f"metrics: {absent[0]} is missing: task.epoch_metrics says that every report has it")
        elif problem := self._problem_of(report.checkpoint):
            self._channel.refuse(problem)
        else:
            self._next, self._last = report.epoch + 1, report.value
            self._plan.metrics.add("epoch", report.epoch, report.metrics)
            return report
        return None

    def _is_repeated(self, message: Report | Final) -> bool:
        """Whether it repeats the last report, as a client does that lost its connection; if so, it is answered."""
        if isinstance(message, Final) or (message.epoch, message.value) != (self._next - 1, self._last):
            return False
        self._channel.answer("continue")
        return True

    def _problem_of(self, checkpoint: str | None) -> str | None:
        if checkpoint is None:
            return None
        path = (self._start.folder / checkpoint).resolve()
        own = self._start.folder.resolve()
        if not path.is_relative_to(own) or path == own or path.name in WORKERS_OWN:
            return f"checkpoint = {json.dumps(checkpoint)}: must be a file or folder inside of {own}"
        if path.parent == own and path.name.startswith(KEPT):
            return f"checkpoint = {json.dumps(checkpoint)}: names that start with {KEPT} are the worker's; use another"
        if not path.exists():
            return f"checkpoint = {json.dumps(checkpoint)}: no such file; write it under another name and rename it"
        return None

    def _receive(self, when: str) -> Report | Final:
        message = self._received(when)
        if message is not None:
            return message
        if self.returned:
            raise self._failure(f"returned {when}")
        raise self._ended(when)

    def _received(self, when: str) -> Report | Final | None:
        """The next message about the trial's result; None if the program has ended."""
        while True:
            message = self._message(when)
            if isinstance(message, Ready):
                self.returned = True
                return None
            if isinstance(message, Failed):
                self.leave("stop")  # it waits for an answer before it exits
                self._process.wait(_MOMENT_S)  # its last output
                raise self._failure(f"failed {when}", message.kind, message.message)
            if isinstance(message, Steps):
                self._declare(message.steps_per_epoch)
            elif isinstance(message, Log):
                self._plan.metrics.add("step", message.step, message.metrics)
                self._channel.answer("continue")
            else:
                return message

    def _message(self, when: str) -> Message | None:
        try:
            return self._channel.receive(self._plan.report_timeout)
        except TimeoutError:
            silent = f"was silent for {self._plan.report_timeout:g} s (task.report_timeout) {when}"
            raise self._failure(silent) from None
        except Flood as flood:
            raise self._failure(f"flooded the channel {when}: {flood}") from None

    def _declare(self, steps: int) -> None:
        """Answers with the schedule for this many steps in each epoch."""
        schedule = self._plan.schedule(steps)
        if self._plan.by_step:
            self._schedule = schedule
        self._channel.answer("continue", schedule=str(write_schedule(self._start.folder, schedule)))

    def _ended(self, when: str) -> TrialError:
        """The failure of a program that has exited."""
        code = self._process.wait(None) or 0
        return self._failure(f"{described(code)} {when}", failure_kind(code, self._process.tail()))

    def _failure(self, what: str, kind: FailureKind = "bug", reason: str | None = None) -> TrialError:
        """`reason`: what the program itself said; None: the last line of its output."""
        output = self._process.tail()
        last = next((line.strip() for line in reversed(output) if line.strip()), "it printed nothing")
        reason = last if reason is None else reason
        error = TrialError(kind, f"the program {what}: {reason} (its output: {self._start.folder / LOG})")
        error.add_note("\n".join(["the end of the program's output:", *output]))
        return error


@contextmanager
def conversation(program: Program) -> Generator[None]:
    """On leaving it, the program is told what the exception of the caller means: stop, or release."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt):  # the caller must leave
        program.leave("release")
        raise
    except BaseException:  # the caller has left the generator, or the program failed
        program.leave("stop")
        raise
