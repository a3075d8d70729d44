"""The contract between a task and whatever trains it. A batch is opaque to the trainer, its length aside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from ralr_tune.metric import Metric

if TYPE_CHECKING:
    from torch import Tensor, nn

Split = Literal["train", "validation", "train+validation", "test", "probe"]
"""`train` is without validation. `probe` is a fixed part of train, as large as validation where train allows it, for
the generalisation gap. `test` data are read when this split is first asked for, and not before."""

Autocast = Callable[[], "AbstractContextManager[object]"]
"""Makes the context in which the model is called: mixed precision, or nothing."""


class Batch(Protocol):
    """Samples that are learned from together."""

    def __len__(self) -> int:
        """Number of samples."""

    def split(self, parts: int) -> Sequence[Batch]:
        """The same samples, in the same order, in `parts` batches whose lengths differ by one at most.

        1 <= parts <= number of samples. Nothing is drawn for it: each sample stays as it was augmented.
        """

    def clone(self) -> Batch:
        """A copy in memory of its own."""

    def take(self, other: Any) -> None:
        """Overwritten, where it lies, by a batch of the same kind and size: a CUDA graph reads one place in memory."""


class Task(Protocol):
    """What every kind of task has."""

    @property
    def metric(self) -> Metric: ...

    @property
    def identity(self) -> str:
        """A hash of the data, the network and the study's seed: checkpoints of another task are foreign."""


class TorchTask(Task, Protocol):
    """A task that trains a network. Everything random is a pure function of the seed and epoch given."""

    @property
    def device(self) -> str:
        """torch's name of the device that batches lie on, and that models are moved to."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample as the model sees it; images: (C, H, W)."""

    @property
    def evaluation_batch(self) -> int:
        """Number of samples that `evaluate` takes at once where it is not told otherwise."""

    def build_model(self, seed: int) -> nn.Module:
        """A new network on the CPU, its weights drawn from `seed` alone. Raises UsageError when it does not fit the
        data."""

    def steps(self, split: Split, batch_size: int) -> int:
        """Number of batches that `batches` gives."""

    def batches(
        self, split: Split, *, seed: int, epoch: int, batch_size: int, augment: Sequence[str] = ()
    ) -> Iterator[Batch]:
        """Every sample of the split once, in the order of (seed, epoch).

        Raises UsageError, at once, on an unknown augmentation.
        """

    def loss(self, model: nn.Module, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
        """Mean loss over the batch, a float32 scalar to call `backward` on."""

    def evaluate(
        self, model: nn.Module, split: Split, *, batch_size: int | None = None, autocast: Autocast | None = None
    ) -> float:
        """The metric over the whole split, the model in evaluation mode; NaN where its outputs are not finite."""


class FusedBatch(Batch, Protocol):
    """Images of K trials side by side."""

    @property
    def images(self) -> Tensor:
        """(N, K * C, H, W) float32."""


@runtime_checkable
class FusedTask(TorchTask, Protocol):
    """A task whose batches can lie side by side, for several trials that train as one network."""

    def fused_batches(
        self, split: Split, *, lanes: Sequence[tuple[int, int]], batch_size: int, augment: Sequence[str] = ()
    ) -> Iterator[FusedBatch]:
        """The batches of K trials, each as its own (seed, epoch) gives them: images (N, K * C, H, W), slot by slot.

        Labels are (N, K) or, of mixed images, (N, K, classes).
        """

    def fused_losses(self, outputs: Tensor, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
        """Mean loss of every slot, float32 (K,), of outputs (N, K, classes)."""

    def fused_evaluate(
        self, network: Callable[[Tensor], Tensor], split: Split, *, slots: int, autocast: Autocast
    ) -> list[float]:
        """As `evaluate`, of K slots: `network` maps images (N, K * C, H, W), the same ones for every slot, to outputs
        (N, K, classes), and is in evaluation mode."""
