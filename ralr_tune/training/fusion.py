"""Several trials in training at once, as one batched program: K slots, each with a trial's own numbers.

Between two epochs every trial is where it would be by itself: its network, its optimizer and its checkpoint are its
own, so any slot may end, begin or go on elsewhere at any epoch's end. An epoch begins with stacking the networks and
ends with handing them back; where it fails in between, no trial has changed, and each trains the epoch by itself.

Order, augmentation, mixing and dropout (before a linear layer, on a CPU) are what the trial draws by itself. Sums are
not: grouped convolutions add in another order, and curves drift apart as those of two machines do.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import cast

import psutil
import torch
from torch import Generator, Tensor

from ralr_tune.machine.sharing import free_on, is_cuda, is_shared
from ralr_tune.seeds import derive_seed
from ralr_tune.tasks.base import Batch, FusedBatch, FusedTask, Split, Task
from ralr_tune.training.base import WATCHED, Trial
from ralr_tune.training.fused import FusedNetwork, Stack, Unfusable, check
from ralr_tune.training.fused_optimizer import FusedOptimizer
from ralr_tune.training.learner import Learner
from ralr_tune.training.loop import TorchTrial
from ralr_tune.training.memory import Exhausted, free, within_memory
from ralr_tune.training.recording import WARM_UPS, Recorder
from ralr_tune.training.together import Slots

logger = logging.getLogger(__name__)

WORTHWHILE = 1.25
"""How many times as fast as one trial after the other the best width must be; else the worker stays serial (ours)."""

BETTER = 1.1
"""How many times as fast as the best narrower one a width must be (ours)."""

WIDTHS = (2, 4, 8, 16, 32)

SHARE_OF_WAITING = 1 / 8
"""Of the rows that wait, slots of "auto" at most (ours): the sampler and the pruner learn from trials that are over."""

TIMED_STEPS = 4
"""The fastest counts: the first warms up, and other programs may disturb. So many are timed once steps are recorded."""

SHARE_OF_MEMORY = 0.5
"""Of the memory that this process can still take, that twice a width may take if it shall be tried."""


class Fusion:
    """A Together (see training.together) of torch tasks: trials that agree in all but numbers fit into one batch."""

    def __init__(self, task: Task, slots: Slots) -> None:
        """`slots`: how many trials at once; "auto" is settled by `settle`."""
        self._task = cast(FusedTask, task)  # what is none has no trial with a `fusion_key`
        self.slots = 1 if slots == "auto" else slots
        self._network: FusedNetwork | None = None
        self._batched: _Batched | None = None
        self._kind: object = None
        self._settled, self._prepared = slots != "auto", False

    def settle(self, trial: Trial, waiting: Callable[[], int]) -> None:
        if self._settled:
            return
        self._settled = True
        most = min(WIDTHS[-1], int(waiting() * SHARE_OF_WAITING))
        if most < 2 or not isinstance(trial, TorchTrial) or trial.fusion_key() is None or not self._prepare():
            return
        found = within_memory(lambda: self._fastest(trial, most))
        self.slots = 1 if isinstance(found, Exhausted) else found
        free()

    def train(self, trials: Sequence[Trial]) -> None:
        groups: dict[object, list[TorchTrial]] = defaultdict(list)
        for trial in trials:
            if isinstance(trial, TorchTrial) and (key := trial.fusion_key()) is not None:
                groups[key].append(trial)
        for group in groups.values():
            for first in range(0, len(group), self.slots):
                self._train(group[first : first + self.slots])

    def _train(self, trials: Sequence[TorchTrial]) -> None:
        if len(trials) < 2 or not self._prepare():
            return
        began = time.perf_counter()
        found = within_memory(lambda: self._epoch(trials))
        if isinstance(found, Exhausted):
            # fewer at once, still recorded: four so took 1.14 ms a network's step on an H100, eight not recorded 2.00
            self._batched, self.slots = None, len(trials) // 2
            logger.warning("%d trials at once have no room: %d from now on: %s", len(trials), self.slots, found.reason)
            free()
            return
        seconds = (time.perf_counter() - began) / len(trials)
        for trial, loss, value in zip(trials, *found, strict=True):
            trial.take_epoch(loss, value, seconds)

    def _epoch(self, trials: Sequence[TorchTrial]) -> tuple[list[float], list[float]]:
        """The mean loss and the metric of each; the trials' learners then stand at the epoch's end."""
        learners = [trial.learner for trial in trials]
        kind = len(trials), trials[0].fusion_key()
        if self._batched is None or kind != self._kind:
            self._batched = None  # what it held is free for the new one
            self._batched, self._kind = self._batch(trials, learners), kind
        else:
            self._batched.take(trials, learners)
        losses, values = self._batched.train(), self._batched.evaluate(WATCHED[trials[0].split])
        self._batched.hand_back(learners)
        return losses, values

    def _prepare(self) -> bool:
        """Whether this task's network can be fused; looked at once, and the log says why not."""
        if self._prepared:
            return self._network is not None
        self._prepared = True
        try:
            with torch.random.fork_rng(devices=[]):
                check([self._task.build_model(seed) for seed in (0, 1, 2)], self._task.input_shape)
                self._network = FusedNetwork(self._task.build_model(0))
        except Unfusable as reason:
            logger.info("one trial at a time: this network cannot be fused: %s%s", reason, _instead(self._task.device))
            self.slots = 1
            return False
        return True

    def _fastest(self, trial: TorchTrial, most: int) -> int:
        """The width beyond which a trial's step gets no shorter; 1 where no width is worth it."""
        serial, best, speeds = self._seconds(trial, 1), 1, {1: 1.0}
        held = _held(self._task.device)
        for width in WIDTHS[: most.bit_length() - 1]:
            speeds[width] = serial / self._seconds(trial, width)
            logger.info("%d trials at once: %.2f times the speed of one after the other", width, speeds[width])
            if speeds[width] >= BETTER * speeds[best]:
                best = width
            elif width > 2 or speeds[width] < 1:  # two may be too few to gain by, and four not
                break
            if 2 * (_held(self._task.device) - held) > SHARE_OF_MEMORY * free_on(self._task.device):
                break
        best = best if speeds[best] >= WORTHWHILE else 1
        logger.info("%s", f"{best} trials at once" if best > 1 else "one trial at a time: more at once are no faster")
        return best

    def _seconds(self, trial: TorchTrial, slots: int) -> float:
        """Of one trial's share of a step, on networks that are thrown away."""
        learners = [trial.new_learner() for _ in range(slots)]
        if slots == 1:
            return _shortest(_alone(self._task, trial, learners[0]), self._task.device)
        return _shortest(self._batch([trial] * slots, learners).steps(), self._task.device) / slots

    def _batch(self, trials: Sequence[TorchTrial], learners: Sequence[Learner]) -> _Batched:
        assert self._network is not None
        return _Batched(self._task, self._network, trials, learners)


class _Batched:
    """K trials of one kind, epoch by epoch; others may take their places."""

    def __init__(
        self, task: FusedTask, network: FusedNetwork, trials: Sequence[TorchTrial], learners: Sequence[Learner]
    ) -> None:
        self._task, self._network, self._training = task, network, trials[0].training
        self._precision, self._kernels = learners[0].precision, learners[0].kernels
        self._stack = Stack([learner.model for learner in learners])
        self._stack.generators = [Generator(task.device) for _ in trials]
        self._optimizer = FusedOptimizer(self._stack, learners, [trial.training for trial in trials])
        self._rate = torch.zeros(len(trials), 1, device=task.device)
        self._recorder = Recorder(task.device, self._stack.generators) if learners[0].recorded else None
        self._begin(trials)

    def take(self, trials: Sequence[TorchTrial], learners: Sequence[Learner]) -> None:
        """The next epoch is of these, as many and of the same kind."""
        self._stack.take([learner.model for learner in learners])
        self._optimizer.take(learners, [trial.training for trial in trials])
        self._begin(trials)

    def _begin(self, trials: Sequence[TorchTrial]) -> None:
        lanes = [trial.lane for trial in trials]
        for generator, (seed, epoch) in zip(self._stack.generators, lanes, strict=True):
            generator.manual_seed(derive_seed("dropout", seed, epoch))
        self._batches = self._task.fused_batches(
            trials[0].split, lanes=lanes, batch_size=self._training.batch_size, augment=self._training.augment
        )
        rates = torch.stack([torch.from_numpy(trial.rates()) for trial in trials], dim=1)
        self._rates = rates.to(self._task.device, torch.float32)[:, :, None]  # (steps, K, 1)
        self._total, self._samples = torch.zeros(len(trials), device=self._task.device), 0

    def train(self) -> list[float]:
        """Mean loss of each trial over its samples; read once, at the end."""
        for _ in self.steps():
            pass
        return (self._total / self._samples).tolist()

    def steps(self) -> Iterator[None]:
        """A step each."""
        for batch, rates in zip(self._batches, self._rates, strict=True):
            self._rate.copy_(rates)
            losses = self._recorder(self._step, batch) if self._recorder else self._step(batch)
            self._total += losses * len(batch)
            self._samples += len(batch)
            yield

    def _step(self, batch: Batch) -> Tensor:
        """The mean loss of each trial, (K,)."""
        self._stack.weights.grad = None  # of a recording that failed half way
        with self._autocast():
            outputs = self._outputs(cast(FusedBatch, batch).images)
        losses = self._task.fused_losses(outputs, batch, label_smoothing=self._training.label_smoothing)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step(self._rate)
        return losses.detach()

    def evaluate(self, split: Split) -> list[float]:
        """The metric of each trial over the whole split; NaN where its outputs are not finite."""
        network = partial(self._outputs, training=False)
        return self._task.fused_evaluate(network, split, slots=self._stack.slots, autocast=self._autocast)

    def _outputs(self, images: Tensor, *, training: bool = True) -> Tensor:
        """Images (N, K * C, H, W) to (N, K, classes)."""
        # in this order a convolution's groups lie side by side: 1.3 to 1.8 times as fast as in the other
        images = images.contiguous(memory_format=torch.channels_last)
        return self._network(self._stack, images, training=training, kernels=self._kernels)

    def _autocast(self) -> AbstractContextManager[object]:
        return self._precision.autocast(self._task.device)

    def hand_back(self, learners: Sequence[Learner]) -> None:
        self._stack.hand_out([learner.model for learner in learners])
        self._optimizer.hand_back(learners)


def _alone(task: FusedTask, trial: TorchTrial, learner: Learner) -> Iterator[None]:
    """The steps of one trial by itself."""
    (seed, epoch), training = trial.lane, trial.training
    batches = task.batches(
        trial.split, seed=seed, epoch=epoch, batch_size=training.batch_size, augment=training.augment
    )
    for batch in batches:
        learner.step(batch, training.lr, None)
        yield


def _shortest(steps: Iterator[None], device: str) -> float:
    """Seconds of the fastest of a few steps: of the clock on a GPU, of the cores on a CPU, which others share."""
    cuda = is_cuda(device)
    clock = time.perf_counter if cuda else time.process_time
    seconds = []
    for _ in range(TIMED_STEPS + WARM_UPS):
        began = clock()
        if next(steps, steps) is steps:
            break
        if cuda:
            torch.cuda.synchronize(device)
        seconds.append(clock() - began)
    return min(seconds)


def _instead(device: str) -> str:
    """What trains several trials at once on a GPU that one process has to itself."""
    alone = is_cuda(device) and not is_shared(device)
    return f"; `run --workers N` puts N processes on {device}, each with an equal share of its memory" if alone else ""


def _held(device: str) -> int:
    """Bytes that this process holds on the device, or has held."""
    if is_cuda(device):
        return torch.cuda.max_memory_reserved(device)
    return int(psutil.Process().memory_info().rss)
