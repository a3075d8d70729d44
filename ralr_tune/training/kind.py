"""The base of the kinds that train a network with torch: everything except the data and the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ralr_tune.studyfile.kind import Kind, RateSweeper
from ralr_tune.tasks.slots import SerialTrainer

if TYPE_CHECKING:
    from ralr_tune.studyfile import Configuration, StudySpec
    from ralr_tune.studyfile.contradictions import Problem
    from ralr_tune.tasks.base import TorchTask
    from ralr_tune.tasks.slots import Slots, SlotTrainer
    from ralr_tune.tasks.trial import TrainingSplit, Trial


class TorchKind(Kind):
    """A kind whose tasks are `tasks.base.TorchTask`s."""

    required = frozenset({"batch_size"})
    packages: tuple[str, ...] = ("torch", "torchvision")
    needs_torch = True

    def problems(self, spec: StudySpec, *, imports: bool = True, sample: int) -> Iterator[Problem]:
        """Those of imported optimizers. A kind with problems of its own yields these too."""
        from ralr_tune.training.optimizer_problems import optimizer_problems

        if imports and spec.imported_optimizers:
            yield from optimizer_problems(spec)

    def import_training(self) -> None:
        import ralr_tune.training.start  # noqa: F401  (with torch._dynamo, which every optimizer imports: a second)

    def trial(
        self,
        task: TorchTask,
        configuration: Configuration,
        *,
        seed: int,
        checkpoint: Path | None = None,
        earlier: Sequence[Path] = (),
        split: TrainingSplit = "train",
    ) -> Trial:
        from ralr_tune.training.start import start

        return start(task, configuration, seed=seed, checkpoint=checkpoint, earlier=earlier, split=split)

    def seconds_per_epoch(self, task: TorchTask, configuration: Configuration) -> float:
        from ralr_tune.training.estimate import seconds_per_epoch

        return seconds_per_epoch(task, configuration)

    def steps_per_epoch(self, task: TorchTask, configuration: Configuration) -> list[int]:
        training = configuration.training
        return [task.steps("train", training.batch_size, epoch) for epoch in range(training.epochs)]

    def range_test(self) -> RateSweeper:
        from ralr_tune.training.range_test import sweep_rates

        return sweep_rates

    def slot_trainer(self, task: TorchTask, slots: Slots) -> SlotTrainer:
        if slots == 1:
            return SerialTrainer()
        from ralr_tune.training.fusion import FusedTrainer

        return FusedTrainer(task, slots)
