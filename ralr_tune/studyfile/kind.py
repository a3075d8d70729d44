"""The contract of a kind of task: all that the rest of the program asks of one. A kind is one object without state.

    study file   section, training, required, metrics, imports, contradictions, changes
    training     load, trial, together, seconds_per_epoch, steps_per_epoch, needs_torch
    people       packages, examine, inventory, caches, script

Nothing outside of a kind's own folder asks which kind it has. `registry` finds a kind by its name.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ralr_tune.errors import UsageError
from ralr_tune.metric import Metric
from ralr_tune.records import Inventory
from ralr_tune.tasks.slots import SerialTrainer

if TYPE_CHECKING:
    from ralr_tune.studyfile import Configuration, StudySpec
    from ralr_tune.studyfile.contradictions import Contradiction
    from ralr_tune.studyfile.exported import Exported
    from ralr_tune.studyfile.imports import Import
    from ralr_tune.tasks.base import Task
    from ralr_tune.tasks.slots import Slots, SlotTrainer
    from ralr_tune.tasks.trial import TrainingSplit, Trial


class NoKeys(BaseModel):
    """The `training` of a kind without keys of its own."""


@dataclass(frozen=True)
class Examined:
    """What `doctor` learns about a task without training it."""

    found: str
    """The data in a few words, for people."""
    weights: int = 0
    """Bytes of the network's weights; 0 if it has none or they are not known."""


class Kind(ABC):
    """One kind of task. The defaults are those of a kind that trains without torch."""

    name: str
    """As `task.kind` in a study file gives it."""
    metrics: Mapping[str, Metric]
    """What its trials may be judged by, by name; the first one is the default."""
    section: type[BaseModel]
    """The model of [task], a `studyfile.sections.TaskSection`. A value that may be searched is `Searchable` or
    `Choosable` there; its parameter is called `task.KEY`."""
    training: type[BaseModel] = NoKeys
    """Its own keys of [training], with their defaults, in the same way; settled, they reach the task as `options`."""
    required: frozenset[str] = frozenset()
    """Keys of [training] that a study file must give, besides `epochs` and `lr`."""
    packages: tuple[str, ...] = ()
    """Distributions whose versions the report names, besides those that every study needs."""
    needs_torch = False
    """Whether its workers import torch, and take a share of a GPU."""
    changes: Mapping[tuple[str, ...], tuple[bool, str]] = {}
    """What becomes of a changed key of [task], by its path below [task]: whether the study goes on with it, and why."""

    def options(self, values: Mapping[str, Any]) -> Hashable:
        """The settled values of its own keys of [training], as its tasks take them. Hashable."""
        return self.training.model_validate(values)

    @property
    def default_metric(self) -> Metric:
        return next(iter(self.metrics.values()))

    # ------------------------------------------------------------ training

    @abstractmethod
    def load(
        self,
        section: Any,
        *,
        metric: Metric,
        seed: int,
        device: str,
        cache: Path | None = None,
        like: Task | None = None,
    ) -> Task:
        """The task that `section` (settled: no value is searched any more) describes.

        `seed` is the study's, `device` torch's name ("cpu", "cuda:0"), `cache` a folder that all processes of an out
        folder share for what is expensive to prepare; None: nowhere. `like` is another task of the same study, whose
        data this one may share. Reads the training and validation data; of the test data nothing but, where there is
        a `cache`, what `inventory` verifies. Raises DataError or UsageError, naming field, value and what is allowed.
        """

    @abstractmethod
    def trial(
        self,
        task: Any,
        configuration: Configuration,
        *,
        seed: int,
        checkpoint: Path | None = None,
        earlier: Sequence[Path] = (),
        split: TrainingSplit = "train",
    ) -> Trial:
        """A trial of `configuration` that has trained nothing yet, or what the first usable of its checkpoints holds.

        `checkpoint` is the one file that this trial writes; `earlier` are those of earlier attempts, the one to prefer
        first. A checkpoint of another task, configuration, seed or split, or a damaged one, is ignored with a warning
        in the log. Raises UsageError when network, optimizer or options do not fit, TrialError("oom") when the network
        does not fit into memory.
        """

    @abstractmethod
    def seconds_per_epoch(self, task: Any, configuration: Configuration) -> float:
        """Estimated wall seconds of one epoch, validation included."""

    def steps_per_epoch(self, task: Any, configuration: Configuration) -> list[int]:
        """Optimizer steps of each epoch."""
        return [1] * configuration.training.epochs

    def slot_trainer(self, task: Any, slots: Slots) -> SlotTrainer:
        """What trains `slots` trials of this task at once; by default each trains by itself."""
        return SerialTrainer()

    def identity(self, section: BaseModel, *, seed: int, metric: Metric) -> str:
        """A hash of the data, the network, the study's seed and the metric: checkpoints of another task are foreign."""
        # the default metric is left out, as in releases that knew no other: their checkpoints stay usable
        judged = [] if metric == self.default_metric else [metric.name]
        text = json.dumps([self.identified(section), seed, *judged], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def identified(self, section: BaseModel) -> dict[str, Any]:
        """What of [task] goes into the identity."""
        return section.model_dump()

    # ------------------------------------------------------------ the study file

    def imports(self, section: Any) -> tuple[Import, ...]:
        """The keys of [task] that name code to import."""
        return ()

    def contradictions(self, spec: StudySpec) -> Iterable[Contradiction]:
        """What two or more keys say against each other, each of them being right by itself; reads no other file."""
        return ()

    def missing_files(self, section: Any) -> Iterable[Contradiction]:
        """What [task] names on this machine's disk and the disk does not hold."""
        return ()

    def complaints(self, configuration: Configuration) -> Iterable[str]:
        """What is impossible about one configuration, a line each: `training.KEY = VALUE: what is allowed`."""
        return ()

    # ------------------------------------------------------------ people

    def examine(self, section: Any) -> Examined:
        """What `doctor` says about the data; downloads nothing and imports no code of others. Raises DataError."""
        return Examined(f"kind {self.name}: not examined")

    def inventory(
        self, section: Any, *, seed: int, cache: Path | None = None, sample: int | None = None
    ) -> Inventory | None:
        """What the data hold by class and split; None for a kind without such a table.

        Verifies that test data can be read and fit, all of them or so many (`sample`), and shows no label of them to a
        model. `seed` is the study's; `cache` is as in `load`, and keeps what was verified. Downloads nothing and
        imports no code of others. Raises DataError.
        """
        return None

    def downloads(self, section: Any) -> bool:
        """Whether `run` would download data that are missing."""
        return False

    def caches(self, out: Path) -> Iterable[tuple[Path, str]]:
        """Files in an out folder that `load` makes again when needed, each with a few words for `gc`."""
        return ()

    def script(self, exported: Exported) -> str:
        """A Python script that trains an exported configuration without this package. Raises UsageError if there is
        none."""
        raise UsageError(f"task.kind = {self.name!r}: it has no script; export it as toml, json or yaml")
