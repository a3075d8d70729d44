"""A synthetic study, as the storage would return it: curves from a formula, at any stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, Literal

import numpy as np

from ralr_tune.analysis.card import Card, make_card
from ralr_tune.analysis.facts import Facts
from ralr_tune.analysis.next_step import Typed
from ralr_tune.records import ArmRecord, EpochRecord, Outcome, Row, Stage, StudyRecord
from tests.metrics import ACCURACY

Until = Literal["planned", "searching", "searched", "confirmed", "tested"]

SHARED: Mapping[str, Mapping[str, Any]] = {
    "lr": {"low": 1e-3, "high": 1.0, "log": True, "step": None},
    "weight_decay": {"low": 1e-5, "high": 1e-2, "log": True, "step": None},
}
AMPLIFY: Mapping[str, Mapping[str, Any]] = {
    "amplify.probability": {"low": 0.05, "high": 0.6, "log": False, "step": None},
    "amplify.lower": {"low": 1.0, "high": 2.0, "log": False, "step": None},
    "amplify.width": {"low": 0.0, "high": 4.0, "log": False, "step": None},
}
SPEC_TEXT = """[study]
name = "digits"   # </script> & <b>markup</b> must stay text
metric = "accuracy"
baseline = "monotone"
"""


TYPED = Typed(
    run="ralr-tune run digits",
    status="ralr-tune status digits",
    train={arm: f"ralr-tune train runs/digits/best/{arm}.toml" for arm in ("monotone", "ralr")},
)


def card_of(facts: Facts, typed: Typed = TYPED) -> Card:
    """The card with commands on this study."""
    return make_card(facts, typed)


class Builder:
    """Makes the rows of one study; the accuracy peaks at lr = 0.1, and `gain` is what amplification adds."""

    def __init__(self, *, seed: int = 0, epochs: int = 12, noise: float = 0.004, gain: float = 0.004) -> None:
        self.random = np.random.default_rng(seed)
        self.epochs, self.noise, self.gain = epochs, noise, gain
        self.ids = count(1)

    def params(self, dimensions: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        return {name: self._draw(domain) for name, domain in dimensions.items()}

    def _draw(self, domain: Mapping[str, Any]) -> Any:
        if "choices" in domain:
            return domain["choices"][self.random.integers(len(domain["choices"]))]
        low, high = domain["low"], domain["high"]
        if domain.get("log"):
            return float(np.exp(self.random.uniform(math.log(low), math.log(high))))
        return float(self.random.uniform(low, high))

    def final(self, params: Mapping[str, Any], *, amplified: bool) -> float:
        off = math.log10(params["lr"]) + 1
        value = 0.975 - 0.09 * off**2 - 0.006 * abs(math.log10(params["weight_decay"]) + 4)
        if amplified and "amplify.probability" in params:
            value += self.gain * (1 - abs(params["amplify.probability"] - 0.3) / 0.3)
        return max(0.1, value)

    def curve(self, params: Mapping[str, Any], epochs: int, *, amplified: bool) -> tuple[EpochRecord, ...]:
        final = self.final(params, amplified=amplified) + self.noise * self.random.normal()
        return tuple(self._epoch(params, final, epoch, amplified=amplified) for epoch in range(1, epochs + 1))

    def _epoch(self, params: Mapping[str, Any], final: float, epoch: int, *, amplified: bool) -> EpochRecord:
        base = params["lr"] * (1.0 if epoch <= self.epochs / 2 else 0.1 if epoch <= 0.75 * self.epochs else 0.01)
        hit = amplified and self.random.random() < params.get("amplify.probability", 0.0)
        factor = params["amplify.lower"] + params["amplify.width"] * self.random.random() if hit else 1.0
        wobble = 0.0 if epoch == self.epochs else self.noise * self.random.normal()
        value = 0.1 + (final - 0.1) * (1 - math.exp(-epoch / 2)) / (1 - math.exp(-self.epochs / 2)) + wobble
        seconds = 0.21 + 0.02 * self.random.random()
        return EpochRecord(epoch, min(1.0, max(0.0, value)), 2.3 * math.exp(-epoch / 3), base * factor, factor, seconds)

    def row(self, arm: str, stage: Stage, ordinal: int, **known: Any) -> Row:
        defaults: dict[str, Any] = {
            "block": 1, "role": "", "source": None, "seed": 1000 + ordinal, "params": {}, "trial": None,
            "state": "free", "attempt": 0, "owner": None, "outcome": None, "failure": None, "message": None,
            "epoch": 0, "value": None, "train_value": None, "curve": (), "seconds": None, "started": None,
            "finished": None,
        }  # fmt: skip
        return Row(id=next(self.ids), arm=arm, stage=stage, ordinal=ordinal, **(defaults | known))

    def done(self, row: Row, *, epochs: int | None = None, outcome: Outcome = "complete", shift: float = 0.0) -> Row:
        """The row after its training; a diverged one has its last epochs missing and no value."""
        curve = self.curve(row.params, epochs or self.epochs, amplified=row.role != "twin")
        value = None if outcome in ("diverged", "failed") else min(1.0, curve[-1].value + shift)
        return replace(
            row,
            state="done",
            attempt=1,
            outcome=outcome,
            failure="diverged" if outcome == "diverged" else None,
            message="epoch 2: the training loss is nan" if outcome == "diverged" else None,
            epoch=len(curve),
            value=value,
            train_value=None if value is None else min(1.0, value + 0.012),
            curve=curve,
            seconds=sum(epoch.seconds for epoch in curve),
            started=1.7e9 + row.id,
            finished=1.7e9 + row.id + 3,
        )

    def search(self, arm: str, dimensions: Mapping[str, Mapping[str, Any]], trials: int, block: int) -> list[Row]:
        """One block: clearly bad trials are pruned after a third, rates above 0.7 diverge."""
        rows = []
        for ordinal in range(trials):
            params = self.params(dimensions)
            row = self.row(arm, "search", ordinal, params=params, trial=ordinal, block=block)
            if params["lr"] > 0.7:
                rows.append(self.done(row, epochs=2, outcome="diverged"))
            elif ordinal > 4 and self.final(params, amplified=True) < 0.85:
                rows.append(self.done(row, epochs=max(1, self.epochs // 3), outcome="pruned"))
            else:
                rows.append(self.done(row))
        return rows

    def confirm(self, arm: str, winner: Row, seeds: Sequence[int], roles: Sequence[str], until: Until) -> list[Row]:
        known = {"block": winner.block, "source": winner.trial, "params": winner.params}
        rows = [self.done(self.row(arm, "choose", i, seed=500 + i, role="best", **known)) for i in range(2)]
        for role in roles:
            judged = [self.row(arm, "judge", i, seed=seed, role=role, **known) for i, seed in enumerate(seeds)]
            rows += [self.done(row) for row in judged]
            if until == "tested":
                tests = [self.row(arm, "test", i, seed=seed, role=role, **known) for i, seed in enumerate(seeds)]
                rows += [self.done(row, shift=-0.003) for row in tests]
        return rows


def with_audits(record: StudyRecord, finals: Mapping[str, Sequence[float | None]]) -> StudyRecord:
    """The study with audits of each arm's first pruned trials, which end with these values; None: it diverges."""
    arms = {
        name: replace(arm, rows=(*arm.rows, *_audits(arm, finals.get(name, ())))) for name, arm in record.arms.items()
    }
    return replace(record, arms=arms)


def _audits(arm: ArmRecord, finals: Sequence[float | None]) -> list[Row]:
    pruned = [row for row in arm.search() if row.outcome == "pruned"]
    assert len(finals) <= len(pruned), f"{arm.name} has {len(pruned)} pruned trials"
    return [_audit(row, final) for row, final in zip(pruned, finals, strict=False)]


def _audit(row: Row, final: float | None) -> Row:
    """Two more epochs."""
    seen = (0.5,) if final is None else (0.5, final)
    tail = [replace(row.curve[-1], epoch=row.epoch + 1 + index, value=value) for index, value in enumerate(seen)]
    outcome: Outcome = "diverged" if final is None else "complete"
    known = {"id": 10_000 + row.id, "stage": "audit", "source": row.trial, "trial": None, "value": final}
    return replace(row, **known, outcome=outcome, curve=(*row.curve, *tail), epoch=row.epoch + len(tail))


def make_record(
    *,
    until: Until = "tested",
    trials: int = 24,
    blocks: int = 1,
    seeds: int = 5,
    arms: Sequence[str] = ("monotone", "ralr"),
    change: Callable[[Row], Row] = lambda row: row,
    **builder: Any,
) -> StudyRecord:
    """A study of these arms; every arm but "monotone" is amplified. `change` may corrupt any row."""
    make = Builder(**builder)
    return StudyRecord(
        name="digits",
        spec_text=SPEC_TEXT,
        fingerprint="3f2a",
        storage="postgresql://user:***@host/db",
        created=1.7e9,
        environment={"ralr_tune": "0.1.0", "torch": "2.15.0", "optuna": "5.0.0", "device": "cpu (2 cores)"},
        baseline="monotone",
        metric=ACCURACY,
        margin=0.005,
        confidence=0.95,
        arms={name: _arm(make, name, until, trials, blocks, range(70, 70 + seeds), change) for name in arms},
    )


def _arm(
    make: Builder, name: str, until: Until, trials: int, blocks: int, seeds: Sequence[int], change: Callable[[Row], Row]
) -> ArmRecord:
    dimensions = SHARED if name == "monotone" else {**SHARED, **AMPLIFY}
    rows: list[Row] = []
    for block in range(1, blocks + 1):
        if until == "planned":
            rows += [make.row(name, "search", ordinal, block=block) for ordinal in range(trials)]
            continue
        searched = make.search(name, dimensions, trials, block)
        if until == "searching":
            half = trials // 2
            running = replace(searched[half], state="held", outcome=None, value=None, train_value=None, seconds=None)
            waiting = [make.row(name, "search", ordinal, block=block) for ordinal in range(half + 1, trials)]
            searched = [*searched[:half], running, *waiting]
        rows += searched
        complete = [row for row in searched if row.outcome == "complete"]
        if until in ("confirmed", "tested") and complete:
            winner = max(complete, key=lambda row: row.value or 0.0)
            rows += make.confirm(name, winner, seeds, ("best",) if name == "monotone" else ("best", "twin"), until)
    return ArmRecord(name, dimensions, tuple(change(row) for row in rows))
