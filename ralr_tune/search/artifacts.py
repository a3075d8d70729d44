"""The files that a study keeps between processes: checkpoints of unfinished rows and of pruned trials that wait for
their audit, and weights that wait for their test.

Every attempt of a row writes its own files. A worker whose lease expired while it was suspended therefore overwrites
nothing that the new owner wrote. The worker that finishes a row removes the files of all attempts; for an audited row,
the worker that finishes the audit does.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ralr_tune.records import AMPLIFIED, Row
from ralr_tune.search import audits
from ralr_tune.search.amplifying import amplification_of
from ralr_tune.search.stages import pending_stage, stage_rows
from ralr_tune.store.ledger import PlannedRow
from ralr_tune.studyfile import Configuration, StudySpec


@dataclass(frozen=True)
class ArtifactStore:
    """The files of one study in its folder, which other studies may share."""

    folder: Path
    spec: StudySpec
    key: str
    """`Ledger.key`: the files of another generation are not this one's."""

    def checkpoint(self, row: Row) -> Path:
        """Where this attempt of a row keeps the state of its training."""
        return self.checkpoint_of(row.id, row.attempt)

    def checkpoint_of(self, row_id: int, attempt: int) -> Path:
        """Where an attempt of a row keeps it."""
        return self.folder / f"{self.key}-row{row_id}.{attempt}.ckpt"

    def checkpoints(self, row: Row) -> list[Path]:
        """Checkpoints of all attempts of a row, the latest first."""
        found = [(attempt, path) for path, row_id, attempt in self._of_rows() if row_id == row.id]
        return [path for _, path in sorted(found, reverse=True) if path.suffix == ".ckpt"]

    def earlier(self, row: Row) -> list[Path]:
        """Checkpoints of the row's other attempts, the latest first."""
        return [path for path in self.checkpoints(row) if path != self.checkpoint(row)]

    def draft(self, row: Row) -> Path:
        """Where this attempt of a judge row saves its weights until the row is done."""
        return self.folder / f"{self.key}-row{row.id}.{row.attempt}.safetensors"

    def weights(self, row: Row) -> Path:
        """Where the weights of a judged run wait for the test: one path for the judge row and its test row.

        The path is unique to study, data, configuration and seed, so studies may share the folder.
        """
        configuration = confirm_configuration(self.spec, row)
        task, run = self.spec.task_identity(configuration.task), configuration.identity(row.seed)
        return self.folder / f"{self.key}-final-{task[:8]}-{run[:16]}.safetensors"

    def forget(self, row: Row) -> None:
        """Removes the files of all attempts of the row; the row must be done."""
        for path, row_id, _ in self._of_rows():
            if row_id == row.id:
                remove(path)

    def leftovers(self, read: Callable[[], Sequence[Row]]) -> list[Path]:
        """Files of this study that no worker will read; `read` returns all rows of its ledger.

        The files are listed before the rows are read, so none of them belongs to a row that is planned in between.
        """
        of_rows, finals = list(self._of_rows()), self._finals()
        if not of_rows and not finals:
            return []
        rows = read()
        in_use = self.in_use(rows)
        wanted = {self.weights(row) for row in _untested(self.spec, rows)}
        left = [path for path, row_id, _ in of_rows if row_id not in in_use]
        return sorted([*left, *(path for path in finals if path not in wanted)])

    def in_use(self, rows: Sequence[Row]) -> set[int]:
        """Ids of the rows whose files a worker may still read; `rows`: all of the ledger."""
        # the next `run` reopens failed rows
        unfinished = [row for row in rows if row.state != "done" or row.outcome == "failed"]
        # a judge row may be done before its draft is renamed to its final path
        return {row.id for row in [*unfinished, *_untested(self.spec, rows), *audits.waiting(self.spec, rows)]}

    def tidy(self, read: Callable[[], Sequence[Row]]) -> None:
        """Removes the leftovers: files that a killed process left of rows that are done by now."""
        for path in self.leftovers(read):
            remove(path)

    def _finals(self) -> list[Path]:
        name = re.compile(rf"\.?{re.escape(self.key)}-final-[0-9a-f-]+\.safetensors(\.\d+)?")
        return [path for path in self._files() if name.fullmatch(path.name)]

    def _of_rows(self) -> Iterator[tuple[Path, int, int]]:
        """(path, row, attempt) of all files and folders of rows, partly written ones (.NAME.PROCESS) included."""
        name = re.compile(rf"\.?{re.escape(self.key)}-row(\d+)\.(\d+)\.(ckpt|files|safetensors)(\.\d+)?")
        for path in self._files():
            if found := name.fullmatch(path.name):
                yield path, int(found[1]), int(found[2])

    def _files(self) -> list[Path]:
        with suppress(FileNotFoundError, NotADirectoryError):
            return list(self.folder.iterdir())
        return []


def confirm_configuration(spec: StudySpec, row: Row | PlannedRow) -> Configuration:
    """The configuration of a confirm row."""
    configuration = spec.configuration(row.arm, row.params)
    if row.role == "twin":
        return configuration.without_amplification()
    if row.role.startswith(AMPLIFIED):
        return configuration.with_amplification(amplification_of(row.params))
    return configuration


def _untested(spec: StudySpec, rows: Sequence[Row]) -> list[Row]:
    """Judged runs whose weights a test may still need: all until the stages before the test are done, since these can
    choose another winner; then those that the current winners' tests, or planned ones, evaluate."""
    tests = [row for row in rows if row.stage == "test"]
    tested = {run_of(row) for row in tests if row.outcome not in (None, "failed")}
    judged = [row for row in rows if row.stage == "judge" and row.outcome == "complete" and run_of(row) not in tested]
    if not judged or pending_stage(spec, rows) not in ("test", None):
        return judged
    wanted = {run_of(row) for row in tests} | {run_of(planned) for planned in stage_rows("test", spec, rows)}
    return [row for row in judged if run_of(row) in wanted]


def run_of(row: Row | PlannedRow) -> tuple[str, int, int, str, int | None]:
    """What a judge row and its test row have in common."""
    return row.arm, row.block, row.ordinal, row.role, row.source


def remove(path: Path) -> None:
    """Removes a file, or an attempt's folder, if permissions allow it: leftovers do no harm, and `gc` lists them."""
    with suppress(OSError):
        shutil.rmtree(path) if path.suffix == ".files" else path.unlink()
