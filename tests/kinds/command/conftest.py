from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from ralr_tune.studyfile import StudySpec, load_study_file

PROGRAM = '''
"""A program with a known answer: it is best at a rate of 0.1, and amplification adds `effect`."""
import json, math, os, random, sys
sys.path.insert(0, sys.argv[1])
from ralr_tune import client

trial = client.trial()
state = json.loads(trial.checkpoint.read_text()) if trial.checkpoint else {"epoch": 0, "amplified": 0}
assert state["epoch"] == trial.first_epoch - 1
lr, width = trial.params["lr"], trial.params["width"]
EFFECT = 0.05

def value(state, split):
    luck = random.Random(f"{trial.seed} {split} {state}").gauss(0, 0.002)
    learned = 1 - 1 / (1 + state["epoch"])
    found = 0.9 - 0.1 * math.log10(lr / 0.1) ** 2 + (0.0 if width == 2 else -0.1) + EFFECT * bool(state["amplified"])
    return learned * found + luck

for epoch in range(trial.first_epoch, trial.epochs + 1):
    state = {"epoch": epoch, "amplified": state["amplified"] + (trial.factor(epoch) != 1)}
    (trial.folder / "state.tmp").write_text(json.dumps(state))
    (trial.folder / "state.tmp").rename(trial.folder / "state.json")
    with open("epochs", "a") as log:
        log.write(f"{os.getpid()} {trial.seed} {epoch} {trial.stage}\\n")
    if client.report(epoch, value(state, "validation"), checkpoint="state.json") != client.CONTINUE:
        sys.exit()
if trial.stage == "test":
    client.report_test(value(state, "test"))
'''

COMMAND = [sys.executable, "-S", "program.py", str(Path(__file__).parents[3])]

TABLES: dict[str, dict[str, Any]] = {
    "study": {"name": "own", "baseline": "monotone"},
    "task": {
        "kind": "command",
        "files": ["program.py"],
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
    tables = {name: table | changes.get(name, {}) for name, table in TABLES.items()}
    tables["task"] = TABLES["task"] | {"command": COMMAND} | changes.get("task", {})
    return tomli_w.dumps(tables)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the program."""
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RALR_TUNE_STORAGE", raising=False)
    return tmp_path


@pytest.fixture
def study(folder: Path) -> Write:
    """Writes own.toml with changes of its tables, and reads it."""

    def write(**changes: dict[str, Any]) -> StudySpec:
        (folder / "own.toml").write_text(text(**changes))
        return load_study_file("own.toml")

    return write
