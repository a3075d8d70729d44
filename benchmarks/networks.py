"""The speed of each network: `python -m benchmarks.networks [--profile cpu-short]`; a row for each as it is measured.

A step is a batch drawn from images on the device, forward, backward and SGD with momentum; nothing is augmented. Every
variant trains in the precision that `auto` chooses; they take turns, and the fastest turn of each counts: CPU time on a
CPU, which other programs share, wall-clock time on a GPU. Random images, 100 classes. cpu-short takes 3 minutes on two
quiet cores. Columns:

images/s        of this package's trainer with what it chooses by itself
x plain         over a plain loop in torch, which gets normalised images, the fused optimizer, and the memory format in
                which it is faster (in brackets)
channels_last   over the other format, both without the next two
kernel          normalisation by this package's kernel (which needs channels_last), over torch's, in the format that is
                chosen; on a GPU recorded steps over eager ones
compile         over what is chosen by itself (and the seconds that the first step takes); empty: see --compile
slots 2         two trials as one network over one after the other; "-": this network cannot be fused
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from torch.nn import functional as F

from ralr_tune.kinds.classification.kind import KIND
from ralr_tune.kinds.classification.samples import Source, all_samples
from ralr_tune.kinds.classification.task import ClassificationTask
from ralr_tune.models.registry import build
from ralr_tune.studyfile import models
from ralr_tune.training.fusion import FusedTrainer, steps_alone
from ralr_tune.training.loop import TorchTrial
from ralr_tune.training.memory import free, keep_freed
from ralr_tune.training.precision import Precision
from ralr_tune.training.recording import WARM_UPS
from ralr_tune.training.slot import SlotEpoch

RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 1e-4
CLASSES = 100
COLUMNS = ("images/s", "x plain", "channels_last", "kernel", "compile", "slots 2")
Steps = Iterator[object]


class Network(NamedTuple):
    model: str
    batch_size: int
    """Of cpu-short: a step takes about 0.2 s of a core, that of the widest network 1 s."""
    size: int = 32


NETWORKS = (
    Network("resnet20", 32),
    Network("resnet56", 16),
    Network("resnet110", 8),
    Network("preresnet110", 8),
    Network("wrn_16_4", 8),
    Network("wrn_28_10", 2),
    Network("densenet_bc_40_12", 16),
    Network("densenet_bc_100_12", 8),
    Network("torchvision:resnet18", 16, size=64),
)


@dataclass(frozen=True)
class Profile:
    device: str
    turns: int
    steps: int = 1
    """Of a turn; on a GPU several, since waiting for each would count Python's time as the GPU's."""
    larger: int = 1
    """Factor of the batch sizes."""
    batch_size: int | None = None
    """Of all networks."""
    compiled: tuple[str, ...] = ()
    """Networks that are compiled too, which takes minutes for the deep ones."""

    def of(self, network: Network) -> int:
        return self.batch_size or self.larger * network.batch_size


PROFILES = {
    "cpu-short": Profile("cpu", turns=3),
    "cpu": Profile("cpu", turns=6, larger=4, compiled=("resnet20", "wrn_16_4")),
    "gpu": Profile("cuda", turns=10, steps=10, batch_size=128, compiled=("resnet20", "wrn_16_4", "wrn_28_10")),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.networks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profile", choices=PROFILES, default="cpu-short")
    parser.add_argument("--only", nargs="+", help="networks with these names")
    parser.add_argument("--compile", nargs="*", help="networks that are compiled too, instead of the profile's")
    given = parser.parse_args(arguments)
    profile = PROFILES[given.profile]
    to_compile = profile.compiled if given.compile is None else given.compile
    torch.set_num_threads(1)
    keep_freed()
    print(f"torch {torch.__version__}, {profile.device}, one thread, load {psutil.getloadavg()[0]:.0f}\n")
    print(f"| network | batch | precision | {' | '.join(COLUMNS)} |")
    print("|---" * (3 + len(COLUMNS)) + "|")
    for network in NETWORKS:
        if not given.only or network.model in given.only:
            setting = Setting(network, profile)
            print(_row(setting, measured(setting, network.model in to_compile)), flush=True)
            free()


class Setting:
    """A network with its data: what its variants have in common."""

    def __init__(self, network: Network, profile: Profile) -> None:
        self.network, self.profile, self.batch_size = network, profile, profile.of(network)
        steps = _warm_ups(profile) + profile.steps * profile.turns + 1  # the last batch may be smaller
        shape = steps * self.batch_size, 3, network.size, network.size
        pictures = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        samples = all_samples(np.arange(len(pictures)) % CLASSES, lambda rows: pictures[rows])
        classes = tuple(str(label) for label in range(CLASSES))
        self.task = ClassificationTask(
            Source(classes, samples, test=lambda: samples, validation=samples),
            build=lambda classes, channels, size: build(network.model, classes=classes, channels=channels, size=size),
            validation=0.0,
            seed=0,
            device=profile.device,
            identity=network.model,
        )

    def epoch(self, **training: Any) -> SlotEpoch:
        """A new trial's first; `training`: what the trainer must not choose by itself."""
        sgd = {"optimizer": "sgd", "lr": RATE, "options": {"momentum": MOMENTUM}, "weight_decay": WEIGHT_DECAY}
        configuration = models.configuration(KIND).model_validate(
            {"training": {**sgd, "epochs": 1, "batch_size": self.batch_size, **training}}
        )
        return SlotEpoch(TorchTrial(self.task, configuration, seed=0))

    @cached_property
    def precision(self) -> Precision:
        return self.epoch().state.precision


# ---------------------------------------------------------------- the variants


def trained(setting: Setting, **training: Any) -> Steps:
    """By this package's trainer."""
    epoch = setting.epoch(**training)
    return steps_alone(setting.task, epoch, epoch.state)


def plain(setting: Setting, memory_format: torch.memory_format) -> Steps:
    """By the loop that a user would write for speed, on batches that are ready."""
    device = setting.profile.device
    model = setting.task.build_model(0).to(memory_format=memory_format).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), RATE, MOMENTUM, weight_decay=WEIGHT_DECAY, fused=True)
    batches = setting.task.batches("train", seed=0, epoch=0, batch_size=setting.batch_size)
    ready = [(batch.images.contiguous(memory_format=memory_format), batch.labels) for batch in batches]
    for images, labels in ready:
        optimizer.zero_grad()
        with setting.precision.autocast(device):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        yield None


def fused(setting: Setting) -> Steps | None:
    """Two trials as one network; None if this network cannot be fused."""
    trainer = FusedTrainer(setting.task, 2)
    if not trainer._prepare():
        return None
    epoch = setting.epoch()
    return trainer._fused_slots([epoch] * 2, [epoch.fresh_state() for _ in range(2)]).steps()


def variants(setting: Setting, to_compile: bool) -> Iterator[tuple[str, Steps | None]]:
    yield "chosen", trained(setting)
    yield "plain", plain(setting, torch.contiguous_format)
    yield "plain, channels_last", plain(setting, torch.channels_last)
    yield "eager", trained(setting, compile=False, channels_last=False)
    yield "eager, channels_last", trained(setting, compile=False, channels_last=True)
    yield "compiled", trained(setting, compile=True) if to_compile else None
    yield "fused", fused(setting)


@dataclass
class Timed:
    """A variant as it is measured, in seconds."""

    steps: Steps
    start_s: float = 0.0
    """Wall-clock time of the first step, which compiles."""
    turn_s: float = math.inf
    """Of the fastest turn so far."""


def measured(setting: Setting, to_compile: bool) -> dict[str, Timed]:
    found = {name: Timed(steps) for name, steps in variants(setting, to_compile) if steps is not None}
    for timed in found.values():
        began = time.perf_counter()
        next(timed.steps)
        timed.start_s = time.perf_counter() - began
        for _ in range(_warm_ups(setting.profile) - 1):
            next(timed.steps)
    for _ in range(setting.profile.turns):
        for timed in found.values():
            timed.turn_s = min(timed.turn_s, _turn(timed.steps, setting.profile))
    return found


def _warm_ups(profile: Profile) -> int:
    return WARM_UPS + 2 if profile.device == "cuda" else 1  # a GPU's steps are then recorded


def _turn(steps: Steps, profile: Profile) -> float:
    clock = time.perf_counter if profile.device == "cuda" else time.process_time
    _wait(profile)
    began = clock()
    for _ in range(profile.steps):
        next(steps)
    _wait(profile)
    return clock() - began


def _wait(profile: Profile) -> None:
    if profile.device == "cuda":
        torch.cuda.synchronize()


# ---------------------------------------------------------------- the table


def _row(setting: Setting, found: dict[str, Timed]) -> str:
    turns = {name: timed.turn_s for name, timed in found.items()}
    alone = "eager, channels_last" if setting.precision.channels_last else "eager"
    fair = min(("plain", "plain, channels_last"), key=lambda name: turns[name])
    cells = [
        setting.network.model,
        f"{setting.batch_size} of {setting.network.size}x{setting.network.size}",
        setting.precision.name,
        f"{setting.batch_size * setting.profile.steps / turns['chosen']:.1f}",
        f"{turns[fair] / turns['chosen']:.2f} ({'channels_last' if fair != 'plain' else 'contiguous'})",
        f"{turns['eager'] / turns['eager, channels_last']:.2f}",
        f"{turns[alone] / turns['chosen']:.2f}",
        f"{turns['chosen'] / turns['compiled']:.2f} ({found['compiled'].start_s:.0f} s)" if "compiled" in turns else "",
        f"{2 * turns['chosen'] / turns['fused']:.2f}" if "fused" in turns else "-",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
