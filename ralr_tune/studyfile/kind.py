"""The interface of a kind of task: everything the rest of the program needs from one. A kind is a stateless object.

    study file   section, training, required, substitutes, metrics, metrics_of, epoch_metrics, imports, contradictions,
                 in_effect, missing, problems, notes, changes
    training     load, import_training, trial, trial_in_stage, slot_trainer, seconds_per_epoch, steps_per_epoch,
                 range_test, needs_torch
    reporting    packages, examine, examples, shown_examples, caches, script
    identity     identity, inventory, inventory_of, source_files

Code outside of a kind's folder never checks which kind it has. `registry` finds a kind by name.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel

from ralr_tune.errors import UsageError
from ralr_tune.metric import Metric
from ralr_tune.records import Inventory, RateSweep, SourceFile
from ralr_tune.tasks.slots import SerialTrainer

if TYPE_CHECKING:
    from ralr_tune.studyfile import Configuration, StudySpec
    from ralr_tune.studyfile.contradictions import Contradiction, Problem
    from ralr_tune.studyfile.exported import Exported
    from ralr_tune.studyfile.imports import Import
    from ralr_tune.tasks.base import Task
    from ralr_tune.tasks.examples import Examples
    from ralr_tune.tasks.slots import Slots, SlotTrainer
    from ralr_tune.tasks.trial import TrainingSplit, Trial, TrialStage


class NoKeys(BaseModel):
    """The `training` of a kind without own keys."""


@dataclass(frozen=True)
class TaskSummary:
    """What `doctor` reports about a task without training it."""

    found: str
    """A short description of the data."""
    weights: int = 0
    """Bytes of the network's weights; 0 if it has none or the size is unknown."""


Diverged = Callable[[Sequence[float]], bool]
"""Whether losses, of all steps so far, have diverged."""
Advance = Callable[[int], None]
"""Called with the number of steps done so far, from time to time."""


class RateSweeper(Protocol):
    """Trains one seed of a learning-rate range test."""

    def __call__(
        self,
        task: Any,
        configuration: Configuration,
        *,
        seed: int,
        rates: Sequence[float],
        diverged: Diverged,
        advance: Advance,
    ) -> RateSweep:
        """Trains a new network, one step at each rate, until the last one or until the loss has diverged.

        Optimizer, batch size and everything else are the configuration's, except its schedule, amplification and noise:
        `rates` take their place. Only the training split is used. Raises UsageError if network, optimizer or options
        do not fit, TrialError("oom") if memory runs out.
        """


class Kind(ABC):
    """One kind of task. The defaults suit a kind that trains without torch."""

    name: str
    """The value of `task.kind` in a study file."""
    metrics: Mapping[str, Metric]
    """Its metrics by name; the first is the default. Empty if [task] defines them (see `metrics_of`)."""
    section: type[BaseModel]
    """The model of [task], a `studyfile.sections.TaskSection`. Keys that may be searched are annotated as `Searchable`
    or `Choosable`; the parameter is called `task.KEY`."""
    training: type[BaseModel] = NoKeys
    """Its own keys of [training] with their defaults, annotated likewise; the task gets their values as `options`."""
    required: frozenset[str] = frozenset()
    """Required keys of [training], in addition to `epochs` and `lr`."""
    substitutes: Mapping[str, Any] = {}
    """Valid values of required keys of [task]: they replace wrong ones, so that the other keys can still be checked."""
    packages: tuple[str, ...] = ()
    """Distributions whose versions the report lists, in addition to those that every study needs."""
    needs_torch = False
    """Whether its workers import torch and use a share of a GPU."""
    changes: Mapping[tuple[str, ...], tuple[bool, str]] = {}
    """For changed keys of [task], by path below [task]: whether the change is applied to a study, and the reason."""

    def options(self, values: Mapping[str, Any]) -> Hashable:
        """The values of its own [training] keys in the form that its tasks expect. Hashable."""
        return self.training.model_validate(values)

    @property
    def default_metric(self) -> Metric:
        """The first of `metrics`; a kind whose [task] defines them has none."""
        return next(iter(self.metrics.values()))

    def metrics_of(self, section: Any) -> Mapping[str, Metric]:
        """The metrics of one [task] by name; the first is the default."""
        return self.metrics

    def epoch_metrics(self, section: Any, metric: Metric) -> Mapping[str, Metric]:
        """By name, what its trials measure after every epoch besides the study's `metric` (`EpochRecord.others`).

        `search.prune_metric` may name one of them.
        """
        return {}

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
        """The task that `section` describes; `section` is resolved: it has one value per key.

        `seed` is the study's, `device` torch's name ("cpu", "cuda:0"), `cache` a folder that all processes of an out
        folder share for what is expensive to prepare; None: nowhere. `like` is another task of the same study, whose
        data this one may share. Reads the training and validation data; of the test data nothing but, where there is
        a `cache`, what `inventory` verifies. Raises DataError or UsageError, naming field, value and what is allowed.
        """

    def import_training(self) -> None:
        """Imports what trials need. Workers call it before they claim a row, which would otherwise wait for it."""
        return

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
        """A trial of `configuration`, new or restored from the first usable checkpoint.

        `checkpoint`: the only file that this trial writes. `earlier`: checkpoints of earlier attempts, in order of
        preference. A damaged checkpoint, or one of another task, configuration, seed or split, is ignored with a
        warning in the log. Raises UsageError if network, optimizer or options do not fit, TrialError("oom") if the
        network does not fit into memory.
        """

    def trial_in_stage(
        self,
        task: Any,
        configuration: Configuration,
        *,
        stage: TrialStage,
        seed: int,
        checkpoint: Path | None = None,
        earlier: Sequence[Path] = (),
        split: TrainingSplit = "train",
    ) -> Trial:
        """`trial`, for a kind that tells the code it runs what the trial is for; by default it makes no difference."""
        return self.trial(task, configuration, seed=seed, checkpoint=checkpoint, earlier=earlier, split=split)

    @abstractmethod
    def seconds_per_epoch(self, task: Any, configuration: Configuration) -> float | None:
        """Estimated wall-clock seconds of one epoch, validation included; None if only its trials will show it."""

    def steps_per_epoch(self, task: Any, configuration: Configuration) -> list[int]:
        """Optimizer steps of each epoch."""
        return [1] * configuration.training.epochs

    def range_test(self) -> RateSweeper:
        """The function that trains one seed of a learning-rate range test. Raises UsageError if the kind has none."""
        raise UsageError(
            f"task.kind = {self.name!r}: has no learning-rate range test; allowed: kinds that train with torch"
        )

    def slot_trainer(self, task: Any, slots: Slots) -> SlotTrainer:
        """The trainer of `slots` concurrent trials of this task; by default each trial trains separately."""
        return SerialTrainer()

    def identity(self, section: BaseModel, *, seed: int, metric: Metric) -> str:
        """A hash of data, network, study seed and metric; checkpoints with another identity are not used."""
        # without the default metric, as in releases that had no other: their checkpoints stay usable
        judged = [] if metric == next(iter(self.metrics_of(section).values())) else [metric.name]
        text = json.dumps([self.identified(section), seed, *judged], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def identified(self, section: BaseModel) -> dict[str, Any]:
        """The part of [task] that goes into the identity."""
        return section.model_dump()

    # ------------------------------------------------------------ the study file

    def imports(self, section: Any) -> tuple[Import, ...]:
        """The keys of [task] that name code to import."""
        return ()

    def contradictions(self, spec: StudySpec) -> Iterable[Contradiction]:
        """Contradictions between keys that are each valid on their own; reads no other file."""
        return ()

    def in_effect(self, training: Mapping[str, Any]) -> Mapping[str, Any]:
        """[training] of one arm or trial without the kind's keys that have no effect in it; values may be domains.

        What is left out is not searched, and trials that train the same have the same configuration. By default every
        key has an effect."""
        return training

    def missing(self, section: Any) -> Iterable[Contradiction]:
        """What [task] names but does not exist: files and folders on this machine, networks of this package.

        Imports nothing heavy: every command that reads a study file calls it.
        """
        return ()

    def problems(self, spec: StudySpec, *, imports: bool = True, sample: int) -> Iterable[Problem]:
        """Everything in network and data that would stop `plan`, `run` or a worker, all at once, in their words.

        Tries every network of the study, and so many (`sample`) images or other items of each split. Downloads nothing,
        shows no test label to a model, and imports no code of the user unless `imports` is true.
        """
        return ()

    def notes(self, section: Any) -> Iterable[str]:
        """What users should know of [task] although nothing is wrong, one sentence each: `check` and `plan` show it."""
        return ()

    def complaints(self, configuration: Configuration) -> Iterable[str]:
        """Problems of one configuration, one line each: `training.KEY = VALUE: what is allowed`."""
        return ()

    # ------------------------------------------------------------ reporting

    def examine(self, section: Any) -> TaskSummary:
        """Information for `doctor`; downloads nothing and imports no third-party code. Raises DataError."""
        return TaskSummary(f"kind {self.name}: not examined")

    def examples(self, task: Any, trial: Any) -> Mapping[str, Any] | None:
        """What the report may show of a trained network, such as its outputs on some validation data; None: nothing.

        Called for one network of each arm, after its last epoch; it was trained on the train split, so that validation
        data are new to it. Test data are not used. The result consists of JSON values, and is kept as a file.
        """
        return None

    def shown_examples(self, section: Any, by_arm: Mapping[str, Mapping[str, Any]]) -> Examples | None:
        """What the report shows of all arms; `by_arm` holds what `examples` returned, the baseline first.

        The files may be damaged or of another release: raises DataError if they are not as expected. None: nothing.
        """
        return None

    def inventory(
        self,
        section: Any,
        *,
        seed: int,
        cache: Path | None = None,
        sample: int | None = None,
        contents: bool = False,
    ) -> Inventory | None:
        """What the data hold by class and split; None for a kind without such a table.

        Verifies that test data can be read and fit, all of them or so many (`sample`), and shows no label of them to a
        model. `contents`: all splits get the digests of their contents, which may have to be read; otherwise those
        that are known. `seed` is the study's; `cache` is as in `load`, and keeps what was verified. Downloads nothing
        and imports no code of others. Raises DataError.
        """
        return None

    def inventory_of(self, task: Any) -> Inventory | None:
        """The inventory of the data of a task that was loaded with a `cache`, with all digests.

        Workers compare it with the stored one before they claim a row. None for a kind without such a table.
        """
        return None

    def source_files(self, section: Any) -> Iterable[SourceFile]:
        """Files besides the data and the imported modules on which trials depend, such as pretrained weights."""
        return ()

    def downloads(self, section: Any) -> bool:
        """Whether `run` would download missing data."""
        return False

    def caches(self, out: Path) -> Iterable[tuple[Path, str]]:
        """Files in an out folder that `load` recreates when needed, each with a short description for `gc`."""
        return ()

    def script(self, exported: Exported) -> str:
        """A Python script that trains an exported configuration without this package.

        Raises UsageError if that is not supported.
        """
        raise UsageError(f"task.kind = {self.name!r}: has no script; export it as toml, json or yaml")


class StagedKind(Kind):
    """A kind whose trials depend on what they are for; mixed in before the other base."""

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
        """That of a training outside of a study."""
        return self.trial_in_stage(
            task, configuration, stage="train", seed=seed, checkpoint=checkpoint, earlier=earlier, split=split
        )

    @abstractmethod
    def trial_in_stage(
        self,
        task: Any,
        configuration: Configuration,
        *,
        stage: TrialStage,
        seed: int,
        checkpoint: Path | None = None,
        earlier: Sequence[Path] = (),
        split: TrainingSplit = "train",
    ) -> Trial:
        """See `Kind.trial` and `Kind.trial_in_stage`."""
