"""The 2 x 2 of arms: which four belong together, the interaction, and how often chance is called one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_study import make_record

from ralr_tune.analysis.comparison import paired_test
from ralr_tune.analysis.complementarity import Complementarity, complementarity
from ralr_tune.analysis.facts import as_json, study_facts
from ralr_tune.analysis.notes import claim_sentences
from ralr_tune.metric import Metric
from ralr_tune.records import ArmRecord, Row, StudyRecord
from tests.metrics import ACCURACY, LOSS

ARMS = ("monotone", "ralr", "regularised", "both")
"""A0, A1, B0, B1."""

LR = {"low": 1e-3, "high": 1.0, "log": True, "step": None}
PLAIN: dict[str, Any] = {"lr": LR, "epochs": 12, "augment": ("crop",), "schedule.name": "multistep"}
REGULARISED = PLAIN | {"augment": ("crop", "cutout"), "label_smoothing": 0.1}
AMPLIFY = {"amplify.probability": {"low": 0.05, "high": 0.6, "log": False, "step": None}, "amplify.width": 2.0}
SETTINGS = {"monotone": PLAIN, "ralr": PLAIN | AMPLIFY, "regularised": REGULARISED, "both": REGULARISED | AMPLIFY}

TEMPLATE = make_record(arms=ARMS, trials=2, seeds=1)


def judged(row: Row, scores: Mapping[str, Sequence[float | None]]) -> list[Row]:
    """The one judged (or tested) row of the template, once for each score; without one, it diverged."""
    outcomes = [("diverged" if score is None else "complete", score) for score in scores[row.arm]]
    return [
        replace(row, ordinal=seed, seed=70 + seed, outcome=outcome, value=score)  # type: ignore[arg-type]
        for seed, (outcome, score) in enumerate(outcomes)
    ]


def study(
    scores: Mapping[str, Sequence[float | None]],
    arms: Mapping[str, Mapping[str, Any]] = SETTINGS,
    *,
    stages: Sequence[str] = ("judge", "test"),
    **known: Any,
) -> StudyRecord:
    """Arms with these settings and these confirmed scores on the seeds 70, 71, ..."""
    found = {}
    for name, own in arms.items():
        arm = TEMPLATE.arms.get(name) or renamed(TEMPLATE.arms["ralr"], name)
        rows = [row for row in arm.rows if row.stage in ("search", "choose")]
        for row in arm.rows:
            rows += judged(row, scores) if row.role == "best" and row.stage in stages else []
        found[name] = replace(arm, rows=tuple(rows), settings=own)
    return replace(TEMPLATE, arms=found, **known)


def renamed(arm: ArmRecord, name: str) -> ArmRecord:
    return replace(arm, name=name, rows=tuple(replace(row, arm=name) for row in arm.rows))


def square(*scores: Sequence[float | None], **known: Any) -> Complementarity:
    (found,) = complementarity(study(dict(zip(ARMS, scores, strict=True)), **known), "test")
    return found


def names(record: StudyRecord) -> list[tuple[str, str, str, str]]:
    return [
        (each.plain.against, each.plain.arm, each.other.against, each.other.arm)
        for each in complementarity(record, "test")
    ]


# ---------------------------------------------------------------- the interaction

SHARES = st.floats(0.1, 0.9)


@given(
    base=st.lists(SHARES, min_size=2, max_size=8),
    gain=st.floats(-0.1, 0.1),
    change=st.floats(-0.1, 0.1),
)
@settings(max_examples=50, derandomize=True)
def test_what_adds_up_exactly_has_no_interaction(base: list[float], gain: float, change: float) -> None:
    found = square(
        base,
        [value + gain for value in base],
        [value + change for value in base],
        [value + gain + change for value in base],
    )
    assert found.interaction == pytest.approx(0.0, abs=1e-12)
    assert found.plain.difference == pytest.approx(gain, abs=1e-12)
    assert found.other.difference == pytest.approx(gain, abs=1e-12)
    assert found.n == len(base)


@given(st.lists(st.tuples(SHARES, SHARES, SHARES, SHARES), min_size=3, max_size=8))
@settings(max_examples=50, derandomize=True)
def test_the_interaction_is_the_difference_of_the_gains(seeds: list[tuple[float, ...]]) -> None:
    scores = np.array(seeds).T
    found = square(*scores.tolist())
    assert found.interaction == pytest.approx(found.other.difference - found.plain.difference, abs=1e-12)
    turned = square(*scores[[2, 3, 0, 1]].tolist())
    assert turned.interaction == pytest.approx(-found.interaction, abs=1e-12)
    across = square(*scores[[0, 2, 1, 3]].tolist())  # amplification and the rest change places
    assert across.interaction == pytest.approx(found.interaction, abs=1e-12)


def test_figures_are_those_of_a_t_test_over_seeds() -> None:
    scores = np.random.default_rng(0).normal(0.9, 0.01, (4, 6))
    found = square(*scores.tolist())
    gains = scores[1] - scores[0], scores[3] - scores[2]
    test = paired_test(list(gains[1] - gains[0]), margin=0.005, confidence=0.95)
    assert found.interval == pytest.approx(test.interval)
    assert found.p_value == pytest.approx(test.p_value)
    for gain, differences in zip((found.plain, found.other), gains, strict=True):
        single = paired_test(list(differences), margin=0.005, confidence=0.95)
        assert gain.difference == pytest.approx(single.difference)
        assert gain.interval == pytest.approx(single.interval)
    assert found.differs == ("augment", "label_smoothing")


WOBBLE = (0.0, 0.001, -0.001, 0.002, -0.002)


@pytest.mark.parametrize(
    ("gains", "metric", "verdict"),
    [
        ((0.02, 0.02), ACCURACY, "adds up"),
        ((0.02, 0.0), ACCURACY, "less together"),
        ((0.0, 0.02), ACCURACY, "more together"),
        ((-0.02, 0.0), ACCURACY, "more together"),
        ((-0.02, 0.0), LOSS, "less together"),  # what lowered a loss lowers it no more
        ((0.02, 0.0), LOSS, "more together"),
        ((0.02, 0.015), ACCURACY, "less together"),
    ],
)
def test_verdicts(gains: tuple[float, float], metric: Metric, verdict: str) -> None:
    scores = [[0.9 + step for step in WOBBLE] for _ in range(4)]
    for place, gain in zip((1, 3), gains, strict=True):
        scores[place] = [value + gain + 0.3 * WOBBLE[-seed] for seed, value in enumerate(scores[place])]
    scores[3][0] += 0.0005
    assert square(*scores, metric=metric).verdict == verdict


def test_few_or_noisy_seeds_are_inconclusive() -> None:
    assert square([0.9], [0.92], [0.9], [0.99]).verdict == "inconclusive"
    assert square([0.9], [0.92], [0.9], [0.99]).interval is None
    wild = square([0.9, 0.8, 0.7], [0.8, 0.9, 0.7], [0.7, 0.8, 0.9], [0.9, 0.9, 0.9])
    assert wild.verdict == "inconclusive"


def test_only_seeds_that_all_four_have_count() -> None:
    found = square([0.9, 0.9, 0.9], [0.91, None, 0.93], [0.9, 0.9], [0.9, 0.9, 0.9])
    assert found.n == 1
    assert (found.plain.difference, found.other.difference) == (pytest.approx(0.01), 0.0)
    assert complementarity(study({arm: [None] for arm in ARMS}), "test") == ()


@pytest.mark.parametrize(("split", "stages"), [("validation", ("judge",)), ("test", ("judge", "test"))])
def test_scores_are_those_of_the_split(split: Any, stages: Sequence[str]) -> None:
    record = study({arm: [0.9, 0.91] for arm in ARMS}, stages=stages)
    (found,) = study_facts(record).complementarity
    assert found.split == split


# ---------------------------------------------------------------- which arms


def with_settings(**arms: Mapping[str, Any]) -> StudyRecord:
    return study({arm: [0.9, 0.9] for arm in arms}, arms)


def test_the_row_of_the_baseline_comes_first() -> None:
    turned = {name: SETTINGS[name] for name in reversed(ARMS)}
    assert names(with_settings(**turned)) == [("monotone", "ralr", "regularised", "both")]


@pytest.mark.parametrize(
    "changes",
    [
        {"both": REGULARISED | {"amplify.probability": 0.5, "amplify.width": 2.0}},  # amplified in another way
        {"both": REGULARISED | AMPLIFY | {"lr": 0.1}},  # its rate is not searched
        {"both": REGULARISED},
        {"regularised": REGULARISED | {"epochs": 13}},
        {"regularised": PLAIN, "both": PLAIN | AMPLIFY},  # nothing differs between the rows
        {  # the rows differ in the base curve, too
            "regularised": REGULARISED | {"schedule.name": "cosine"},
            "both": REGULARISED | AMPLIFY | {"schedule.name": "cosine"},
        },
        {"regularised": REGULARISED | {"noise.std": 1.0}},
    ],
)
def test_four_arms_that_form_no_square(changes: dict[str, Mapping[str, Any]]) -> None:
    assert names(with_settings(**(SETTINGS | changes))) == []


def test_every_square_is_found() -> None:
    mixed = PLAIN | {"augment": ("crop", "mixup")}
    record = with_settings(**SETTINGS, mixed=mixed, mixed_ralr=mixed | AMPLIFY, alone=PLAIN | {"epochs": 3})
    assert names(record) == [
        ("monotone", "ralr", "regularised", "both"),
        ("monotone", "ralr", "mixed", "mixed_ralr"),
        ("regularised", "both", "mixed", "mixed_ralr"),
    ]


def test_records_without_settings_have_no_squares() -> None:
    assert names(with_settings(**{arm: {} for arm in ARMS})) == []
    assert study_facts(make_record()).complementarity == ()


# ---------------------------------------------------------------- words


def test_the_sentence_and_the_json() -> None:
    scores = {"monotone": (0.9, 0.91, 0.92), "ralr": (0.92, 0.93, 0.94), "regularised": (0.95, 0.96, 0.97)}
    facts = study_facts(study(scores | {"both": (0.951, 0.9615, 0.971)}))
    assert claim_sentences(facts)[-1] == (
        "Does amplification add to the changes from monotone to regularised (augment, label_smoothing)? It changes "
        "monotone by +2.00 points and regularised by +0.12 points (+0.04 to +0.19), the second minus the first is "
        "\N{MINUS SIGN}1.88 points (95% interval \N{MINUS SIGN}1.96 to \N{MINUS SIGN}1.81, "
        "n = 3 seeds on the test split): less together. Each of the four "
        "arms is tuned separately; uncorrected."
    )
    (written,) = json.loads(json.dumps(as_json(facts)))["complementarity"]
    assert written["verdict"] == "less together"
    assert written["plain"]["against"] == "monotone"
    assert written["differs"] == ["augment", "label_smoothing"]


def test_what_adds_up_names_the_margin() -> None:
    base = [0.9, 0.91, 0.92, 0.93]
    scores = {"monotone": base, "ralr": base, "regularised": base, "both": [0.9, 0.9105, 0.92, 0.93]}
    assert "adds up (within 0.5 points)" in claim_sentences(study_facts(study(scores)))[-1]


# ---------------------------------------------------------------- calibration


@pytest.mark.parametrize("margin", [0.0, 0.005])
@pytest.mark.parametrize("seeds", [5, 20])
@pytest.mark.parametrize("shared", [0.0, 0.9], ids=["independent", "correlated"])
def test_chance_is_rarely_called_an_interaction(margin: float, seeds: int, shared: float) -> None:
    """1,000 squares without one, though both factors have effects; 7.1% is 5% and three standard errors."""
    rng = np.random.default_rng([seeds, int(10 * shared)])
    means = np.array([0.9, 0.91, 0.93, 0.94])[:, None]
    verdicts: Counter[str] = Counter()
    for _ in range(1000):
        luck = np.sqrt(shared) * rng.standard_normal(seeds) + np.sqrt(1 - shared) * rng.standard_normal((4, seeds))
        verdicts[square(*(means + 0.005 * luck).tolist(), margin=margin).verdict] += 1
    assert verdicts["less together"] + verdicts["more together"] <= 71
    assert margin > 0 or verdicts["less together"] + verdicts["more together"] >= 29  # and it is sometimes called one


def test_an_interaction_of_twice_its_spread_is_detected() -> None:
    rng = np.random.default_rng(7)
    means = np.array([0.9, 0.92, 0.93, 0.93])[:, None]  # 2 points less together; sd of the interaction 1 point
    verdicts = Counter(
        square(*(means + 0.005 * rng.standard_normal((4, 5))).tolist(), margin=0.0).verdict for _ in range(300)
    )
    assert verdicts["less together"] >= 0.85 * 300
    assert verdicts["more together"] == 0
