"""`train`: train an exported configuration on train + validation, test it once, and save its weights."""

from __future__ import annotations

import json
import math
import os
import shutil
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
from ralr_tune.studyfile.code import changed_files
from ralr_tune.studyfile.exported import Exported, load_exported
from ralr_tune.studyfile.imports import imports as imports_in
from ralr_tune.studyfile.imports import refuse_imports
from ralr_tune.tasks.trial import Trial
from ralr_tune.training.checkpoint import companion

WEIGHTS, SCORE, CHECKPOINT = "model.safetensors", "score.json", "checkpoint.pt"


@dataclass(frozen=True)
class Line:
    """One line for the terminal; the final one shows the score."""

    text: str
    final: bool = False


def train_configuration(
    config: Path, *, device: str, seed: int | None, out: Path | None, imports: bool = True
) -> Iterator[Line]:
    """Train CONFIG on train + validation data, read the test split once, write weights and score into `out`.

    `seed`: None means the configuration's seed. `out`: None means a folder next to CONFIG with its name without the
    suffix. No data is held out, so epochs have no score; only the last line has one, of the test split. After an
    interruption, the same command resumes from the last epoch.

    Raises StudyFileError or UsageError before training starts (if `imports` is False, also for an imported network; if
    code or weights are no longer those with which the configuration was found),
    DataError, TrialError if it diverges or runs out of memory, Interrupted on Ctrl-C.
    """
    if not config.suffix and not config.exists() and find_file(str(config)) is not None:
        best = Path("runs") / config / "best" / "ARM.toml"
        raise UsageError(f"{config}: is a study; `train` takes an exported configuration, such as {best}")
    exported = load_exported(config, imports=imports)
    if not imports:
        refuse_imports(imports_in(exported.kind, exported.task, [exported.training.optimizer]))
    _refuse_changed_files(config, exported)
    seed = _checked_seed(exported.provenance.seed if seed is None else seed)
    place = _place(device, exported)
    folder = _folder(config, out)
    task = exported.load(place.device)
    trial = exported.kind.trial(
        task, exported.configuration(), seed=seed, checkpoint=folder / CHECKPOINT, split="train+validation"
    )
    yield Line(_headline(exported, trial, place))
    yield from _train(trial, exported)
    trial.save_weights(folder / WEIGHTS)
    value = trial.evaluate("test")
    if math.isnan(value):
        raise TrialError("diverged", "the network's outputs on the test split are not finite")
    write_text(folder / SCORE, _score(exported, config, trial, seed, value, place))
    (folder / CHECKPOINT).unlink(missing_ok=True)
    shutil.rmtree(companion(folder / CHECKPOINT), ignore_errors=True)
    score = f"test {task.metric.words} {task.metric.format.value(value, 2)}"
    yield Line(f"{score} (seed {seed}): {folder / SCORE}, {folder / WEIGHTS}", final=True)


def _refuse_changed_files(config: Path, exported: Exported) -> None:
    """As `run` does for a study: other code or weights would train something else than what was found."""
    if changed := changed_files(exported):
        one = len(changed) == 1
        raise UsageError(
            f"{config}: provenance.files: {', '.join(changed)} changed since the configuration was found, so training "
            f"would not repeat it. Restore {'it' if one else 'them'}, or delete {'its line' if one else 'their lines'} "
            f"in [provenance.files] to train with {'it' if one else 'them'} as {'it is' if one else 'they are'} now"
        )


def _checked_seed(seed: int) -> int:
    if not 0 <= seed < 2**SEED_BITS:
        raise UsageError(f"--seed {seed}: allowed: 0 to {2**SEED_BITS - 1}")
    return seed


def _place(device: str, exported: Exported) -> Place:
    place = places(device, 1)[0]
    if not exported.kind.needs_torch:
        return place
    import torch

    return replace(place, threads=torch.get_num_threads())  # one process uses the whole machine: keep torch's default


def _folder(config: Path, out: Path | None) -> Path:
    folder = out or config.with_suffix("")
    if folder == config or (out is None and folder.name in ("", ".", "..")):  # "...toml" would mean the parent folder
        raise UsageError(f"{config}: the file name has no suffix to remove; give a folder for the weights with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be created: {error.strerror or error}; give another with --out") from error
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{folder}: the folder is not writable; give another with --out")
    return folder


def _headline(exported: Exported, trial: Trial, place: Place) -> str:
    where = exported.provenance
    done = f" ({trial.curve[-1].epoch} already done)" if trial.curve else ""
    return (
        f"{where.study}, arm {where.arm}, trial {where.trial}: {exported.training.epochs} epochs{done} on train + "
        f"validation data, {place.device}"
    )


def _train(trial: Trial, exported: Exported) -> Iterator[Line]:
    try:
        with closing(trial.epochs()) as epochs:
            for record in epochs:
                loss = "" if math.isnan(record.train_loss) else f"loss {record.train_loss:.4f}, "
                text = f"epoch {record.epoch}/{exported.training.epochs}: {loss}learning rate {record.lr:.4g}"
                yield Line(f"{text}, {record.seconds:.1f} s")
    except KeyboardInterrupt:
        done = f"after epoch {trial.curve[-1].epoch}" if trial.curve else "before the end of the first epoch"
        raise Interrupted(f"interrupted {done}; run the same command again to resume") from None


def _score(exported: Exported, config: Path, trial: Trial, seed: int, value: float, place: Place) -> str:
    found: dict[str, Any] = {
        "metric": exported.provenance.metric,
        "split": "test",
        "value": value,
        "trained_on": "train+validation",
        "seed": seed,
        "epochs": trial.curve[-1].epoch if trial.curve else 0,
        "seconds": sum(record.seconds for record in trial.curve),
        "configuration": str(config),
        "provenance": exported.provenance.model_dump(mode="json", exclude_none=True),
        "versions": environment(place, exported.kind),
    }
    return json.dumps(found, indent=2, allow_nan=False) + "\n"
