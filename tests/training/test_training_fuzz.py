"""Mutated files of training: each is ignored or equals what was saved; there are no other errors, and no code runs.

RALR_TUNE_FUZZ: number of cases of each of the three kinds of file (a few hundred by default; `-s` prints the
outcomes).
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ralr_tune.errors import DataError, TrialError
from ralr_tune.kinds.simulated.kind import KIND
from ralr_tune.kinds.simulated.task import SimulatedTask
from ralr_tune.training.start import start
from tests.training.fuzzing import checkpoint_case, curve_case, no_hang, weights_case
from tests.training.trials import configuration, images, optimizer_state, same, timeless, weights

CASES = int(os.environ.get("RALR_TUNE_FUZZ", "200"))
SEED = 20260101

IGNORED, EXACT = "ignored", "exactly what was saved"


@dataclass(frozen=True)
class Saved:
    """A file after a number of epochs, and its content."""

    file: bytes
    state: tuple[Any, ...]


def state_of(trial: Any) -> tuple[Any, ...]:
    return timeless(trial.curve), weights(trial), optimizer_state(trial)


def equal(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return one[0] == other[0] and all(same(a, b) for a, b in zip(one[1:], other[1:], strict=True))


def saved_states(trial: Any, file: Path, state_of: Callable[[Any], tuple[Any, ...]]) -> list[Saved]:
    return [Saved(file.read_bytes(), state_of(trial)) for _ in trial.epochs()]


def report(name: str, found: Counter[tuple[str, str]]) -> None:
    print(f"\n{name}: {sum(found.values())} cases, seed {SEED}")
    for (kind, outcome), times in sorted(found.items()):
        print(f"  {times:6} {kind}: {outcome}")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_checkpoints_of_networks(tmp_path: Path) -> None:
    """The second file comes after a mutated one: if that is ignored, the second one must be read exactly."""
    chance, found = random.Random(SEED), Counter[tuple[str, str]]()
    task = images(width=2)
    settings = configuration(epochs=3, optimizer="adam", lr=0.01)
    first, second, _ = saved_states(start(task, settings, seed=1, checkpoint=tmp_path / "a"), tmp_path / "a", state_of)
    (foreign, *_) = saved_states(start(task, settings, seed=2, checkpoint=tmp_path / "b"), tmp_path / "b", state_of)
    trace, mutated, good = tmp_path / "trace", tmp_path / "mutated", tmp_path / "good"
    good.write_bytes(first.file)
    for _case in range(CASES):
        kind, data = checkpoint_case(chance, second.file, [first.file, foreign.file], trace)
        mutated.write_bytes(data)
        with no_hang():
            trial = start(task, settings, seed=1, checkpoint=mutated, earlier=[good])
        assert not trace.exists(), kind
        state = state_of(trial)
        if equal(state, first.state):
            outcome = IGNORED
        elif equal(state, second.state):
            outcome = EXACT
        else:
            assert "right digest" in kind, kind
            outcome = "another state, training continues"
            train_to_the_end(trial)
        found[kind, outcome] += 1
    report("checkpoints of networks", found)
    assert {outcome for _, outcome in found} >= {IGNORED, EXACT}


def train_to_the_end(trial: Any) -> None:
    """With a correct digest the weights may have any values; the program must not crash."""
    with no_hang():
        try:
            for _ in trial.epochs():
                pass
        except TrialError as error:
            assert error.kind == "diverged"  # noqa: PT017 (most of them train)


def test_checkpoints_of_simulated_trials(tmp_path: Path) -> None:
    chance, found = random.Random(SEED), Counter[tuple[str, str]]()
    task, settings = SimulatedTask(identity="simulated"), configuration(epochs=4)

    def curve_of(trial: Any) -> tuple[Any, ...]:
        return (timeless(trial.curve),)

    states = saved_states(KIND.trial(task, settings, seed=1, checkpoint=tmp_path / "a"), tmp_path / "a", curve_of)
    (foreign, *_) = saved_states(
        KIND.trial(task, settings, seed=2, checkpoint=tmp_path / "b"), tmp_path / "b", curve_of
    )
    trace, mutated = tmp_path / "trace", tmp_path / "mutated"
    for _case in range(CASES):
        kind, data = curve_case(chance, states[2].file, [states[1].file, foreign.file], trace)
        mutated.write_bytes(data)
        with no_hang():
            trial = KIND.trial(task, settings, seed=1, checkpoint=mutated)
        assert not trace.exists(), kind
        if trial.curve == []:
            outcome = IGNORED
        elif curve_of(trial) in [state.state for state in states]:
            outcome = EXACT
        else:
            assert "right digest" in kind, kind
            outcome = "another curve, training continues"
            assert len(list(trial.epochs())) <= 3
        found[kind, outcome] += 1
    report("checkpoints of simulated trials", found)
    assert {outcome for _, outcome in found} >= {IGNORED, EXACT}


def test_weights_files(tmp_path: Path) -> None:
    chance, found = random.Random(SEED), Counter[tuple[str, str]]()
    task, settings = images(width=2), configuration(epochs=1)
    files: list[tuple[bytes, dict[str, Tensor]]] = []
    for seed in (1, 2):
        trained = start(task, settings, seed=seed)
        trained.save_weights(tmp_path / "weights")
        files.append(((tmp_path / "weights").read_bytes(), weights(trained)))
    trial = start(task, settings, seed=3)
    fresh = weights(trial)
    trace, mutated = tmp_path / "trace", tmp_path / "mutated"
    for _case in range(CASES):
        kind, data = weights_case(chance, files[0][0], [files[1][0]], trace)
        mutated.write_bytes(data)
        try:
            with no_hang():
                trial.load_weights(mutated)
        except DataError:
            assert same(weights(trial), fresh), kind
            outcome = "refused"
        else:
            assert any(same(weights(trial), saved) for _, saved in files), kind
            outcome = EXACT
            restore(trial, fresh)
        assert not trace.exists(), kind
        found[kind, outcome] += 1
    report("weights files", found)
    assert {outcome for _, outcome in found} >= {"refused", EXACT}


def restore(trial: Any, fresh: dict[str, Tensor]) -> None:
    with torch.no_grad():
        trial.state.model.load_state_dict(fresh)
