"""The answer of a study in plain words: figures, their uncertainty, n, and which kind of comparison it is."""

from __future__ import annotations

from collections.abc import Iterable

from ralr_tune.analysis.comparison import Comparison, Interval
from ralr_tune.analysis.facts import ArmFacts, Facts, Twin


def answer(facts: Facts) -> str:
    """All that can honestly be said so far, in one or two sentences where one arm is compared with the baseline."""
    return " ".join(answers(facts))


def answers(facts: Facts) -> list[str]:
    """The same, a sentence for each arm, and what was not compared."""
    made = [comparison for comparison in facts.comparisons if comparison.what == "configuration"]
    if made:
        return [*(_configuration(facts, comparison) for comparison in made), *_lost(facts), *_arms(facts)]
    if any(arm.best for arm in facts.arms.values()):
        return [_searched(facts)]
    return [_nothing(facts)]


def twin_sentences(facts: Facts) -> list[str]:
    """What amplification did, apart from how lucky the tuning was: each arm's configuration against its twin."""
    return [_twin(facts, twin) for twin in facts.twins]


def _twin(facts: Facts, twin: Twin) -> str:
    unit, bounds = facts.unit, ""
    if twin.interval:
        low, high = (unit.signed(bound, 2) for bound in twin.interval)
        bounds = f", {100 * facts.confidence:g}% interval {low} to {high}"
    difference = f"{unit.difference(twin.difference, 2)} on the {twin.split} split"
    return (
        f"{twin.arm}'s configuration against its twin, the same with its amplification off: "
        f"{difference}{bounds}, n = {twin.n}: {twin.verdict}."
    )


def _configuration(facts: Facts, made: Comparison) -> str:
    unit, arm, base = facts.unit, facts.arms[made.arm].confirm, facts.arms[made.against].confirm
    if arm is None or base is None or arm.mean is None or base.mean is None:  # a comparison has values on both sides
        raise ValueError(f"comparison: {made.arm} against {made.against}, allowed: arms with confirmed scores")
    digits = _digits(facts, made)
    return (
        f"{made.arm}'s best configuration scored {unit.value(arm.mean, digits)} against "
        f"{unit.value(base.mean, digits)} for {made.against}'s on the {facts.split} split "
        f"({_evidence(facts, made)}): {_verdict(facts, made)}."
    )


def _digits(facts: Facts, made: Comparison) -> int:
    return facts.unit.digits(made.difference, *(made.interval or ()))


def _evidence(facts: Facts, made: Comparison) -> str:
    digits = _digits(facts, made)
    count = f"{made.n} " + {"configuration": "paired seed(s)", "arm": "block(s) of search each"}[made.what]
    count = count.replace("(s)", "" if made.n == 1 else "s")
    together = sum(other.what == made.what for other in facts.comparisons)
    joint = f", corrected for {together} comparisons" if together > 1 else ""
    difference = facts.unit.difference(made.difference, digits)
    return f"difference {difference}, {_interval(facts, made.interval, digits)}, {count}{joint}"


def _interval(facts: Facts, interval: Interval | None, digits: int) -> str:
    if interval is None:
        return "too few for an interval"
    low, high = (facts.unit.signed(bound, digits) for bound in interval)
    return f"{100 * facts.confidence:g}% interval {low} to {high}"


def _verdict(facts: Facts, made: Comparison) -> str:
    if made.verdict == "equivalent":
        return f"equivalent within {facts.unit.difference(facts.margin).removeprefix('+')}"
    return made.verdict


def _arms(facts: Facts) -> list[str]:
    made = [comparison for comparison in facts.comparisons if comparison.what == "arm"]
    if not made:
        single = all(arm.blocks <= 1 for arm in facts.arms.values())
        reason = "one block of search each" if single else "fewer than two blocks of search were judged in each"
        return [f"Arms as such were not compared: {reason}."]
    return [
        f"Arm against arm, {each.arm} against {each.against}: {_evidence(facts, each)}: {_verdict(facts, each)}."
        for each in made
    ]


def _lost(facts: Facts) -> Iterable[str]:
    """Seeds that ended without a score flatter a configuration, so they are named."""
    for name, arm in facts.arms.items():
        if arm.confirm and arm.confirm.lost:
            total = arm.confirm.lost + len(arm.confirm.values)
            yield f"Of {name}'s {total} seeds {arm.confirm.lost} diverged or failed and count nowhere above."


def _searched(facts: Facts) -> str:
    found = [
        f"{name}'s best of {_done(arm)} reached {_best(facts, arm)}" for name, arm in facts.arms.items() if arm.best
    ]
    missing = [f"{name} has no completed trial" for name, arm in facts.arms.items() if not arm.best]
    return (
        f"Not confirmed yet. On the validation split {', '.join(found + missing)}; "
        "each is one run with one seed, so nothing is compared."
    )


def _best(facts: Facts, arm: ArmFacts) -> str:
    return facts.unit.value(arm.best.value) if arm.best else "nothing"


def _done(arm: ArmFacts) -> str:
    return f"{sum(arm.counts[name] for name in ('complete', 'pruned', 'diverged'))} trials"


def _nothing(facts: Facts) -> str:
    total = {name: sum(arm.counts[name] for arm in facts.arms.values()) for name in ("budget", "diverged", "failed")}
    return (
        f"No trial has completed yet: {total['budget']} are planned, {total['diverged']} diverged, "
        f"{total['failed']} failed."
    )
