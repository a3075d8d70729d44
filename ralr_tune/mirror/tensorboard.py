"""TensorBoard: event files in FOLDER/STUDY/ARM/..., written by torch, which is installed anyway.

An event file only grows, and a reader merges all files of a folder: what is there is read back before more is added.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ralr_tune.errors import DiskError, UsageError
from ralr_tune.machine.files import write
from ralr_tune.mirror.runs import STUDY_RUN, VERDICT, Point, TrackedRun, TrackedStudy
from ralr_tune.mirror.tracker import Sent, Tracker

MARK = "ralr_tune.json"
"""Says whose runs a folder holds."""
_TEXT = "/text_summary"
"""What TensorBoard's text plugin appends to a tag."""


class TensorBoard(Tracker):
    """Raises UsageError in `open` if the folder cannot be written, or holds another study of this name."""

    kind = "tensorboard"

    def __init__(self, study: TrackedStudy, folder: Path) -> None:
        super().__init__(study)
        self._folder = folder / study.key
        self._writers: dict[str, Any] = {}

    def open(self) -> None:
        """One folder holds the runs of one study: another one of this name may be in another database."""
        mark = self._folder / MARK
        whose = None
        with suppress(OSError, ValueError, AttributeError):
            whose = json.loads(mark.read_bytes()).get("id")
        if whose not in (None, self.study.id):
            place = f"--to tensorboard={self._folder.parent}"
            raise UsageError(f"{place}: holds another study named {self.study.key}; give another folder")
        self.is_new = whose is None
        try:
            write(mark, json.dumps({"study": self.study.key, "id": self.study.id}).encode())
        except DiskError as error:
            raise UsageError(str(error)) from None

    def sent(self, run: TrackedRun) -> Sent:
        found = Sent()
        for tag, step, text in _events(self._folder / run.name):
            if tag == f"outcome{_TEXT}":
                found.outcome = text.partition(":")[0]
            else:
                found.steps[tag] = max(step, found.steps.get(tag, -1))
        return found

    def send(self, run: TrackedRun, points: Sequence[Point]) -> None:
        writer = self._writer(run.name)
        for point in points:
            writer.add_scalar(point.metric, point.value, point.step, walltime=point.time)
        if run.outcome is not None:
            self._add_parameters(writer, run)
            text = f"{run.outcome}: {run.message}" if run.message else run.outcome
            writer.add_text("outcome", text, run.epochs)  # last: it says that everything is there
        writer.flush()
        if run.outcome is not None:
            self._writers.pop(run.name).close()

    def conclude(self, verdict: str, facts: Mapping[str, str]) -> None:
        there = [(step, text) for tag, step, text in _events(self._folder / STUDY_RUN) if tag == VERDICT + _TEXT]
        lines = "  \n".join([verdict, *(f"{name}: {text}" for name, text in facts.items())])
        if there and there[-1][1] == lines:
            return
        writer = self._writer(STUDY_RUN)
        writer.add_text(VERDICT, lines, there[-1][0] + 1 if there else 0)
        self._writers.pop(STUDY_RUN).close()

    def close(self) -> None:
        while self._writers:
            self._writers.popitem()[1].close()

    def _writer(self, name: str) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        if name not in self._writers:
            self._writers[name] = SummaryWriter(self._folder / name)
        return self._writers[name]

    @staticmethod
    def _add_parameters(writer: Any, run: TrackedRun) -> None:
        """For the page HPARAMS. `SummaryWriter.add_hparams` would put them into a further run."""
        from torch.utils.tensorboard.summary import hparams

        last = {point.metric: point.value for point in run.points if point.metric.startswith(("final/", "test/"))}
        tags = {name: value for name, value in run.tags.items() if name != "study"}
        for summary in hparams(tags | dict(run.params), last):  # type: ignore[no-untyped-call]
            writer.file_writer.add_summary(summary)


def _events(folder: Path) -> Iterator[tuple[str, int, str]]:
    """(tag, step, text) of every value in the event files of a run; a torn end of a file is skipped."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    for file in sorted(folder.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                texts = value.tensor.string_val
                yield value.tag, event.step, texts[0].decode(errors="replace") if texts else ""
