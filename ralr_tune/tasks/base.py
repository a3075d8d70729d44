"""The contract between a task and its trainer. The trainer sees of a batch only what `Batch` declares."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ralr_tune.metric import Metric

if TYPE_CHECKING:
    from torch import Tensor, nn

Split = Literal["train", "validation", "train+validation", "test", "probe"]
"""`train` excludes validation. `probe` is a fixed part of train for the generalisation gap, as large as validation if
train is large enough. `test` data are read only when this split is first requested."""

Autocast = Callable[[], "AbstractContextManager[object]"]
"""Creates the context in which the model is called: mixed precision, or a null context."""


@dataclass(frozen=True)
class Capabilities:
    """What a torch task guarantees about its steps, so that the trainer need not guess.

    The defaults guarantee nothing: steps run as plain Python, one trial at a time, and the gap is measured on the
    probe.
    """

    static_steps: bool = False
    """`loss` and `evaluate` call the network as `model(inputs)` -> outputs and run the same operations in every step:
    no control flow that depends on the data, no numbers from Python's or numpy's generator. Otherwise no step is
    recorded as a CUDA graph or compiled, and the network is not rewritten for this package's kernels.

    The task guarantees this for its own code and for how it calls the network. Modules that this project does not know
    are checked separately (see training.recording)."""
    static_shapes: bool = False
    """Batches with equal numbers of samples have tensors of equal shapes and dtypes. Otherwise nothing is recorded or
    compiled: both are made for one shape, and cost more than they gain when it seldom recurs."""
    fusable: bool = False
    """The task has the methods of FusedTask: several trials may train as one network."""
    matrix_products: bool = False
    """Most of a step's work is products of matrices, as in a Transformer: on CPUs with fast bfloat16,
    `training.precision = "auto"` then chooses it for samples that are no images, too."""
    measures: bool = False
    """The task has the method of MeasuringTask: further metrics of every epoch."""
    gap_split: Split | None = "probe"
    """The split on which a trained network is evaluated for the generalisation gap; None: not at all (it may be
    expensive)."""

    evaluate_every: int = 1
    """Epochs between two evaluations on the validation split, which may take as long as an epoch. Only evaluated epochs
    have a record; the last one always is evaluated."""

    @property
    def may_record(self) -> bool:
        """Whether steps may be recorded as CUDA graphs or compiled."""
        return self.static_steps and self.static_shapes


class Batch(Protocol):
    """The samples of one training step."""

    def __len__(self) -> int:
        """Number of samples: the units into which a batch can be split when memory runs out."""

    @property
    def weight(self) -> float:
        """The weight of the batch's mean loss in the mean loss of an epoch, above 0: the number by which its sum of
        losses was divided.

        Samples, boxes or non-pad tokens. `loss * weight` is additive: summed over the parts of `split` it equals that
        of the whole batch, so that micro-batches give the whole batch's gradient. A loss divided by max(1, boxes) has
        the weight max(1, boxes).
        """

    @property
    def signature(self) -> Hashable:
        """Shapes and dtypes of all tensors (see `tensor_signature`): a recorded step is replayed only on a batch whose
        signature equals that of the recorded one."""

    def split(self, parts: int) -> Sequence[Batch]:
        """The same samples, in the same order, in `parts` batches whose lengths differ by at most one.

        1 <= parts <= number of samples. No random numbers are drawn: each sample stays as it was augmented.
        """

    def clone(self) -> Batch:
        """A copy with its own memory."""

    def take(self, other: Any) -> None:
        """Copies a batch with the same signature into this one in place: a CUDA graph reads fixed addresses."""


def tensor_signature(*tensors: Tensor) -> Hashable:
    """Shape and dtype of each tensor, for `Batch.signature`."""
    return tuple((tuple(tensor.shape), tensor.dtype) for tensor in tensors)


class AccumulatedBatch(Batch, Protocol):
    """A batch that is processed in parts in any case, for example because they have different shapes."""

    def accumulated(self) -> Sequence[Batch]:
        """The parts, whose gradients are added up before the optimizer's one step; their weights add up to this
        batch's."""


class Task(Protocol):
    """What tasks of every kind have."""

    @property
    def metric(self) -> Metric: ...

    @property
    def identity(self) -> str:
        """A hash of the data, the network and the study's seed: a checkpoint of another task is not used."""


class TorchTask(Task, Protocol):
    """A task that trains a network. Everything random is a pure function of the given seed and epoch.

    `options` are the values of the kind's own training keys in one configuration (`Configuration.options`): hashable,
    opaque to the trainer, which only passes them on. Trials that train as one network have equal options.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What the task guarantees; by default nothing."""
        return Capabilities()

    @property
    def device(self) -> str:
        """torch's name of the device of the batches, to which models are moved."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample as the model gets it; images: (C, H, W). If sizes vary: of a typical sample, or ()."""

    @property
    def evaluation_batch(self) -> int:
        """The default batch size of `evaluate`."""

    def build_model(self, seed: int) -> nn.Module:
        """A new network on the CPU, its weights drawn from `seed` alone. Raises UsageError if it does not fit the
        data."""

    def size(self, split: Split) -> int:
        """Number of samples of a split. Reads the split's data now."""

    def steps(self, split: Split, batch_size: int, epoch: int = 0, *, seed: int = 0) -> int:
        """Number of batches that `batches` yields for the same arguments, at least 1. It may differ between epochs and
        between seeds, for example with batches by length."""

    def batches(self, split: Split, *, seed: int, epoch: int, batch_size: int, options: Hashable) -> Iterator[Batch]:
        """Every sample of the split once, in the order of (seed, epoch).

        Raises UsageError, immediately, for impossible options.
        """

    def loss(self, model: nn.Module, batch: Batch, *, options: Hashable) -> Tensor:
        """Mean loss over what the batch's weight counts, a float32 scalar with a gradient."""

    def evaluate(
        self, model: nn.Module, split: Split, *, batch_size: int | None = None, autocast: Autocast | None = None
    ) -> float:
        """The metric over the whole split, the model in evaluation mode; NaN if its outputs are not finite."""


class MeasuringTask(TorchTask, Protocol):
    """A task that measures more than the study's metric: on the test split, and after every epoch if it declares
    `Capabilities.measures`."""

    def measure(
        self, model: nn.Module, split: Split, *, batch_size: int | None = None, autocast: Autocast | None = None
    ) -> Mapping[str, float]:
        """As `evaluate`, by name: the study's metric, those that `Kind.epoch_metrics` lists, and any others."""


class FusedBatch(Batch, Protocol):
    """Images of K trials, concatenated along the channels."""

    @property
    def images(self) -> Tensor:
        """(N, K * C, H, W) float32."""


class FusedTask(TorchTask, Protocol):
    """A task whose batches can be concatenated, so that several trials train as one network.

    A task that declares `Capabilities.fusable` must implement it. Every slot holds one trial.
    """

    def fused_batches(
        self, split: Split, *, slot_epochs: Sequence[tuple[int, int]], batch_size: int, options: Hashable
    ) -> Iterator[FusedBatch]:
        """The batches of K slots, each determined by its own (seed, epoch): images (N, K * C, H, W), slot by slot.

        Labels are (N, K) or, for mixed images, (N, K, classes). The weight of a batch is that of each slot.
        """

    def fused_losses(self, outputs: Tensor, batch: Batch, *, options: Hashable) -> Tensor:
        """Mean loss of every slot, float32 (K,), from outputs (N, K, classes)."""

    def fused_evaluate(
        self, network: Callable[[Tensor], Tensor], split: Split, *, slots: int, autocast: Autocast
    ) -> list[float]:
        """`evaluate` for K slots: `network` maps images (N, K * C, H, W), the same for every slot, to outputs
        (N, K, classes), and is in evaluation mode."""
