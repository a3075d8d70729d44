"""The contract between a task and what trains it. A batch is opaque to the trainer, apart from `Batch`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ralr_tune.metric import Metric

if TYPE_CHECKING:
    from torch import Tensor, nn

Split = Literal["train", "validation", "train+validation", "test", "probe"]
"""`train` is without validation. `probe` is a fixed part of train, as large as validation where train allows it, for
the generalisation gap. `test` data are read when this split is first asked for, and not before."""

Autocast = Callable[[], "AbstractContextManager[object]"]
"""Makes the context in which the model is called: mixed precision, or nothing."""


@dataclass(frozen=True)
class Capabilities:
    """What a torch task promises about its steps, so that the trainer guesses nothing.

    The defaults promise nothing: steps are run as plain Python, one trial at a time, and the gap is measured on the
    probe.
    """

    static_steps: bool = False
    """`loss` and `evaluate` call the network in the plain way, `model(inputs)` -> outputs, and run the same operations
    in every step: no control flow that depends on the data, no numbers from Python's or numpy's generator. Without it,
    no step is recorded as a CUDA graph or compiled, and the network is not rewritten for this package's kernels.

    The task speaks for its own code and for how it calls the network. Modules that this project does not know are
    checked in addition (see training.recording)."""
    static_shapes: bool = False
    """Batches with equal numbers of samples have tensors of equal shapes and dtypes. Without it, nothing is recorded or
    compiled: both are made for one shape, and cost more than they give when it seldom returns."""
    fusable: bool = False
    """The task has the methods of FusedTask: several trials may train as one network."""
    gap_split: Split | None = "probe"
    """Where a trained network is evaluated for the generalisation gap; None: nowhere (it may be expensive)."""

    @property
    def may_record(self) -> bool:
        """Whether steps may be recorded as CUDA graphs or compiled."""
        return self.static_steps and self.static_shapes


class Batch(Protocol):
    """Samples that are learned from together."""

    def __len__(self) -> int:
        """Number of samples: what can be learned from one at a time when memory runs out."""

    @property
    def weight(self) -> float:
        """What the batch's mean loss counts for in the mean loss of an epoch, above 0: the number that its sum of
        losses was divided by.

        Samples, boxes or non-pad tokens. `loss * weight` adds up: over the parts of `split` it gives that of the whole
        batch, so that micro-batches give the whole batch's gradient. A loss divided by max(1, boxes) has the weight
        max(1, boxes).
        """

    @property
    def signature(self) -> Hashable:
        """Shapes and dtypes of all tensors (see `tensor_signature`): a recorded step is replayed only on a batch whose
        signature equals that of the recorded one."""

    def split(self, parts: int) -> Sequence[Batch]:
        """The same samples, in the same order, in `parts` batches whose lengths differ by one at most.

        1 <= parts <= number of samples. Nothing is drawn for it: each sample stays as it was augmented.
        """

    def clone(self) -> Batch:
        """A copy in memory of its own."""

    def take(self, other: Any) -> None:
        """Overwritten in place by a batch with the same signature: a CUDA graph reads one place in memory."""


def tensor_signature(*tensors: Tensor) -> Hashable:
    """Shape and dtype of each tensor, for `Batch.signature`."""
    return tuple((tuple(tensor.shape), tensor.dtype) for tensor in tensors)


class Task(Protocol):
    """What every kind of task has."""

    @property
    def metric(self) -> Metric: ...

    @property
    def identity(self) -> str:
        """A hash of the data, the network and the study's seed: checkpoints of another task are foreign."""


class TorchTask(Task, Protocol):
    """A task that trains a network. Everything random is a pure function of the seed and epoch given.

    `options` are the kind's own training keys with every search settled (`Configuration.options`): hashable, opaque to
    the trainer, which only passes them on. Trials that train as one network have equal options.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What the task promises; a class that inherits from this one and says nothing promises nothing."""
        return Capabilities()

    @property
    def device(self) -> str:
        """torch's name of the device that batches lie on, and that models are moved to."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample as the model sees it; images: (C, H, W). Sizes that vary are left out: ()."""

    @property
    def evaluation_batch(self) -> int:
        """Number of samples that `evaluate` takes at once where it is not told otherwise."""

    def build_model(self, seed: int) -> nn.Module:
        """A new network on the CPU, its weights drawn from `seed` alone. Raises UsageError when it does not fit the
        data."""

    def size(self, split: Split) -> int:
        """Number of samples of a split, whose data are read now."""

    def steps(self, split: Split, batch_size: int, epoch: int = 0, *, seed: int = 0) -> int:
        """Number of batches that `batches` gives for the same arguments, at least 1. It may differ from epoch to
        epoch and from seed to seed, as with batches by length."""

    def batches(self, split: Split, *, seed: int, epoch: int, batch_size: int, options: Hashable) -> Iterator[Batch]:
        """Every sample of the split once, in the order of (seed, epoch).

        Raises UsageError, immediately, on options that are impossible.
        """

    def loss(self, model: nn.Module, batch: Batch, *, options: Hashable) -> Tensor:
        """Mean loss over what the batch's weight counts, a float32 scalar to call `backward` on."""

    def evaluate(
        self, model: nn.Module, split: Split, *, batch_size: int | None = None, autocast: Autocast | None = None
    ) -> float:
        """The metric over the whole split, the model in evaluation mode; NaN where its outputs are not finite."""


class FusedBatch(Batch, Protocol):
    """Images of K trials side by side."""

    @property
    def images(self) -> Tensor:
        """(N, K * C, H, W) float32."""


class FusedTask(TorchTask, Protocol):
    """A task whose batches can lie side by side, for several trials that train as one network.

    What a task must have that declares `Capabilities.fusable`. Every slot holds one trial.
    """

    def fused_batches(
        self, split: Split, *, slot_epochs: Sequence[tuple[int, int]], batch_size: int, options: Hashable
    ) -> Iterator[FusedBatch]:
        """The batches of K slots, each as its own (seed, epoch) gives them: images (N, K * C, H, W), slot by slot.

        Labels are (N, K) or, of mixed images, (N, K, classes). The weight of a batch is that of each slot.
        """

    def fused_losses(self, outputs: Tensor, batch: Batch, *, options: Hashable) -> Tensor:
        """Mean loss of every slot, float32 (K,), of outputs (N, K, classes)."""

    def fused_evaluate(
        self, network: Callable[[Tensor], Tensor], split: Split, *, slots: int, autocast: Autocast
    ) -> list[float]:
        """As `evaluate`, of K slots: `network` maps images (N, K * C, H, W), the same ones for every slot, to outputs
        (N, K, classes), and is in evaluation mode."""
