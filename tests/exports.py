"""Exported configurations for tests: a small one whose tables can be changed, and a study to export from."""

from __future__ import annotations

import runpy
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ralr_tune.kinds.classification.kind import KIND
from ralr_tune.records import ArmRecord, EpochRecord, Outcome, Row, Stage, StudyRecord
from ralr_tune.report.export import render
from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.exported import Exported, exported_model
from ralr_tune.training.loop import TorchTrial

SEED = 7

TABLES: dict[str, dict[str, Any]] = {
    "task": {"kind": "classification", "data": {"source": "digits"}, "model": "small_cnn"},
    "training": {"epochs": 8, "batch_size": 4, "lr": 0.1},
    "schedule": {"name": "constant"},
    "provenance": {
        "study": "digits", "arm": "ralr", "block": 1, "trial": 17, "metric": "accuracy", "value": 0.98,
        "study_seed": 0, "seed": SEED, "created": "2026-01-31", "fingerprint": "3f2a",
    },
}  # fmt: skip


def tables(**changes: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """The small configuration's tables; `changes` replace keys of the table of that name, None drops a table."""
    names = dict.fromkeys([*TABLES, *changes])
    merged = {name: TABLES.get(name, {}) | (changes.get(name) or {}) for name in names}
    return {name: table for name, table in merged.items() if changes.get(name, {}) is not None}


def configuration(**changes: dict[str, Any] | None) -> Exported:
    """The configuration of `tables`."""
    return exported_model(KIND).model_validate(tables(**changes), strict=False)


def loaded(folder: Path, text: str) -> dict[str, Any]:
    """The script's names; nothing is trained."""
    file = folder / "script.py"
    file.write_text(text, encoding="utf-8")
    return runpy.run_path(str(file))


def ran(folder: Path, text: str) -> dict[str, Tensor]:
    """The weights that the script saves."""
    loaded(folder, text)["main"](["--device", "cpu"])
    weights: dict[str, Tensor] = torch.load(folder / "script.pt", weights_only=True)
    return weights


def check_trains_as_package(folder: Path, made: Exported, capsys: pytest.CaptureFixture[str]) -> None:
    """The script's losses, weights and score are those of `train`: one different bit would change the weights."""
    found = ran(folder, render(made, "python"))
    trial = TorchTrial(
        made.load("cpu"),  # type: ignore[arg-type]
        made.configuration(),
        seed=SEED,
        split="train+validation",
    )
    losses = [record.train_loss for record in trial.epochs()]
    theirs = trial.state.judged.state_dict()
    assert list(found) == list(theirs)
    assert all(torch.equal(found[key], theirs[key]) for key in theirs)
    *epochs, tested, _ = capsys.readouterr().out.splitlines()
    assert [line.split()[3] for line in epochs] == [f"{loss:.4f}," for loss in losses]
    assert tested == f"test {made.metric.name} {trial.evaluate('test'):.4f}"


class Tiny(nn.Module):
    """The smallest network that learns: each image's mean, one weight per class."""

    def __init__(self, num_classes: int, scale: float = 1.0) -> None:
        super().__init__()
        self.head = nn.Linear(1, num_classes)
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.scale * images.mean(dim=(1, 2, 3))[:, None])
        return logits


class Records:
    """Makes the record of a study, row by row."""

    def __init__(self, spec: StudySpec) -> None:
        self.spec = spec
        self.rows: list[Row] = []
        self._ids = count(1)

    def add(self, arm: str, stage: Stage, ordinal: int, value: float | None, **known: Any) -> Row:
        """A row that is done ("complete" unless `outcome` says otherwise); search rows get their number as trial."""
        given: dict[str, Any] = {
            "block": 1, "role": "" if stage == "search" else "best", "source": None, "seed": 1000 + ordinal,
            "params": {"lr": 0.1, "weight_decay": 1e-4},
            "trial": ordinal if stage == "search" else None,
            "state": "done", "attempt": 1, "owner": "me", "outcome": "complete", "failure": None, "message": None,
            "epoch": 6, "train_value": None, "curve": (), "seconds": 1.0, "started": 1.7e9, "finished": 1.7e9 + 1,
        }  # fmt: skip
        if arm == "ralr":
            given["params"] |= {"amplify.probability": 0.3, "amplify.lower": 1.5, "amplify.width": 2.0}
        self.rows.append(Row(id=next(self._ids), arm=arm, stage=stage, ordinal=ordinal, value=value, **given | known))
        return self.rows[-1]

    def search(self, arm: str, *values: float, block: int = 1) -> list[Row]:
        """Complete search rows with these values."""
        return [self.add(arm, "search", ordinal, value, block=block) for ordinal, value in enumerate(values)]

    def fresh(self, arm: str, stage: Stage, source: int, *values: float, **known: Any) -> list[Row]:
        """Rows of one configuration on fresh seeds."""
        seeds = enumerate(values)
        return [self.add(arm, stage, n, value, source=source, seed=70 + n, **known) for n, value in seeds]

    def ended(self, arm: str, ordinal: int, outcome: Outcome, **known: Any) -> Row:
        """A search row with another outcome."""
        epochs = (EpochRecord(1, 0.5, 1.0, 0.1, 1.0, 0.1),)
        return self.add(arm, "search", ordinal, 0.5, outcome=outcome, curve=epochs, **known)

    def record(self) -> StudyRecord:
        arms = {
            arm: ArmRecord(
                arm,
                self.spec.dimensions(arm),
                tuple(row for row in self.rows if row.arm == arm),
                self.spec.settings(arm),
            )
            for arm in self.spec.arms
        }
        return StudyRecord(
            name=self.spec.name,
            spec_text=self.spec.text,
            fingerprint=self.spec.fingerprint,
            storage="sqlite:///study.db",
            created=1.6e9,
            environment={"torch": "2.15.0", "python": "3.11.7", "device": "cpu", "machine": "Linux", "threads": "1"},
            baseline=self.spec.study.baseline,
            metric=self.spec.metric,
            margin=self.spec.margin,
            confidence=self.spec.confirm.confidence,
            arms=arms,
        )
