"""A study as read from its storage: plain frozen records, without SQL, torch or Optuna.

`store` fills them, `analysis` turns them into facts, and `report` shows the facts. The training loop passes the same
types (`EpochRecord`, `Outcome`) to the ledger.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ralr_tune.errors import FailureKind
from ralr_tune.metric import Metric

PAUSED = "paused: "
"""How the message of a row begins whose worker waits for the store of its artifacts."""

Stage = Literal["search", "audit", "choose", "judge", "test"]
"""`audit` trains some pruned trials of the search to their end; `status` shows it as "search". `choose` and `judge` are
the two parts of confirm; `status` shows both as "confirm"."""

Outcome = Literal["complete", "pruned", "diverged", "failed"]
State = Literal["free", "held", "done"]


@dataclass(frozen=True)
class EpochRecord:
    """One finished epoch of one trial."""

    epoch: int
    """Epochs done so far; the first record has 1."""
    value: float
    """The study's metric on the validation split after this epoch."""
    train_loss: float
    """Mean training loss over the epoch's images, with augmentation."""
    lr: float
    """Learning rate of the epoch's first step, amplification included."""
    factor: float
    """Amplification factor of the epoch's first step; 1.0 without amplification."""
    seconds: float
    """Wall seconds of the epoch, evaluation included."""
    others: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Further metrics on the validation split after this epoch, by name: those of `Kind.epoch_metrics`, and the study's
    without averaging if the weights are averaged. The database stores them as `MetricSeries`, and a trial that is read
    from it has none."""


MetricAxis = Literal["epoch", "step", "test"]
"""What the positions of a series count; "test": its only value is that of the test split, after so many epochs."""


@dataclass(frozen=True)
class MetricSeries:
    """A metric that a trial measured besides the study's: shown, never judged; the pruner may see it."""

    name: str
    axis: MetricAxis
    """What the positions count, from 1 or from the program's own first step."""
    every: int
    """Every how many-th value is kept; the last one always is."""
    points: tuple[tuple[int, float | None], ...]
    """Position and value, in order; None for a value that is not finite."""


def epoch_series(curve: Sequence[EpochRecord]) -> tuple[MetricSeries, ...]:
    """The further metrics of a curve's epochs, one series for each, by name."""
    names = sorted({name for record in curve for name in record.others})
    return tuple(MetricSeries(name, "epoch", 1, _points(curve, name)) for name in names)


def test_series(measured: Mapping[str, float], epochs: int) -> tuple[MetricSeries, ...]:
    """Further metrics on the test split, by name."""
    return tuple(
        MetricSeries(name, "test", 1, ((epochs, value if math.isfinite(value) else None),))
        for name, value in sorted(measured.items())
    )


def _points(curve: Sequence[EpochRecord], name: str) -> tuple[tuple[int, float | None], ...]:
    found = ((record.epoch, record.others[name]) for record in curve if name in record.others)
    return tuple((epoch, value if math.isfinite(value) else None) for epoch, value in found)


@dataclass(frozen=True)
class RateSweep:
    """One seed of a learning-rate range test: the training loss of every step while the rate grows."""

    seed: int
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    """The loss of the step at each rate, before the step changed the weights; not finite if it overflowed."""
    ended_early: bool
    """Whether the loss diverged, so that higher rates were not tried."""


@dataclass(frozen=True)
class Row:
    """One row of the ledger: one planned trial and its outcome."""

    id: int
    arm: str
    stage: Stage
    block: int
    ordinal: int
    role: str
    """"" in search and audit; in confirm "best" (the arm's own configuration), "twin" (its amplification off) or
    `amplified_role` (another arm's amplification added)."""
    source: int | None
    """In audit and confirm: the Optuna trial number (of block `block`) whose configuration this is."""
    seed: int
    params: Mapping[str, Any]
    """Searched parameters by Optuna name; in search, empty until Optuna is asked. Rows with an `amplified_role` also
    have all amplification parameters of the other arm."""
    trial: int | None
    """Optuna trial number in the study of (arm, block); None after the search."""
    state: State
    attempt: int
    owner: str | None
    outcome: Outcome | None
    failure: FailureKind | None
    """The kind of failure; `message` has the details."""
    message: str | None
    epoch: int
    """Epochs done, as last recorded by the owner."""
    value: float | None
    """Metric at the last epoch on the validation split (stage "test": on the test split)."""
    train_value: float | None
    """Metric at the end on a fixed part of the training split, without augmentation."""
    curve: tuple[EpochRecord, ...]
    """All epochs once done; values only while it runs."""
    seconds: float | None
    """Wall seconds of training, all attempts together."""
    started: float | None
    finished: float | None
    """Seconds since 1970, the database's clock."""
    metrics: tuple[MetricSeries, ...] = ()
    """What the trial measured besides the study's metric; known once done, if curves are read."""

    @property
    def paused(self) -> str | None:
        """Why the worker that holds the row waits; None if it trains."""
        waits = self.state == "held" and self.message is not None and self.message.startswith(PAUSED)
        return self.message if waits else None

    @property
    def part(self) -> str:
        """The role in one word, for display."""
        return self.role.partition("-")[0]


AMPLIFIED = "amplified-"
AMPLIFICATION = "amplify."
"""Prefix of the names of amplification parameters."""
OF_OPTIMIZER = "optimizers."
"""Prefix of the names of parameters that one of several optimizers uses in place of the shared ones: of
`optimizers.adamw.lr` in place of `lr`."""


def amplified_role(donor: str, block: int, trial: int) -> str:
    """The role of a configuration to which the amplification of trial `trial` of arm `donor` was added.

    It contains a digest, since a role is limited to 32 characters and arm names can be longer.
    """
    return AMPLIFIED + hashlib.sha256(f"{donor}/{block}/{trial}".encode(errors="backslashreplace")).hexdigest()[:12]


@dataclass(frozen=True)
class Incident:
    """A failure of one attempt of a row, whether or not the trial recovered."""

    row: int
    attempt: int
    kind: FailureKind
    message: str
    detail: str
    """The traceback; "" if there is none."""
    owner: str | None
    epoch: int
    """Epochs done before the failure."""
    time: float
    """Seconds since 1970, the database's clock."""


@dataclass(frozen=True)
class SplitInventory:
    """One split of a study's data."""

    name: str
    """"train", "validation" or "test"."""
    origin: str
    """Where it comes from, for display: a folder, an array, or a share of another split."""
    counts: tuple[int, ...]
    """Samples of each class, or the objects of each class in all samples, in the order of the inventory's classes."""
    listing: str | None = None
    """A hash of the names, sizes and modification times of the files that the split is read from; None if unknown."""
    digest: str | None = None
    """A hash of the contents and classes of all samples, in their order; None until the contents were read."""
    holders: tuple[int, ...] = ()
    """If samples hold objects: samples with an object of each class. Empty if a sample has one class."""
    samples: int | None = None
    """If samples hold objects: their number."""

    @property
    def total(self) -> int:
        """Number of samples."""
        return sum(self.counts) if self.samples is None else self.samples


@dataclass(frozen=True)
class Skipped:
    """Files, folders or arrays next to the data that are not part of them, counted by kind."""

    split: str
    """A split's name; "" if they belong to none."""
    group: str
    """The class; "" if they belong to none."""
    what: str
    """A suffix with its dot (".heic"), or a name."""
    why: str
    count: int


@dataclass(frozen=True)
class Duplicates:
    """Samples of the split `split` that equal, byte for byte, a sample of the split `of`."""

    split: str
    of: str
    count: int
    examples: tuple[tuple[str, str], ...]
    """A few pairs (in `split`, in `of`) by name."""


@dataclass(frozen=True)
class Inventory:
    """The contents of a study's data, as read: the table that `plan`, `doctor`, `run` and the report show.

    Plain values, so that it can be stored as JSON and compared with the inventory of a later start.
    """

    source: str
    """Kind and place of the data in a few words."""
    classes: tuple[str, ...]
    """In the order of the labels."""
    splits: tuple[SplitInventory, ...]
    """train, validation, test, without empty ones."""
    skipped: tuple[Skipped, ...] = ()
    duplicates: tuple[Duplicates, ...] | None = ()
    """Exact copies across splits; None if they were not searched for."""
    verified: int = 0
    """Number of test samples that were decoded to check that they can be. No model has seen their labels."""
    unit: str = "images"
    """Plural noun for the samples."""
    notes: tuple[str, ...] = ()
    """Further facts, one line each."""

    @property
    def class_count(self) -> str:
        """ "10 classes"; the name of the only one, such as two languages."""
        return self.classes[0] if len(self.classes) == 1 else f"{len(self.classes)} classes"

    def size(self, split: str) -> int:
        """Samples of the split of this name; 0 if there is none."""
        return sum(each.total for each in self.splits if each.name == split)


@dataclass(frozen=True)
class SourceFile:
    """A file besides the data on which trials depend: a module of the user's code, or pretrained weights."""

    key: str
    """The key of the study file that names it, e.g. "task.model"."""
    name: str
    """For display: "module my_networks", or a file name."""
    digests: tuple[str, ...] = ()
    """Hashes of its content. Two states are the same if they share one; none: not known yet."""


@dataclass(frozen=True)
class Identity:
    """What the trials of one generation read, and what they ran on."""

    data: Inventory | None = None
    """None for a kind of task without such a table."""
    files: tuple[SourceFile, ...] = ()
    versions: tuple[Mapping[str, str], ...] = ()
    """Versions of packages by name, and the type of device: each different set of the workers, once."""
    late: int = 0
    """Trials that had begun before this was recorded: an earlier release did not record it."""


@dataclass(frozen=True)
class Generation:
    """One state of the data and code of a study. Results of two generations are never pooled."""

    number: int
    """From 1."""
    created: float
    """Seconds since 1970, the database's clock."""
    identity: Identity | None
    """None until it is recorded."""
    trials: int = 0
    """Trials of all stages that have begun."""


@dataclass(frozen=True)
class StartTrial:
    """A search trial of an earlier study whose configuration a study tries first."""

    arm: str
    block: int
    trial: int
    """Its Optuna number in (arm, block)."""
    params: Mapping[str, Any]
    """The values that it trained with, of the parameters that the study searches."""


@dataclass(frozen=True)
class WarmStart:
    """What `search.start_from` took from an earlier study: configurations, and nothing that they scored."""

    study: str
    generation: int
    """Of the earlier study."""
    trials: tuple[StartTrial, ...]
    """In the order in which every arm tries them."""
    notes: tuple[str, ...] = ()
    """What differs between the two studies, and what was left out."""
    digest: str = ""
    """SHA-256 of all this: a resumed study starts from the same."""


@dataclass(frozen=True)
class ArmRecord:
    """One arm: its searched dimensions as {Optuna name: {"low", "high", "log", "step"} or {"choices"}}."""

    name: str
    dimensions: Mapping[str, Mapping[str, Any]]
    rows: tuple[Row, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    """All settings that the arm trains with, by Optuna name: fixed values, and searched ones as in `dimensions`."""

    def search(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.stage == "search")

    def stage(self, stage: Stage, role: str = "best") -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.stage == stage and row.role == role)


@dataclass(frozen=True)
class StudyRecord:
    """Everything that the storage has about one study."""

    name: str
    spec_text: str
    """The study file as stored."""
    fingerprint: str
    storage: str
    """URL with its password masked."""
    created: float
    environment: Mapping[str, str]
    """Versions and device of the first worker."""
    baseline: str
    """The arm that others are compared with."""
    metric: Metric
    margin: float
    """Differences below it count as equivalent, in the metric's own unit."""
    confidence: float
    """Confidence level of every interval, e.g. 0.95."""
    arms: Mapping[str, ArmRecord] = field(default_factory=dict)
    generations: tuple[Generation, ...] = ()
    """Oldest first; this record is of the last one."""
    prune_metric: Metric | None = None
    """What the pruner saw in place of the study's metric; None: the study's metric."""
    known_metrics: Mapping[str, Metric] = field(default_factory=dict)
    """By name, those of the kind of task; trials may measure others, too, of which nothing is known."""
    cost_per_hour: float | None = None
    """The price of one device for an hour, in the user's currency."""
    divided: bool = False
    """Whether one search was divided among the blocks: `search.trials` of the file are those of all blocks."""
    start: WarmStart | None = None
    """The earlier study's configurations that every arm tries first."""

    @property
    def identity(self) -> Identity | None:
        """What the trials read; None until it is recorded."""
        return self.generations[-1].identity if self.generations else None

    def rows(self) -> list[Row]:
        """The rows of all arms, in the order of planning."""
        return sorted((row for arm in self.arms.values() for row in arm.rows), key=lambda row: row.id)
