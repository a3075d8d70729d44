"""The other processes of test_training_resume: `begin` is killed, `finish` resumes its trials."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ralr_tune.tasks.trial import Trial
from ralr_tune.training.start import start
from tests.training.recipes import MEMORY_RECIPES, OPTIMIZER_RECIPES, OTHER_RECIPES
from tests.training.trials import configuration, images, optimizer_state, run, timeless, weights

RECIPES = {**OPTIMIZER_RECIPES, **MEMORY_RECIPES, **OTHER_RECIPES}


def begin(folder: Path) -> None:
    """Trains two epochs of every recipe; then it blocks within the third epoch of the last one."""
    for name, recipe in RECIPES.items():
        task = images(**options(name))
        trial = start(task, configuration(epochs=3, **recipe), seed=1, checkpoint=folder / f"{name}.ckpt")
        epochs = trial.epochs()
        next(epochs), next(epochs)
    steps, loss = iter(range(100)), task.loss

    def block(*arguments: Any, **options: Any) -> Tensor:
        if next(steps) == 2:
            (folder / "within").touch()
            time.sleep(600)
        return loss(*arguments, **options)

    task.loss = block  # type: ignore[method-assign]
    next(epochs)


def finish(folder: Path) -> None:
    """Prints, for every recipe, the epochs found and the results of two trials, a resumed and a whole one."""
    found = {}
    for name, recipe in RECIPES.items():
        task, settings = images(**options(name)), configuration(epochs=3, **recipe)
        resumed = start(task, settings, seed=1, earlier=[folder / f"{name}.ckpt"])
        begun = len(resumed.curve)
        found[name] = {
            "begun": begun,
            "resumed": summary(run(resumed)),
            "whole": summary(run(start(task, settings, seed=1))),
        }
    print(json.dumps(found))


def options(name: str) -> dict[str, Any]:
    return {"size": 16 if name in MEMORY_RECIPES else 8, "dropout": 0.3, "width": 4}


def summary(trial: Trial) -> list[str]:
    """Curve and hash of all bits of weights and optimizer."""
    total = hashlib.sha256()
    for name, value in {**weights(trial), **optimizer_state(trial)}.items():
        total.update(f"{name} {value.flatten().tolist() if isinstance(value, Tensor) else value}".encode())
    return [repr(timeless(trial.curve)), total.hexdigest()]


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"begin": begin, "finish": finish}[sys.argv[2]](Path(sys.argv[1]))
