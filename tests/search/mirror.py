"""Runs a whole simulated study with the real code in one process, and computes what its mirror image must look like.

A study with metric `error` must make the same decisions as one with metric `value`, and report the negative of each
value: `error` is exactly `-value`, without rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ralr_tune.analysis.card import make_card
from ralr_tune.analysis.evaluators import study_importances
from ralr_tune.analysis.facts import Facts, as_json, study_facts
from ralr_tune.analysis.next_step import Typed
from ralr_tune.commands.export import chosen_rows
from ralr_tune.commands.status import study_status
from ralr_tune.records import EpochRecord, Row, StudyRecord
from ralr_tune.report.export import exported
from ralr_tune.report.panels import note
from ralr_tune.report.trials import parameter_facts
from ralr_tune.search.interim import plan_of
from ralr_tune.search.session import Session
from ralr_tune.search.stages import advance, plan_search
from ralr_tune.search.tasks import Tasks
from ralr_tune.search.telling import settle
from ralr_tune.search.trial import work_on
from ralr_tune.store import studies
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.store.reading import read_study
from ralr_tune.studyfile import StudySpec
from tests.studies import AMPLIFY, simulated

SAMPLERS: Mapping[str, Mapping[str, Any]] = {
    "tpe": {"n_startup_trials": 3},
    "random": {},
    "qmc": {},
    "gp": {"n_startup_trials": 3},
}
"""With options such that the sampler models something in a small study."""
PRUNERS: Mapping[str, Mapping[str, Any]] = {
    "median": {"n_startup_trials": 2},
    "asha": {"reduction_factor": 2},
    "hyperband": {"reduction_factor": 2},
    "patient": {"patience": 0, "min_delta": 0.5},
}
"""With options such that the pruner prunes something in a small study."""


@dataclass(frozen=True)
class Whole:
    """A study that was searched, confirmed, tested and reported."""

    spec: StudySpec
    record: StudyRecord
    facts: Facts
    status: Mapping[str, Any]
    asked: Mapping[str, Any]
    """By Optuna study: (state, parameters, value, reports) of each trial."""

    @property
    def json(self) -> dict[str, Any]:
        """`report --json`, without when each generation began."""
        found = as_json(self.facts)
        del found["generations"]
        return found

    @property
    def exports(self) -> dict[str, dict[str, Any]]:
        """The exported configuration of each arm."""
        rows = chosen_rows(self.record, self.spec)
        return {arm: exported(self.record, self.spec, arm, row).model_dump() for arm, row in rows.items()}

    @property
    def notes(self) -> dict[str, str]:
        """The dashboard's note of each arm, without the time that it took."""
        card = make_card(replace(self.facts, spending=None), Typed("run", "status"))
        return {arm: note(self.facts, card, arm) for arm in self.facts.arms}

    @property
    def heights(self) -> list[tuple[Any, ...]]:
        """Every mark of the figures of trials: (trial, outcome, height)."""
        drawn = [points for each in parameter_facts(self.record) for points in each.points.values()]
        return [(mark.trial, mark.outcome, mark.height) for points in drawn for mark in points]

    @property
    def evaluators(self) -> Any:
        """Optuna's own importances."""
        return study_importances(self.record, draws=5)


def file_of(metric: str, sampler: str, pruner: str, *, trials: int) -> StudySpec:
    """Two arms; trials that diverge, are pruned and audited; winners on more seeds until the verdict is settled."""
    return simulated(
        study={"metric": metric, "seed": 3},
        task={"data": {"jitter": 0.03, "epoch_noise": 0.02, "diverges_above": 0.9}},
        training={"epochs": 4},
        arms={"monotone": {}, "ralr": {"amplify": AMPLIFY}},
        search={
            "trials": trials, "blocks": 2, "audit": 0.5,
            "sampler": sampler, "sampler_options": SAMPLERS[sampler],
            "pruner": pruner, "pruner_options": PRUNERS[pruner],
        },
        confirm={"top": 2, "seeds": "auto", "most_seeds": 6},
    )  # fmt: skip


def whole(spec: StudySpec, folder: Path) -> Whole:
    """Search, confirm and test the study, as one worker does, and report it."""
    with prepared(spec, folder) as session:
        while (stage := advance(session.ledger, session.storage, session.spec)) is not None:
            while (row := session.ledger.claim(session.owner, stage)) is not None:
                work_on(session, row)
            settle(session)
        record = read_study(session.storage, spec.name)
        status = study_status(session.storage, spec.name).as_json()
        return Whole(spec, record, study_facts(record, plan=plan_of(spec)), status, _asked(session.storage, spec))


@contextmanager
def prepared(spec: StudySpec, folder: Path) -> Iterator[Session]:
    """A session on its own database, as `run` prepares it for its workers."""
    folder.mkdir()
    storage = open_storage(f"sqlite:///{folder}/study.db", create=True)
    try:
        studies.register(storage, name=spec.name, text=spec.text, fingerprint=spec.fingerprint)
        for name in _optuna_names(spec):
            studies.optuna_study(storage, name, metric=spec.metric)
        ledger = Ledger(storage, spec.name, spec.storage.lease_s)
        plan_search(ledger, spec, spec.search.trials)
        yield Session(spec, storage, ledger, Tasks(spec, device="cpu"), folder / "out", "me")
    finally:
        storage.dispose()


def _optuna_names(spec: StudySpec) -> list[str]:
    blocks = range(1, spec.search.blocks + 1)
    return [studies.optuna_name(spec.name, arm, block) for arm in spec.arms for block in blocks]


def _asked(storage: Storage, spec: StudySpec) -> dict[str, Any]:
    found = {name: studies.optuna_trials(storage, name) for name in _optuna_names(spec)}
    return {
        name: [(each.state.name, each.params, each.value, each.intermediate_values) for each in trials.values()]
        for name, trials in found.items()
    }


# ---------------------------------------------------------------- the mirror image

VALUES: Mapping[str, frozenset[str]] = {
    "arms": frozenset({"value", "values", "mean", "generalization_gap"}),
    "twins": frozenset({"difference", "interval"}),
    "comparisons": frozenset({"difference", "interval", "equivalence_interval", "deciding"}),
    "looks": frozenset({"difference", "interval", "equivalence_interval", "deciding"}),
    "amplified": frozenset({"difference", "interval", "equivalence_interval", "deciding"}),
    "budgets": frozenset({"best", "low", "high", "value"}),
    "leads": frozenset({"difference", "interval", "low", "high"}),
    "robustness": frozenset({"expected", "value", "lower", "middle", "upper"}),
}
"""Keys of `report --json`, by section, that hold values of the metric or differences of them. Everything else must be
equal: verdicts, p-values, spreads, gains, shares, seeds, parameters."""


def mirrored_json(report: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """The `report --json` that the mirrored study must give."""
    found = {name: _turned(part, VALUES.get(name, frozenset())) for name, part in report.items()}
    return found | {"metric": metric}


def _turned(part: Any, values: frozenset[str]) -> Any:
    if isinstance(part, list):
        return [_turned(each, values) for each in part]
    if not isinstance(part, Mapping):
        return part
    turned = {key: negative(value) if key in values else _turned(value, values) for key, value in part.items()}
    for low, high in (("low", "high"), ("lower", "upper")):
        if {low, high} <= values & part.keys():
            turned[low], turned[high] = turned[high], turned[low]
    for key in {"interval", "equivalence_interval", "deciding"} & values & part.keys():
        if turned[key] is not None:
            turned[key].reverse()
    return turned


def negative(value: Any) -> Any:
    """The negative of a number, or of each in a list; unknown values stay unknown."""
    if isinstance(value, list | tuple):
        return [negative(each) for each in value]
    return None if value is None else -value


def mirrored_row(row: Row) -> Row:
    """The row that the mirrored study must have, except for its times."""
    curve = tuple(mirrored_epoch(epoch) for epoch in row.curve)
    return replace(row, value=negative(row.value), train_value=negative(row.train_value), curve=curve)


def mirrored_epoch(epoch: EpochRecord) -> EpochRecord:
    """The epoch with the negative of its value."""
    return replace(epoch, value=-epoch.value)


def timeless(row: Row) -> Row:
    """The row without its times."""
    return replace(row, started=None, finished=None)
