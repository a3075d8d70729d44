"""Whether the faster training methods are as accurate: `python -m benchmarks.accuracy`, one table per case.

Every method trains the same seeds; the difference is each seed's accuracy minus that of its own float32 run by itself.
Accuracy is on the validation split after the last epoch; the interval is the report's paired test
(analysis.comparison) at 95%, in points. The test does not exclude a loss inside the interval.

by itself    float32, nothing compiled, one trial after the other
bfloat16     the same in bfloat16
compiled     the same through torch.compile
recorded     the same as a CUDA graph, only on a GPU
kernels      the same by this package's kernels, only on a CPU
fused        the same, SLOTS trials as one network; on a GPU recorded, on a CPU by kernels
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ralr_tune.analysis.comparison import paired_test
from ralr_tune.kinds.classification.kind import KIND
from ralr_tune.kinds.classification.sources import open_source
from ralr_tune.kinds.classification.task import ClassificationTask
from ralr_tune.models.registry import build
from ralr_tune.studyfile import Configuration, models
from ralr_tune.tasks.trial import Trial
from ralr_tune.training.fusion import FusedTrainer
from ralr_tune.training.start import start

SLOTS = 4
VALIDATION = 0.5
"""Large because accuracy is measured on it: 900 and 2,500 images."""
FLOAT32 = {"precision": "float32", "compile": "auto"}
BFLOAT16 = {"precision": "bfloat16", "compile": "auto"}
METHODS: dict[str, tuple[dict[str, Any], int]] = {
    "by itself": ({**FLOAT32, "compile": False}, 1),
    "bfloat16": ({**BFLOAT16, "compile": False}, 1),
    "compiled": ({**FLOAT32, "compile": True}, 1),
    "bfloat16, compiled": ({**BFLOAT16, "compile": True}, 1),
    "recorded": (FLOAT32, 1),
    "bfloat16, recorded": (BFLOAT16, 1),
    "kernels": (FLOAT32, 1),
    "bfloat16, kernels": (BFLOAT16, 1),
    "fused": (FLOAT32, SLOTS),
    "bfloat16, fused": (BFLOAT16, SLOTS),
}


@dataclass(frozen=True)
class Case:
    name: str
    data: dict[str, Any]
    model: str
    training: dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.accuracy", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--cifar", type=Path, help="cifar100.npz: 5,000 images of its first 20 classes are the second case"
    )
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--without", nargs="*", default=[], help="methods whose name contains one of these are left out"
    )
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {given.device}, {given.seeds} seeds")
    for case in cases(given.cifar):
        if given.only in case.name:
            measure(case, given.seeds, given.device, methods(given.device, given.without))


def cases(cifar: Path | None) -> list[Case]:
    found = [Case("digits, small_cnn", {"source": "digits"}, "small_cnn", {"epochs": 12, "batch_size": 64})]
    if cifar is not None:
        data = {"source": "arrays", "path": str(cifar), "classes": list(range(20)), "limit": 5000}
        found.append(Case("CIFAR-100, ResNet-20", data, "resnet20", {"epochs": 8, "batch_size": 64}))
    return found


def methods(device: str, without: Sequence[str]) -> dict[str, tuple[dict[str, Any], int]]:
    left_out = [*without, "recorded" if device == "cpu" else "kernels"]
    return {method: setting for method, setting in METHODS.items() if not any(part in method for part in left_out)}


def measure(case: Case, seeds: int, device: str, methods: Mapping[str, tuple[dict[str, Any], int]]) -> None:
    make = functools.partial(build, case.model)
    task = ClassificationTask(
        open_source(case.data),
        build=lambda classes, channels, size: make(classes=classes, channels=channels, size=size),
        validation=VALIDATION,
        seed=0,
        device=device,
        identity=case.name,
    )
    print(f"\n{case.name}, {task.size('train'):,} images, {case.training['epochs']} epochs\n")
    print("| | accuracy, mean (sd) | against by itself, 95% interval | largest difference of one seed |")
    print("|---|---|---|---|")
    base: list[float] = []
    for method, (training, slots) in methods.items():
        found = accuracies(task, configuration({**case.training, **training}), seeds, slots)
        print(f"| {method} | {_mean(found)} | {_against(found, base) if base else '|'} |", flush=True)
        base = base or found


def configuration(training: dict[str, Any]) -> Configuration:
    recipe = {"lr": 0.1, "options": {"momentum": 0.9, "nesterov": True}, "weight_decay": 5e-4, "augment": ["crop"]}
    schedule = {"name": "cosine"}
    return models.configuration(KIND).model_validate(
        {"training": {"optimizer": "sgd", **recipe, **training}, "schedule": schedule}
    )


def accuracies(task: ClassificationTask, configuration: Configuration, seeds: int, slots: int) -> list[float]:
    """In points, one per seed."""
    trials = [start(task, configuration, seed=seed) for seed in range(seeds)]
    for first in range(0, seeds, slots):
        train(FusedTrainer(task, slots), trials[first : first + slots])
    return [100 * trial.curve[-1].value for trial in trials]


def train(engine: FusedTrainer, trials: Sequence[Trial]) -> None:
    """Like a worker: one epoch of all trials, then each trial's own record of it."""
    running = [trial.epochs() for trial in trials]
    while not trials[0].finished:
        engine.train(trials)
        for records in running:
            next(records)


def _mean(found: Sequence[float]) -> str:
    return f"{statistics.mean(found):.1f}% ({statistics.stdev(found):.1f})"


def _against(found: Sequence[float], base: Sequence[float]) -> str:
    differences = [own - other for own, other in zip(found, base, strict=True)]
    tested = paired_test(differences, margin=0.0, confidence=0.95)
    low, high = tested.interval or (float("nan"), float("nan"))
    largest = max(differences, key=abs)
    return f"{tested.difference:+.2f} ({low:+.2f} to {high:+.2f}) | {largest:+.1f}"


if __name__ == "__main__":
    main()
