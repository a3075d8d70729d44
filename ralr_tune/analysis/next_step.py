"""What to do next with a study: one step, as a command or as lines for its file, and what it would use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ralr_tune.analysis.comparison import Comparison
from ralr_tune.analysis.edges import Edge
from ralr_tune.analysis.facts import ArmFacts, Facts
from ralr_tune.analysis.missing_evidence import MissingEvidence
from ralr_tune.analysis.notes import edge_sentence, missing_sentence
from ralr_tune.analysis.power import ENOUGH_PAIRS, DetectableEffect, detectable_effect, spread_of
from ralr_tune.analysis.recipe import toml
from ralr_tune.analysis.spending import Use, times
from ralr_tune.records import AMPLIFICATION, OF_OPTIMIZER

FEW_SEEDS = 5
MANY_SEEDS = 100  # further seeds; above, blocks say more for the same money
BLOCKS = ENOUGH_PAIRS
MORE_TRIALS = 1.5  # times the budget, so that a wider range is searched at all
LOWER_RATES = 100  # by how much to lower the range of the rate if everything diverged


class Typed(NamedTuple):
    """The commands on this study, as they may be typed, and what its file allows."""

    run: str
    status: str
    file: str = "the study file"
    """What a next step changes: the path of the study file."""
    train: Mapping[str, str] = {}
    """By arm: trains its best configuration."""
    can_add_seeds: bool = True
    """False under `confirm.seeds = "auto"`: interim analyses fix the number of seeds."""


@dataclass(frozen=True)
class NextStep:
    """One step."""

    why: str
    """One or two sentences."""
    command: str
    """To type; after the file was changed, if there is something to paste."""
    paste: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Lines of TOML by table, which replace the lines of the study file with the same keys."""
    file: str = ""
    """The study file, as the reader may open it."""

    @property
    def toml(self) -> str:
        """The lines to paste, under the headers of their tables; "" if there are none."""
        return "\n".join(line for table, lines in self.paste.items() for line in (f"[{table}]", *lines))


def next_step(facts: Facts, made: Comparison | None, typed: Typed) -> NextStep:
    """The first step that applies. `made`: the comparison that the verdict rests on."""
    return replace(next(_steps(facts, made, typed)), file=typed.file)


def _steps(facts: Facts, made: Comparison | None, typed: Typed) -> Iterator[NextStep]:
    yield from _unfinished(facts, typed)
    yield from _diverged(facts, typed)
    if facts.winner is None:
        yield NextStep("No trial has a score. The status names the reasons.", typed.status)
    if not any(arm.confirm and arm.confirm.values for arm in facts.arms.values()):
        yield NextStep("The winners have not been trained again on fresh seeds; this confirms them.", typed.run)
    if made is None and len(facts.arms) == 1:
        yield _other_arm(facts, typed)
    yield from _wider(facts, typed)
    if made is not None:
        yield from _interim(facts, made, typed)
        yield from _more_seeds(facts, made, typed)
        yield from _more_blocks(facts, made, typed)
    if len(facts.arms) == 1:
        yield _other_arm(facts, typed)
    yield _train(facts, made, typed)


def _train(facts: Facts, made: Comparison | None, typed: Typed) -> NextStep:
    arm = facts.winner or ""
    train = f"train {arm}'s recipe on train and validation data"
    why = f"Nothing is missing: {train}."
    if made is not None and made.verdict == "inconclusive":
        noun = "blocks" if made.what == "arm" else "seeds"
        why = f"No affordable number of {noun} would settle a difference like this: {train}."
    return NextStep(why, typed.train.get(arm, typed.status))


def _unfinished(facts: Facts, typed: Typed) -> Iterator[NextStep]:
    failed = sum(arm.counts["failed"] for arm in facts.arms.values())
    waiting = facts.spending.open if facts.spending else 0
    if failed and facts.winner is None:
        yield NextStep(f"{_trials(failed)} failed. The status names the reasons.", typed.status)
    if waiting:
        yield NextStep(
            f"{waiting} planned run{_s(waiting)} {_have(waiting)} not ended: run {_them(waiting)}.", typed.run
        )


def _diverged(facts: Facts, typed: Typed) -> Iterator[NextStep]:
    for lack in facts.lacks:
        if lack.kind == "all diverged":
            yield _lower_rates(facts, lack, typed)


def _lower_rates(facts: Facts, lack: MissingEvidence, typed: Typed) -> NextStep:
    arm, why = facts.arms[lack.arm], missing_sentence(lack)
    domain = arm.settings.get("lr")
    if not (isinstance(domain, Mapping) and "low" in domain):
        return NextStep(f"{why} The rate is fixed; the status has details.", typed.status)
    lower = {**domain, "low": float(f"{domain['low'] / LOWER_RATES:.3g}")}
    paste = {"search": (_trials_line(facts, arm),), _table(facts, arm, "lr"): (f"lr = {_domain(lower)}",)}
    return NextStep(why, typed.run, paste)


def _other_arm(facts: Facts, typed: Typed) -> NextStep:
    (arm,) = facts.arms.values()
    if arm.amplifies:
        return NextStep(
            f"{arm.name} is the only arm: add one without amplification to compare it with.",
            typed.run,
            {f"arms.{_unused(facts, 'plain')}": ()},
        )
    space = {"probability": (0.05, 0.6), "lower": (1.0, 2.0), "width": (0.0, 4.0)}
    amplify = toml({name: {"low": low, "high": high} for name, (low, high) in space.items()})
    return NextStep(
        f"{arm.name} is the only arm: add one that amplifies the rate.",
        typed.run,
        {f"arms.{_unused(facts, 'amplified')}": (f"amplify = {amplify}",)},
    )


def _unused(facts: Facts, name: str) -> str:
    return name if name not in facts.arms else f"{name}-2"


# ---------------------------------------------------------------- a wider range


def _wider(facts: Facts, typed: Typed) -> Iterator[NextStep]:
    """For a parameter of the winner that matters; other edges are warnings."""
    for edge in facts.edges:
        found = facts.importance.get(edge.arm, {}).get(edge.parameter)
        if edge.arm == facts.winner and found is not None and found.verdict == "matters":
            arm = facts.arms[edge.arm]
            line, table = _wider_line(arm, edge), _table(facts, arm, edge.parameter)
            paste = {"search": (_trials_line(facts, arm),), table: (line,)}
            yield NextStep(f"{edge_sentence(edge)} This parameter matters.", typed.run, paste)


def _wider_line(arm: ArmFacts, edge: Edge) -> str:
    prefix, _, key = edge.parameter.rpartition(".")
    ends = (edge.try_low, edge.try_high)
    old = arm.settings.get(edge.parameter)
    whole = isinstance(old, Mapping) and isinstance(old.get("low"), int) and isinstance(old.get("high"), int)
    low, high = (int(end) if whole else end for end in ends)
    wider = {**(old if isinstance(old, Mapping) else {"log": edge.log}), "low": low, "high": high}
    if prefix in ("amplify", "noise"):
        table = {name: value for name, value in arm.settings.items() if name.startswith(f"{prefix}.")}
        table[edge.parameter] = wider
        shown = {name.removeprefix(f"{prefix}."): _written(value) for name, value in table.items()}
        return f"{prefix} = {toml(shown)}"
    return f"{key} = {_domain(wider)}"


def _table(facts: Facts, arm: ArmFacts, parameter: str) -> str:
    """The table of the study file that most likely holds a parameter."""
    prefix = parameter.rpartition(".")[0]
    if f"{prefix}." == AMPLIFICATION or prefix == "noise":
        return f"arms.{arm.name}"
    shared = all(other.settings.get(parameter) == arm.settings.get(parameter) for other in facts.arms.values())
    own = "" if shared else f"arms.{arm.name}."
    if parameter.startswith(OF_OPTIMIZER):
        name = prefix.removeprefix(OF_OPTIMIZER)
        return f"{own}training.{OF_OPTIMIZER}{toml(name) if ':' in name else name}"
    return prefix if prefix and prefix != "optimizer_options" else f"{own}training{prefix and f'.{prefix}'}"


def _written(value: Any) -> Any:
    """As in a study file: a range without its defaults."""
    if not isinstance(value, Mapping):
        return value
    return {name: each for name, each in value.items() if each is not None and each is not False}


def _domain(domain: Mapping[str, Any]) -> str:
    ordered = {name: domain[name] for name in ("low", "high", "log", "step") if name in domain}
    return toml(_written(ordered))


def _trials_line(facts: Facts, arm: ArmFacts) -> str:
    blocks = max(1, arm.blocks)
    return f"trials = {round(MORE_TRIALS * arm.counts['budget'] / blocks) * (blocks if facts.divided else 1)}"


# ---------------------------------------------------------------- more pairs


def effect(facts: Facts, made: Comparison) -> DetectableEffect | None:
    """What a comparison could detect, also of a configuration with itself without amplification."""
    known = [each for each in facts.reach if (each.what, each.arm) == (made.what, made.arm)]
    if made.arm != made.against:
        return known[0] if known else None
    if made.interval is None:
        return None
    spread = spread_of(made.interval, made.n, facts.confidence)
    return detectable_effect(made, spread, margin=facts.margin, alpha=1 - facts.confidence)


def _interim(facts: Facts, made: Comparison, typed: Typed) -> Iterator[NextStep]:
    decision = facts.looks.get(made.arm)
    if facts.split == "validation" and decision is not None and decision.next_look is not None:
        yield NextStep(f"The next interim analysis is at {decision.next_look} seeds; this continues.", typed.run)


def _more_seeds(facts: Facts, made: Comparison, typed: Typed) -> Iterator[NextStep]:
    if made.what != "configuration" or made.verdict != "inconclusive" or not typed.can_add_seeds:
        return
    if made.n < ENOUGH_PAIRS:
        few = "One seed says nothing about chance" if made.n == 1 else f"{made.n} seeds are too few to judge"
        more = FEW_SEEDS - made.n
        total = _seeds(facts) + more
        why = f"{few}: {more} more, {total} in all{_uses(facts, more)}."
        yield NextStep(why, typed.run, {"confirm": (f"seeds = {total}",)})
        return
    found = effect(facts, made)
    if found is not None and found.more is not None and found.more[0] <= MANY_SEEDS:
        count, (fewest, most) = found.more
        span, total = f"{fewest} to {'more than 1,000' if most is None else most}", _seeds(facts) + count
        why = f"About {count} more seed{_s(count)} ({span}), {total} in all, would settle it{_uses(facts, count)}."
        yield NextStep(why, typed.run, {"confirm": (f"seeds = {total}",)})


def _seeds(facts: Facts) -> int:
    """Seeds per configuration, those without a score included."""
    return max(len(arm.confirm.values) + arm.confirm.lost for arm in facts.arms.values() if arm.confirm)


def _uses(facts: Facts, seeds: int) -> str:
    return "" if facts.spending is None else f": {_used(facts, times(facts.spending.seed, seeds))}"


def _more_blocks(facts: Facts, made: Comparison, typed: Typed) -> Iterator[NextStep]:
    blocks = max((arm.blocks for arm in facts.arms.values()), default=0)
    if len(facts.arms) < 2 or not blocks:
        return
    if made.what == "arm":
        found = effect(facts, made)
        more = found.more if found else None
        if made.verdict == "inconclusive" and found and found.floor and more is None and typed.can_add_seeds:
            seeds = 2 * _seeds(facts)
            why = f"The seeds limit what blocks can show: judge each on {seeds}{_uses(facts, seeds - seeds // 2)}."
            yield NextStep(why, typed.run, {"confirm": (f"seeds = {seeds}",)})
        if made.verdict != "inconclusive" or more is None or more[0] > MANY_SEEDS:
            return
        count = more[0]
        reason = f"About {count} more block{_s(count)} of search, {blocks + count} in all, would settle it"
    else:
        count = max(1, BLOCKS - blocks)
        reason = f"To compare the schedules themselves, search {count} more block{_s(count)}, {blocks + count} in all"
    used = "" if facts.spending is None else f": {_used(facts, times(facts.spending.block, count))}"
    lines = [f"blocks = {blocks + count}"]
    if facts.divided:  # the trials of a block stay as they are
        budget = max(arm.counts["budget"] for arm in facts.arms.values())
        lines.append(f"trials = {budget // blocks * (blocks + count)}")
    yield NextStep(f"{reason}{used}.", typed.run, {"search": tuple(lines)})


def _used(facts: Facts, use: Use) -> str:
    money = facts.spending.money(use) if facts.spending else None
    cost = "" if money is None else f", at a cost of {money:.2f}"
    return f"about {use.runs:,} run{_s(use.runs)} and {hours(use.seconds)} of device time{cost}"


def hours(seconds: float) -> str:
    """Device time in words: "45 s", "3 min", "5.2 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def _trials(count: int) -> str:
    return f"{count} trial{_s(count)}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _them(count: int) -> str:
    return "it" if count == 1 else "them"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"
