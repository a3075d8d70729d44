"""What checkpoints cost: `python benchmarks/checkpoints.py` prints a table (two to five minutes, one thread).

epoch    estimated as `plan` does, from a few timed steps of the whole data set; 32x32: 45,000 images of noise, as many
         as CIFAR's 50,000 minus a tenth for validation
save     one checkpoint, everything included (copy out of the optimizer, digest, write, rename); median of REPEATS
fsync    the additional time to wait until the file is on disk; median of REPEATS
resume   a trial from a checkpoint minus a trial from scratch; median of REPEATS
share    save over epoch + save: of a trial's time
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ralr_tune.kinds.classification.kind import KIND
from ralr_tune.kinds.classification.samples import Samples, Source, all_samples
from ralr_tune.kinds.classification.sources import open_source
from ralr_tune.kinds.classification.task import ClassificationTask
from ralr_tune.models.registry import build
from ralr_tune.studyfile import models
from ralr_tune.training.estimate import seconds_per_epoch
from ralr_tune.training.start import start

REPEATS = 9
STEPS = 4
"""Timed steps of an epoch, after as many warm-up steps."""
NETWORKS = {"small_cnn": "digits", "resnet20": "32x32", "resnet110": "32x32"}
OPTIMIZERS: dict[str, dict[str, Any]] = {"sgd": {"momentum": 0.9}, "adamw": {"amsgrad": True}}
ROW = "{:<10} {:<8} {:<6} {:>10} {:>8} {:>9} {:>8} {:>9} {:>9} {:>7}"

COLUMNS = ("network", "images", "optim", "weights", "MB", "epoch s", "save ms", "fsync ms", "resume ms", "share")


def main() -> None:
    torch.set_num_threads(1)
    print(ROW.format(*COLUMNS))
    for network, images in NETWORKS.items():
        for optimizer, options in OPTIMIZERS.items():
            print(ROW.format(network, images, optimizer, *measured(network, images, optimizer, options)), flush=True)


def measured(network: str, images: str, optimizer: str, options: dict[str, Any]) -> list[str]:
    training = {"epochs": 2, "batch_size": 64 if images == "digits" else 128, "lr": 0.01}
    configuration = models.configuration(KIND).model_validate(
        {"training": {**training, "optimizer": optimizer, "options": options}}
    )
    epoch_s = seconds_per_epoch(task(network, images, whole=True), configuration, steps=STEPS)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trial.ckpt"
        small = task(network, images, whole=False)
        trial: Any = start(small, configuration, seed=0, checkpoint=file)
        next(trial.epochs())
        save = partial(trial._save, trial.curve)
        save_s = median_s(save)
        fsync_s = median_s(partial(wait_for_disk, file), before=save)
        fresh_s = median_s(partial(start, small, configuration, seed=0))
        resume_s = median_s(partial(start, small, configuration, seed=0, checkpoint=file)) - fresh_s
        megabytes = file.stat().st_size / 1e6
    weights = sum(weight.numel() for weight in small.build_model(0).parameters())
    share = save_s / (epoch_s + save_s)
    times = [f"{1e3 * seconds:.1f}" for seconds in (save_s, fsync_s, resume_s)]
    return [f"{weights:,}", f"{megabytes:.2f}", f"{epoch_s:.3f}", *times, f"{share:.2%}"]


def task(network: str, images: str, *, whole: bool) -> ClassificationTask:
    """The data set, or the smallest part that updates every weight."""
    if images == "digits":
        source = open_source({"source": "digits", "limit": None if whole else 300})
    else:
        source = noise(50_000 if whole else 300)

    def network_of(classes: int, channels: int, size: int) -> torch.nn.Module:
        return build(network, classes=classes, channels=channels, size=size)

    return ClassificationTask(
        source, build=network_of, validation=0.1, seed=0, device="cpu", identity=f"{network} {images} {whole}"
    )


def noise(count: int) -> Source:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    samples: Samples = all_samples(np.arange(count) % 10, lambda rows: pixels[rows])
    return Source(tuple("abcdefghij"), train=samples, test=lambda: samples)


def median_s(timed: Callable[[], object], *, before: Callable[[], object] = int) -> float:
    """Seconds of `timed`, each time after `before`, which is not timed."""
    seconds = []
    for _ in range(REPEATS):
        before()
        began = time.perf_counter()
        timed()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def wait_for_disk(file: Path) -> None:
    """Syncs the file's bytes and its name in the folder."""
    for path in (file, file.parent):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


if __name__ == "__main__":
    main()
