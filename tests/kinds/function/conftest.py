from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from ralr_tune.studyfile import StudySpec, load_study_file

FUNCTION = '''
"""A function with a known answer: it is best at a rate of 0.1, and amplification adds EFFECT."""
import json, math, os, random
from pathlib import Path

EFFECT = 0.05
HERE = Path(__file__).parent

def value(trial, state, split):
    luck = random.Random(f"{trial.seed} {split} {state}").gauss(0, 0.002)
    learned = 1 - 1 / (1 + state["epoch"])
    found = 0.9 - 0.1 * math.log10(trial.params["lr"] / 0.1) ** 2 + (0.0 if trial.params["width"] == 2 else -0.1)
    return learned * (found + EFFECT * bool(state["amplified"])) + luck

def train(trial):
    state = json.loads(trial.checkpoint.read_text()) if trial.checkpoint else {"epoch": 0, "amplified": 0}
    assert state["epoch"] == trial.first_epoch - 1
    for epoch in trial.epochs():
        state = {"epoch": epoch, "amplified": state["amplified"] + (trial.factor(epoch) != 1)}
        path = trial.folder / f"epoch{epoch}.json"
        path.write_text(json.dumps(state))
        with (HERE / "epochs").open("a") as log:
            log.write(f"{os.getpid()} {trial.seed} {epoch} {trial.stage}\\n")
        trial.report(value(trial, state, "validation"), checkpoint=path, metrics={"state": epoch})
    if trial.stage == "test":
        trial.report_test(value(trial, state, "test"))
'''

TABLES: dict[str, dict[str, Any]] = {
    "study": {"name": "own", "baseline": "monotone"},
    "task": {
        "kind": "function",
        "target": "known_answer:train",
        "metric": {"name": "score", "direction": "maximize", "worst": 0.0, "unit": "share"},
        "params": {"width": {"choices": [1, 2]}},
    },
    "training": {"epochs": 3, "lr": {"low": 0.01, "high": 1.0, "log": True}},
    "schedule": {"name": "cosine"},
    "arms": {"monotone": {}, "ralr": {"amplify": {"probability": 1.0, "lower": 1.5, "width": 0.5}}},
    "search": {"trials": 2, "start": [{"lr": 0.1, "params.width": 2}]},
    "confirm": {"top": 1, "seeds": 2},
    "storage": {"lease_s": 60},
}  # fmt: skip

Write = Callable[..., StudySpec]


def text(**changes: dict[str, Any]) -> str:
    return tomli_w.dumps({name: table | changes.get(name, {}) for name, table in TABLES.items()})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the function's module."""
    (tmp_path / "known_answer.py").write_text(FUNCTION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("RALR_TUNE_STORAGE", raising=False)
    return tmp_path


@pytest.fixture
def study(folder: Path) -> Write:
    """Writes own.toml with changes of its tables, and reads it."""

    def write(**changes: dict[str, Any]) -> StudySpec:
        (folder / "own.toml").write_text(text(**changes))
        return load_study_file("own.toml")

    return write
