"""The facts of the studies whose records are stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from ralr_tune.analysis.card import Card, make_card
from ralr_tune.analysis.comparison import Interval
from ralr_tune.analysis.facts import Facts, study_facts
from ralr_tune.analysis.next_step import Typed
from ralr_tune.search.interim import plan_of
from ralr_tune.store.reading import stored_spec
from ralr_tune.store.record_file import read_record_file
from results.planned import STUDIES, Planned

UNDECIDED = "not decided"
AMPLIFICATION = {
    "better": "improves", "worse": "harms", "equivalent": "no difference that matters", "inconclusive": UNDECIDED,
}  # fmt: skip
COMPARED = {
    "better": "better", "worse": "worse", "equivalent": "no difference that matters", "inconclusive": UNDECIDED,
}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """A study that has been run to its verdict."""

    planned: Planned
    facts: Facts
    card: Card


class Answer(NamedTuple):
    """One comparison."""

    question: str
    difference: str
    interval: str
    pairs: str
    verdict: str


@cache
def results() -> dict[str, Result]:
    """By name, in the order of STUDIES."""
    return {each.name: result(each) for each in STUDIES if each.record.exists()}


def result(planned: Planned) -> Result:
    """The facts of a stored record."""
    record = read_record_file(planned.record).record(planned.record.name)
    facts = study_facts(record, plan=plan_of(stored_spec(record)))
    return Result(planned, facts, make_card(facts, Typed("", "")))


def amplification(found: Result) -> list[Answer]:
    """What amplification changes by itself: recipes against themselves without it, on the same seeds."""
    facts = found.facts
    return _alone(facts, list(facts.arms)) + [
        _answer(facts, f"{made.donor}'s amplification, added to {made.arm}'s recipe", made, "seed", AMPLIFICATION)
        for made in facts.amplified
    ]


def _alone(facts: Facts, arms: Collection[str]) -> list[Answer]:
    """The recipes of these arms against their twins."""
    return [
        _answer(facts, f"amplification alone, in {made.arm}'s recipe", made, "seed", AMPLIFICATION)
        for made in facts.twins
        if made.arm in arms
    ]


def recipes(found: Result) -> list[Answer]:
    """Tuned recipes against the baseline's: what the user of one search gets."""
    made = (each for each in found.facts.comparisons if each.what == "configuration")
    return [
        _answer(found.facts, f"{each.arm}'s recipe against {each.against}'s", each, "seed", COMPARED) for each in made
    ]


def schedules(found: Result) -> list[Answer]:
    """The schedules themselves, over independent blocks of search."""
    made = (each for each in found.facts.comparisons if each.what == "arm")
    return [
        _answer(found.facts, f"{each.arm}'s schedule against {each.against}'s", each, "block", COMPARED)
        for each in made
    ]


def interaction(found: Result) -> list[Answer]:
    """Whether gains of amplification and regularisation add up between tuned recipes, and what amplification changes
    in the regularised one by itself, which luck in tuning does not touch."""
    regularised = {made.other.arm for made in found.facts.complementarity}
    return _alone(found.facts, regularised) + [
        Answer(
            f"tuned recipes: gain of both against the sum of both gains ({', '.join(made.differs)})",
            found.facts.unit.difference(made.interaction),
            _interval(found.facts, made.interval),
            _count(made.n, "seed"),
            made.verdict.replace("inconclusive", UNDECIDED),
        )
        for made in found.facts.complementarity
    ]


def duration(found: Result) -> list[Answer]:
    """How long an epoch takes with amplification, as a ratio to the same without it."""
    return [
        Answer(
            f"seconds of an epoch, {made.arm} / itself without amplification",
            f"{made.ratio:.2f}",
            "" if made.interval is None else f"{made.interval[0]:.2f} to {made.interval[1]:.2f}",
            _count(made.n, "seed"),
            _changed(made.interval, 1.0, "faster", "slower"),
        )
        for made in found.facts.costs
        if made.paired_by == "twin"
    ]


def overfitting(found: Result) -> list[Answer]:
    """How the gap between training and validation data changes with amplification."""
    return [
        Answer(
            f"gap between training and validation data, {arm.arm}'s recipe with minus without amplification",
            found.facts.unit.difference(made.difference),
            _interval(found.facts, made.interval),
            _count(made.n, "seed"),
            {"less": "overfits less", "more": "overfits more"}.get(made.verdict, UNDECIDED),
        )
        for arm in found.facts.overfitting
        for made in arm.differences
        if made.twin
    ]


def _answer(facts: Facts, question: str, made: Any, noun: str, words: Mapping[str, str]) -> Answer:
    """A `Comparison`, `Twin` or `Amplified` with the interval that its verdict rests on."""
    return Answer(
        question,
        facts.unit.difference(made.difference, facts.unit.digits(made.difference)),
        _interval(facts, made.deciding or made.interval),
        _count(made.n, noun),
        words[made.verdict],
    )


def _interval(facts: Facts, interval: Interval | None) -> str:
    return (
        ""
        if interval is None
        else " to ".join(facts.unit.signed(end, facts.unit.digits(*interval)) for end in interval)
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _changed(interval: Interval | None, unchanged: float, below: str, above: str) -> str:
    if interval is None or interval[0] <= unchanged <= interval[1]:
        return "no difference shown"
    return below if interval[1] < unchanged else above
