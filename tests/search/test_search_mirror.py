"""The mirror test: a study with metric `error` decides as one with metric `value`, and reports mirrored numbers.

No sampler or pruner breaks the symmetry: Optuna's turn their signs (GP), sort in reverse (TPE, ASHA) or take the other
percentile (median), all of which is exact. They draw from the study's seed and name, which are the same both ways. So
everything is compared, to the last bit.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from ralr_tune.kinds.simulated import trial as simulated_trial
from tests.search.mirror import (
    PRUNERS,
    SAMPLERS,
    Whole,
    file_of,
    mirrored_json,
    mirrored_row,
    negative,
    timeless,
    whole,
)

DIAGONAL = [("tpe", "median"), ("random", "asha"), ("qmc", "hyperband"), ("gp", "asha")]
"""Every sampler once; the whole grid is slow."""
GRID = [
    pytest.param(*pair, marks=() if pair in DIAGONAL else pytest.mark.slow)
    for pair in itertools.product(SAMPLERS, PRUNERS)
]
NUMBER = re.compile(r"[+−-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
BETTER = re.compile(r"\b(larger|smaller) is better")


@pytest.fixture(autouse=True)
def _steady_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every epoch takes one second: what epochs cost is compared, too."""
    seconds = itertools.count()
    monkeypatch.setattr(simulated_trial, "time", SimpleNamespace(perf_counter=lambda: float(next(seconds))))


def both(sampler: str, pruner: str, folder: Path, *, trials: int) -> tuple[Whole, Whole]:
    """The study judged by its value, and by its error."""
    value, error = (
        whole(file_of(metric, sampler, pruner, trials=trials), folder / metric) for metric in ("value", "error")
    )
    return value, error


@pytest.mark.parametrize(("sampler", "pruner"), GRID)
def test_a_mirrored_study_decides_the_same(sampler: str, pruner: str, tmp_path: Path) -> None:
    trials = 16 if pruner == "patient" else 8  # it prunes only after five complete trials
    value, error = both(sampler, pruner, tmp_path, trials=trials)
    outcomes = {row.outcome for row in value.record.rows() if row.stage == "search"}
    assert outcomes == {"complete", "pruned", "diverged"}, "nothing would be compared of one of them"
    assert {row.stage for row in value.record.rows()} == {"search", "audit", "choose", "judge", "test"}
    assert [timeless(row) for row in error.record.rows()] == [
        timeless(mirrored_row(row)) for row in value.record.rows()
    ]
    assert error.asked == {
        name: [
            (state, params, negative(told), {step: -each for step, each in reports.items()})
            for state, params, told, reports in trials
        ]
        for name, trials in value.asked.items()
    }
    _check_reports(value, error)


def _check_reports(value: Whole, error: Whole) -> None:
    assert error.json == mirrored_json(value.json, "error")
    assert error.heights == [(trial, outcome, -height) for trial, outcome, height in value.heights]
    assert error.evaluators == value.evaluators
    for name, arm in value.status["arms"].items():
        assert error.status["arms"][name] == arm | {"best_value": negative(arm["best_value"])}
    for name, text in value.notes.items():
        _check_note(text, error.notes[name])
    _check_exports(value, error)


def _check_note(value: str, error: str) -> None:
    """The same text, and the same numbers except for their signs and the order of an interval's ends."""
    assert (BETTER.search(value) or [""])[0] == "larger is better"
    assert (BETTER.search(error) or [""])[0] == "smaller is better"
    texts = [BETTER.sub("", text.replace(" error ", " value ")) for text in (value, error)]
    assert NUMBER.sub("#", texts[0]) == NUMBER.sub("#", texts[1])
    numbers = [sorted(number.lstrip("+−-") for number in NUMBER.findall(text)) for text in texts]
    assert numbers[0] == numbers[1]


def _check_exports(value: Whole, error: Whole) -> None:
    assert value.exports.keys() == error.exports.keys() == value.spec.arms.keys()
    for name, own in value.exports.items():
        where = own["provenance"]
        scores = {
            split: where[split] and where[split] | {"mean": -where[split]["mean"]} for split in ("confirmed", "tested")
        }
        turned = where | scores | {"metric": "error", "value": -where["value"], "fingerprint": error.spec.fingerprint}
        assert error.exports[name] == own | {"provenance": turned}


def test_value_and_its_old_name_accuracy_give_the_same_study(tmp_path: Path) -> None:
    value, old = (whole(file_of(name, "random", "median", trials=6), tmp_path / name) for name in ("value", "accuracy"))
    assert [timeless(row) for row in old.record.rows()] == [timeless(row) for row in value.record.rows()]
    assert old.json == value.json | {"metric": "accuracy"}
