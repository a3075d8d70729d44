"""The verdict card: what a study says, in one sentence, with the interval that decides it, the winner's recipe, what it
cost, and one next step. Every output (terminal, page, dashboard, notebook, JSON) shows this card.

With several blocks of search it is about the schedules. With one block it is about amplification in one recipe: the
amplifying arm's confirmed configuration against its twin. That arm need not be the winner: the seeds that show which
arm wins are those of the twin, so choosing the arm by them would bias the difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ralr_tune.analysis.comparison import Comparison, Interval, deciding_level
from ralr_tune.analysis.facts import ArmFacts, Facts
from ralr_tune.analysis.next_step import NextStep, Typed, effect, hours, next_step
from ralr_tune.analysis.power import ENOUGH_PAIRS, tells
from ralr_tune.analysis.recipe import Recipe, recipe
from ralr_tune.analysis.sentence import Sentence
from ralr_tune.analysis.spending import Spending, Use
from ralr_tune.analysis.twins import Twin
from ralr_tune.metric import Unit, ascii_minus

About = Literal["schedules", "amplification", "recipes", "nothing"]


@dataclass(frozen=True)
class Judged:
    """One comparison of the card, as it is drawn."""

    comparison: Comparison
    about: About

    @property
    def label(self) -> str:
        """What is compared with what."""
        made = self.comparison
        if self.about == "amplification":
            return f"{made.arm}'s recipe against its twin"
        return f"{made.arm} against {made.against}"

    @property
    def pairs(self) -> str:
        """How many pairs there are: "5 seeds"."""
        noun = "block of search" if self.comparison.what == "arm" else "seed"
        if self.comparison.n == 1:
            return f"1 {noun}"
        return f"{self.comparison.n} {noun.replace(' ', 's ', 1) if ' ' in noun else noun + 's'}"

    @property
    def shown(self) -> Interval | None:
        """The interval that decides; None if the pairs are too few for one that says something."""
        return _shown(self.comparison)

    @property
    def level(self) -> float:
        """The confidence of the deciding interval."""
        return deciding_level(self.comparison.verdict, self.comparison.confidence)


@dataclass(frozen=True)
class Card:
    """What a study says so far."""

    study: str
    about: About
    """What the verdict is about; "nothing" if evidence is missing."""
    verdict: str
    """The answer as one sentence."""
    caveats: tuple[str, ...]
    """What the answer does not say, one sentence each."""
    judged: tuple[Judged, ...]
    """The comparison that decides; for three or more arms all of them, the best arm first."""
    unit: Unit
    margin: float
    """Differences below it do not matter, in the metric's own unit."""
    split: str
    recipe: Recipe | None
    """The best arm's on fresh validation seeds."""
    spending: Spending | None
    next_step: NextStep
    larger_is_better: bool = True

    @property
    def interval(self) -> Interval | None:
        """The interval that decides the verdict."""
        return self.judged[0].comparison.deciding if self.judged else None

    @property
    def sentences(self) -> list[str]:
        """The verdict and its caveats."""
        return [self.verdict, *self.caveats]

    @property
    def cost(self) -> str:
        """What the study has used."""
        return "" if self.spending is None else _cost(self.spending)


def make_card(facts: Facts, typed: Typed) -> Card:
    """The card of a study at any stage. `typed`: the commands on the study."""
    about, judged = _judged(facts)
    winner = None if facts.winner is None else facts.arms[facts.winner]
    return Card(
        study=facts.study,
        about=about,
        verdict=_verdict(facts, about, judged),
        caveats=tuple(_caveats(facts, about, judged)),
        judged=judged,
        unit=facts.unit,
        margin=facts.margin,
        split=facts.split,
        recipe=None if winner is None else recipe(winner, typed.train.get(winner.name, "")),
        spending=facts.spending,
        next_step=next_step(facts, _open(judged), typed),
        larger_is_better=facts.metric.better(1.0, 0.0),
    )


def as_json(card: Card) -> dict[str, Any]:
    """The key `card` of `report --json`."""
    step, found = card.next_step, card.spending
    return {
        "about": card.about,
        "verdict": ascii_minus(card.verdict),
        "caveats": list(map(ascii_minus, card.caveats)),
        "margin": card.margin,
        "interval": _interval_json(card, card.judged[0]) if card.judged else None,
        "ranking": [_interval_json(card, each) for each in card.judged] if len(card.judged) > 1 else [],
        "recipe": None if card.recipe is None else _recipe_json(card.recipe),
        "cost": None if found is None else _cost_json(found),
        "next_step": {
            "why": ascii_minus(step.why),
            "command": step.command,
            "file": step.file,
            "toml": step.toml or None,
        },
    }


def _interval_json(card: Card, judged: Judged) -> dict[str, Any]:
    made = judged.comparison
    return {
        "arm": made.arm,
        "against": f"{made.arm} without amplification" if judged.about == "amplification" else made.against,
        "difference": made.difference,
        "interval": list(made.deciding) if made.deciding else None,
        "confidence": judged.level,
        "pairs": made.n,
        "pairs_of": "blocks" if made.what == "arm" else "seeds",
        "split": card.split,
        "verdict": made.verdict,
    }


def _recipe_json(found: Recipe) -> dict[str, Any]:
    return {
        "arm": found.arm,
        "base_rate": found.base_rate,
        "amplification": dict(found.amplification) or None,
        "params": dict(found.params),
        "confirmed": found.confirmed,
        "train": found.command or None,
    }


def _cost_json(found: Spending) -> dict[str, Any]:
    used = found.total
    return {
        "trials": found.search.runs,
        "runs": used.runs,
        "epochs": used.epochs,
        "device_hours": used.seconds / 3600,
        "cost": found.money(used),
    }


def _cost(found: Spending) -> str:
    used: Use = found.total
    money = found.money(used)
    cost = "" if money is None else f", {money:.2f} at {found.cost_per_hour:g} per hour"
    counts = ((found.search, "trial"), (found.audit, "audit"), (found.confirm, "run to confirm"))
    runs = [_count(use.runs, noun) for use, noun in counts if use.runs] or ["no trials"]
    return f"{_enumerated(runs)}, {used.epochs:,} epochs, {hours(used.seconds)} of device time{cost}"


def _count(number: int, noun: str) -> str:
    first, _, rest = noun.partition(" ")
    return f"{number:,} {first}{'' if number == 1 else 's'}{rest and f' {rest}'}"


# ---------------------------------------------------------------- which comparison


def _judged(facts: Facts) -> tuple[About, tuple[Judged, ...]]:
    """What the verdict is about, and the comparisons it rests on."""
    found = {what: [made for made in facts.comparisons if made.what == what] for what in ("arm", "configuration")}
    about: About = "schedules" if found["arm"] else "recipes"
    made = found["arm"] or found["configuration"]
    twin = _main_twin(facts)
    if about == "recipes" and twin is not None and len(made) < 2:
        return "amplification", (Judged(_with_and_without(twin, facts.confidence), "amplification"),)
    ranked = sorted(made, key=lambda each: -facts.metric.as_gain(each.difference))
    return (about if ranked else "nothing"), tuple(Judged(each, about) for each in ranked)


def _open(judged: Sequence[Judged]) -> Comparison | None:
    """The comparison that a next step should settle: the first one without a verdict."""
    made = [each.comparison for each in judged]
    return next((each for each in made if each.verdict == "inconclusive"), made[0] if made else None)


def _main_twin(facts: Facts) -> Twin | None:
    """That of the arm in question, or otherwise of the baseline."""
    twins = sorted(facts.twins, key=lambda twin: twin.arm == facts.baseline)
    return twins[0] if twins else None


def _with_and_without(twin: Twin, confidence: float) -> Comparison:
    return Comparison(
        what="configuration",
        arm=twin.arm,
        against=twin.arm,
        difference=twin.difference,
        interval=twin.interval,
        confidence=confidence,
        p_value=twin.p_value,
        n=twin.n,
        verdict=twin.verdict,
        deciding=twin.deciding or twin.interval,
    )


# ---------------------------------------------------------------- the sentence


def _verdict(facts: Facts, about: About, judged: Sequence[Judged]) -> str:
    if len(judged) > 1:
        return _ranking(facts, about, [each.comparison for each in judged])
    if not judged:
        return _missing(facts)
    made = judged[0].comparison
    if about == "amplification":
        return _amplification(facts, made)
    return _against(facts, made, "search" if about == "schedules" else "recipe")


def _amplification(facts: Facts, made: Comparison) -> str:
    whose = f"{made.arm}'s recipe"
    if made.verdict == "better":
        return Sentence("Amplification ", "improves", f" {whose} by {_decided(facts, made)}.")
    if made.verdict == "worse":
        return Sentence(f"Amplification makes {whose} ", "worse", f" by {_decided(facts, made)}.")
    changes = f"Amplification changes {whose} by {_observed(facts, made)}: "
    if made.verdict == "equivalent":
        return Sentence(changes, "no difference that matters", f" (within the margin of {_margin(facts)}).")
    return Sentence(changes, *_undecided(facts, made, "no effect seen"))


def _against(facts: Facts, made: Comparison, noun: str) -> str:
    if made.verdict in ("better", "worse"):
        size, between = _decided(facts, made).split(", ")
        return Sentence(f"{made.arm}'s {noun} ends {size} ", made.verdict, f" than {made.against}'s, {between}.")
    changes = f"{made.arm}'s {noun} differs from {made.against}'s by {_observed(facts, made)}: "
    if made.verdict == "equivalent":
        return Sentence(changes, "no difference that matters", f" (within the margin of {_margin(facts)}).")
    return Sentence(changes, *_undecided(facts, made, "not decided"))


def _undecided(facts: Facts, made: Comparison, verdict: str) -> tuple[str, str]:
    """The verdict, and that it is no proof of equality: what the interval means, and what such studies miss."""
    if _shown(made) is None:
        return "nothing is shown", "."
    return verdict, f", but the true difference may lie anywhere in between{_missed(facts, made)}."


def _ranking(facts: Facts, about: About, made: Sequence[Comparison]) -> str:
    """The arms by verdict, in the order of their differences."""
    noun = "search" if about == "schedules" else "recipe"
    before = f"Compared with {facts.baseline}'s {noun}, "
    if all(each.verdict == "inconclusive" for each in made):
        return Sentence(before, "no difference is shown", f" for {_enumerated([each.arm for each in made])}.")
    groups = [(words, [each.arm for each in made if each.verdict == verdict]) for verdict, words in _GROUPS]
    found = [f"{_enumerated(arms)} {'is' if len(arms) == 1 else 'are'} {words}" for words, arms in groups if arms]
    return Sentence(before, "; ".join(found), ".")


_GROUPS = (
    ("better", "better"), ("equivalent", "equivalent within the margin"), ("inconclusive", "not decided"),
    ("worse", "worse"),
)  # fmt: skip


def _decided(facts: Facts, made: Comparison) -> str:
    """Size of a difference and its bounds, whose sign the verdict says."""
    digits = _digits(facts, made)
    size = facts.unit.size(made.difference, digits)
    bounds = sorted(abs(end) for end in made.deciding or (made.difference, made.difference))
    low, high = (facts.unit.signed(end, digits).removeprefix("+") for end in bounds)
    return f"{size}, between {low} and {high}"


def _observed(facts: Facts, made: Comparison) -> str:
    """Difference and bounds, with their signs."""
    digits, shown = _digits(facts, made), _shown(made)
    difference = facts.unit.difference(made.difference, digits)
    if shown is None:
        single, runs = ("block", "search") if made.what == "arm" else ("pair", "runs")
        few = f"to judge (at least {ENOUGH_PAIRS} are needed)" if made.deciding else "for an interval"
        return f"{difference} in {made.n} {single}{'' if made.n == 1 else 's'} of {runs}, too few {few}"
    low, high = (facts.unit.signed(end, digits) for end in shown)
    return f"{difference}, between {low} and {high}"


def _shown(made: Comparison) -> Interval | None:
    return made.deciding if tells(made.n, made.verdict) else None


def _missed(facts: Facts, made: Comparison) -> str:
    found = effect(facts, made)
    if found is None:
        return ""
    noun = "block" if made.what == "arm" else "seed"
    return f"; {made.n} {noun}s often miss differences below {facts.unit.size(found.visible)}"


def _margin(facts: Facts) -> str:
    return facts.unit.size(facts.margin)


def _digits(facts: Facts, made: Comparison) -> int:
    return facts.unit.digits(made.difference, *(_shown(made) or ()))


def _enumerated(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# ---------------------------------------------------------------- what is missing


def _missing(facts: Facts) -> str:
    if not facts.arms:
        return "The study has no arms, so there is nothing to report."
    if facts.winner is None:
        return _nothing(facts)
    if not any(arm.confirm and arm.confirm.values for arm in facts.arms.values()):
        return _searched(facts)
    if len(facts.arms) == 1:
        return f"The study has only one arm, {facts.winner}, so there is nothing to compare it with."
    without = [name for name, arm in facts.arms.items() if not (arm.confirm and arm.confirm.values)]
    return f"Nothing can be compared yet: {_enumerated(without or list(facts.arms))} has no confirmed score."


def _searched(facts: Facts) -> str:
    found = [f"{name}'s best of {_done(arm)} reached {_best(facts, arm)}" for name, arm in _searched_arms(facts)]
    missing = [f"{name} has no completed trial" for name, arm in facts.arms.items() if not arm.best]
    return f"Not confirmed yet, so nothing is compared: {', '.join(found + missing)}, each in one run with one seed."


def _searched_arms(facts: Facts) -> Iterator[tuple[str, ArmFacts]]:
    yield from ((name, arm) for name, arm in facts.arms.items() if arm.best)


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


def _caveats(facts: Facts, about: About, judged: Sequence[Judged]) -> Iterator[str]:
    if about == "recipes":
        yield from _unexplained(facts, [each.comparison for each in judged])
    if about in ("amplification", "recipes") and len(facts.arms) > 1:
        single = all(arm.blocks <= 1 for arm in facts.arms.values())
        reason = "each was searched once" if single else "fewer than two blocks of search were judged in each"
        yield f"The schedules themselves were not compared: {reason}."
    if about == "schedules" and facts.divided:
        trials = min(arm.counts["budget"] // max(1, arm.blocks) for arm in facts.arms.values())
        yield f"The trials were divided among the blocks: the answer is about searches of {trials} trials."
    if about == "amplification" and len(facts.arms) == 1:
        yield f"The study has only one arm, {judged[0].comparison.arm}: its schedule is compared with no other."
    for name, arm in facts.arms.items():
        if arm.confirm and arm.confirm.lost:
            total = arm.confirm.lost + len(arm.confirm.values)
            yield f"Of {name}'s {total} seeds {arm.confirm.lost} diverged or failed and are in no figure above."


def _unexplained(facts: Facts, made: Iterable[Comparison]) -> Iterator[str]:
    """Recipes that differ, while the twin does not show that their amplification is why."""
    claims = {"better": "helps", "worse": "harms"}
    twins = {twin.arm: _with_and_without(twin, facts.confidence) for twin in facts.twins}
    for each in made:
        twin = twins.get(each.arm)
        if twin is not None and each.verdict in claims and twin.verdict != each.verdict:
            yield (
                f"That {each.arm} is {each.verdict} does not show that amplification {claims[each.verdict]}: "
                f"it changes {each.arm}'s recipe by {_observed(facts, twin)}."
            )
