"""`train`: an exported configuration on train + validation, tested once, with its weights kept."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ralr_tune.commands.files import write_text
from ralr_tune.commands.locate import find_file
from ralr_tune.errors import Interrupted, TrialError, UsageError
from ralr_tune.launch.devices import Place, places
from ralr_tune.launch.worker import environment
from ralr_tune.seeds import SEED_BITS
from ralr_tune.studyfile.exported import Exported, load_exported
from ralr_tune.studyfile.imports import refuse_imports
from ralr_tune.tasks.trial import Trial

WEIGHTS, SCORE, CHECKPOINT = "model.safetensors", "score.json", "checkpoint.pt"


@dataclass(frozen=True)
class Line:
    """One line for the terminal; the final one says the score."""

    text: str
    final: bool = False


def train_configuration(
    config: Path, *, device: str, seed: int | None, out: Path | None, imports: bool = True
) -> Iterator[Line]:
    """Train CONFIG on train + validation data, read the test split once, write weights and score into `out`.

    `seed`: None is the configuration's own. `out`: None is a folder beside CONFIG, named as it is without its ending.
    Nothing is held out, so no epoch has a score: only the last line has one, the test split's. Broken off, the same
    command goes on from the last epoch.

    Raises StudyFileError or UsageError before anything starts (without `imports` also for a network that is code of
    somebody's), DataError, TrialError when it diverges or has no room, Interrupted on Ctrl-C.
    """
    if not config.suffix and not config.exists() and find_file(str(config)) is not None:
        best = Path("runs") / config / "best" / "ARM.toml"
        raise UsageError(f"{config}: is a study; `train` takes an exported configuration, such as {best}")
    exported = load_exported(config, imports=imports)
    if not imports:
        refuse_imports(exported.kind, exported.task)
    seed = _checked_seed(exported.provenance.seed if seed is None else seed)
    place = _place(device, exported)
    folder = _folder(config, out)
    task = exported.load(place.device)
    trial = exported.kind.trial(
        task, exported.configuration(), seed=seed, checkpoint=folder / CHECKPOINT, split="train+validation"
    )
    yield Line(_headline(exported, trial, place))
    yield from _trained(trial, exported)
    trial.save_weights(folder / WEIGHTS)
    value = trial.evaluate("test")
    if math.isnan(value):
        raise TrialError("diverged", "the network's outputs on the test split are not finite")
    write_text(folder / SCORE, _score(exported, config, trial, seed, value, place))
    (folder / CHECKPOINT).unlink(missing_ok=True)
    score = f"test {task.metric.name} {task.metric.format.value(value, 2)}"
    yield Line(f"{score} (seed {seed}): {folder / SCORE}, {folder / WEIGHTS}", final=True)


def _checked_seed(seed: int) -> int:
    if not 0 <= seed < 2**SEED_BITS:
        raise UsageError(f"--seed {seed}: allowed: 0 to {2**SEED_BITS - 1}")
    return seed


def _place(device: str, exported: Exported) -> Place:
    place = places(device, 1)[0]
    if not exported.kind.needs_torch:
        return place
    import torch

    return replace(place, threads=torch.get_num_threads())  # one process has the machine to itself: torch knows best


def _folder(config: Path, out: Path | None) -> Path:
    folder = out or config.with_suffix("")
    if folder == config or (out is None and folder.name in ("", ".", "..")):  # "...toml" would mean the parent folder
        raise UsageError(f"{config}: has no ending to leave out; say with --out where the weights shall go")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: no folder can be made there: {error.strerror or error}; try --out") from error
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{folder}: this folder cannot be written to; try --out")
    return folder


def _headline(exported: Exported, trial: Trial, place: Place) -> str:
    where = exported.provenance
    done = f", {len(trial.curve)} of them done" if trial.curve else ""
    return (
        f"{where.study}, arm {where.arm}, trial {where.trial}: {exported.training.epochs} epochs{done} on train + "
        f"validation data, {place.device}"
    )


def _trained(trial: Trial, exported: Exported) -> Iterator[Line]:
    try:
        with closing(trial.epochs()) as epochs:
            for record in epochs:
                text = f"epoch {record.epoch}/{exported.training.epochs}: loss {record.train_loss:.4f}"
                yield Line(f"{text}, learning rate {record.lr:.4g}, {record.seconds:.1f} s")
    except KeyboardInterrupt:
        done = f"after epoch {len(trial.curve)}" if trial.curve else "before the first epoch was done"
        raise Interrupted(f"interrupted {done}; the same command goes on from there") from None


def _score(exported: Exported, config: Path, trial: Trial, seed: int, value: float, place: Place) -> str:
    found: dict[str, Any] = {
        "metric": exported.provenance.metric,
        "split": "test",
        "value": value,
        "trained_on": "train+validation",
        "seed": seed,
        "epochs": len(trial.curve),
        "seconds": sum(record.seconds for record in trial.curve),
        "configuration": str(config),
        "provenance": exported.provenance.model_dump(mode="json", exclude_none=True),
        "versions": environment(place, exported.kind),
    }
    return json.dumps(found, indent=2, allow_nan=False) + "\n"
