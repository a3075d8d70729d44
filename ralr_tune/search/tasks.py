"""The tasks that one process trains: one for the whole study, or one for each combination of searched [task] values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ralr_tune.errors import DataError
from ralr_tune.records import Inventory
from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.tasks import first_task, first_values
from ralr_tune.tasks.base import Task

MAX_LOADED = 2
"""Tasks kept in memory (our choice): a worker that trains several trials at once alternates between tasks."""


class Tasks:
    """Loads each task of a study at its first use. `cache`: see `studyfile.kind.Kind.load`."""

    def __init__(self, spec: StudySpec, *, device: str, cache: Path | None = None) -> None:
        self._spec, self._device, self._cache = spec, device, cache
        self._loaded: dict[str, Task] = {}
        """By identity, the most recently used one last."""

    def only(self) -> Task | None:
        """The study's only task; None if values of [task] are searched."""
        return None if self._spec.task_space else self.of({})

    def first(self) -> Task:
        """The only task, or the one with the first or lowest of what is searched in [task]."""
        return self.of(first_values(self._spec))

    def of(self, searched: Mapping[str, Any]) -> Task:
        """The task with these values (`Configuration.task`). Raises DataError and UsageError as `Kind.load` does."""
        identity = self._spec.task_identity(searched)
        task = self._loaded.pop(identity, None) or self._load(searched)
        self._loaded[identity] = task
        while len(self._loaded) > MAX_LOADED:
            del self._loaded[next(iter(self._loaded))]
        return task

    def _load(self, searched: Mapping[str, Any]) -> Task:
        spec = self._spec
        return spec.kind.load(
            spec.resolved_task(searched),
            metric=spec.metric,
            seed=spec.study.seed,
            device=self._device,
            cache=self._cache,
            like=next(reversed(self._loaded.values()), None),
        )


def data_inventory(
    spec: StudySpec, *, cache: Path | None = None, sample: int | None = None, contents: bool = False
) -> Inventory | None:
    """What the study's data hold, its test data verified; the options are those of `studyfile.kind.Kind.inventory`.

    None for a kind without such a table, and for data that loading them will download. Raises DataError.
    """
    try:
        seed = spec.study.seed
        return spec.kind.inventory(first_task(spec), seed=seed, cache=cache, sample=sample, contents=contents)
    except DataError:
        if not spec.kind.downloads(spec.task):
            raise
    return None
