"""The evidence for the verdict card in sentences: every difference, its uncertainty, n, and the kind of comparison."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from ralr_tune.analysis.comparison import Comparison, Interval, What
from ralr_tune.analysis.facts import Facts, Twin
from ralr_tune.analysis.power import ENOUGH_PAIRS, MAX_PAIRS, Counts
from ralr_tune.analysis.sentence import Sentence
from ralr_tune.analysis.sequential import Decision
from ralr_tune.analysis.twins import Amplified

Compared = tuple[What, str, str]
"""What was compared with what; a configuration without its amplification has the name of its arm."""


def comparison_sentences(facts: Facts, but: Collection[Compared] = ()) -> list[str]:
    """Each arm against the baseline: scores, difference, interval and n."""
    made = [each for each in facts.comparisons if (each.what, each.arm, each.against) not in but]
    return [(_configuration if each.what == "configuration" else _arm)(facts, each) for each in made]


def twin_sentences(facts: Facts, but: Collection[Compared] = ()) -> list[str]:
    """What amplification did, apart from luck in tuning: a configuration with and without it, in both directions."""
    return [
        *(_twin(facts, twin) for twin in facts.twins if ("configuration", twin.arm, twin.arm) not in but),
        *(_amplified(facts, added) for added in facts.amplified),
        *_both_ways(facts),
    ]


def _twin(facts: Facts, twin: Twin) -> str:
    question = f"{twin.arm}'s configuration against its twin, the same with its amplification off"
    return Sentence(f"{question}: {_alone(facts, twin)}: ", twin.verdict, ".")


def _amplified(facts: Facts, added: Amplified) -> str:
    lost = f" {added.lost} further seeds diverged or failed with it." if added.lost else ""
    question = f"{added.arm}'s configuration with {added.donor}'s amplification added, against itself without"
    return Sentence(f"{question}: {_alone(facts, added)}: ", added.verdict, f".{lost}")


def _alone(facts: Facts, made: Twin | Amplified) -> str:
    """Difference, interval and n of a separate comparison."""
    unit, bounds = facts.unit, ""
    if made.interval:
        low, high = (unit.signed(bound, 2) for bound in made.interval)
        bounds = f", {100 * facts.confidence:g}% interval {low} to {high}"
    return f"{unit.difference(made.difference, 2)} on the {made.split} split{bounds}, n = {made.n}"


def _both_ways(facts: Facts) -> Iterable[str]:
    """The combined result, if an arm's amplification was both removed and added."""
    for twin in facts.twins:
        for added in facts.amplified:
            if added.donor == twin.arm:
                yield f"Both ways round, {twin.arm}'s amplification {_combined(twin.verdict, added.verdict)}."


def _combined(*verdicts: str) -> str:
    found = set(verdicts)
    if found == {"better"}:
        return "helped"
    if found == {"worse"}:
        return "hurt"
    if found == {"equivalent"}:
        return "made no difference that matters"
    if found == {"better", "worse"}:
        return "helped one configuration and hurt the other: it depends on the rest"
    return "has no effect that both comparisons show"


def _span(counts: Counts) -> str:
    return f"{counts[0]} to " + (f"more than {MAX_PAIRS:,}" if counts[1] is None else str(counts[1]))


def _pairs(what: str) -> Callable[[int], str]:
    noun = {"configuration": "seed", "arm": "block"}[what]
    return lambda count: noun if count == 1 else f"{noun}s"


def _configuration(facts: Facts, made: Comparison) -> str:
    unit, arm, base = facts.unit, facts.arms[made.arm].confirm, facts.arms[made.against].confirm
    if arm is None or base is None or arm.mean is None or base.mean is None:  # a comparison has values on both sides
        raise ValueError(f"comparison: {made.arm} against {made.against}, allowed: arms with confirmed scores")
    digits = _digits(facts, made)
    scores = (
        f"{made.arm}'s best configuration scored {unit.value(arm.mean, digits)} against "
        f"{unit.value(base.mean, digits)} for {made.against}'s on the {facts.split} split "
        f"({_evidence(facts, made)}): "
    )
    return Sentence(scores, _verdict(facts, made), f"{_beyond(facts, made)}.")


def _beyond(facts: Facts, made: Comparison) -> str:
    """What follows a missing verdict: the detectable difference, and how many more pairs would settle it."""
    decision = facts.looks.get(made.arm) if made.what == "configuration" else None
    if decision is not None and decision.next_look is not None and facts.split == "validation":
        return f" so far; the next interim analysis is at {decision.next_look} seeds"
    found = next((each for each in facts.reach if (each.what, each.arm) == (made.what, made.arm)), None)
    if made.verdict != "inconclusive" or found is None:
        return ""
    pairs = _pairs(made.what)
    if not found.judged:
        return f"; {made.n} {pairs(made.n)} are too few to judge, at least {ENOUGH_PAIRS} are needed"
    seen = f"; {made.n} {pairs(made.n)} could have detected a difference of {facts.unit.size(found.visible)}"
    if found.more is None:
        return f"{seen}, and no affordable number of {pairs(2)} would settle this one"
    count, span = found.more
    return f"{seen}, and about {count} more ({_span(span)}) would settle it"


def _digits(facts: Facts, made: Comparison) -> int:
    return facts.unit.digits(made.difference, *(made.interval or ()))


def _evidence(facts: Facts, made: Comparison) -> str:
    digits = _digits(facts, made)
    count = f"{made.n} " + {"configuration": "paired seed(s)", "arm": "block(s) of search each"}[made.what]
    count = count.replace("(s)", "" if made.n == 1 else "s")
    together = sum(other.what == made.what for other in facts.comparisons)
    joint = f", corrected for {together} comparisons" if together > 1 else ""
    if made.what == "configuration" and made.arm in facts.looks:
        joint += _interim(facts.looks[made.arm])
    difference = facts.unit.difference(made.difference, digits)
    return f"difference {difference}, {_interval(facts, made.interval, digits)}, {count}{joint}"


def _interim(decision: Decision) -> str:
    return (
        f", interim analysis {decision.looks} of up to {decision.planned}, corrected for all of them"
        if decision.looks
        else ""
    )


def _interval(facts: Facts, interval: Interval | None, digits: int) -> str:
    if interval is None:
        return "too few for an interval"
    low, high = (facts.unit.signed(bound, digits) for bound in interval)
    return f"{100 * facts.confidence:g}% interval {low} to {high}"


def _verdict(facts: Facts, made: Comparison) -> str:
    if made.verdict == "equivalent":
        return f"equivalent within {facts.unit.difference(facts.margin).removeprefix('+')}"
    return made.verdict


def _arm(facts: Facts, made: Comparison) -> str:
    question = f"Arm against arm, {made.arm} against {made.against}: {_evidence(facts, made)}: "
    return Sentence(question, _verdict(facts, made), f"{_beyond(facts, made)}.")
