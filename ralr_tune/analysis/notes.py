"""Further results in sentences: missing evidence, copies, budget, learning rates, pruning, the paper's other claims.

Each function returns complete sentences about one kind of fact, or none if there is no such fact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from ralr_tune.analysis.budget import Lead
from ralr_tune.analysis.claims import Cost, GapDifference, Overfitting
from ralr_tune.analysis.comparison import Interval
from ralr_tune.analysis.complementarity import Complementarity, Gain
from ralr_tune.analysis.copies import MANY_COPIES, copies_sentences
from ralr_tune.analysis.edges import Edge
from ralr_tune.analysis.facts import Facts
from ralr_tune.analysis.identity import mixed_versions
from ralr_tune.analysis.importance import Importance
from ralr_tune.analysis.missing_evidence import Kind, MissingEvidence
from ralr_tune.analysis.pruning import MIN_AUDITS, PruningAudit
from ralr_tune.analysis.robustness import Forgiveness, RateRange, Robustness
from ralr_tune.analysis.sentence import Sentence
from ralr_tune.metric import Unit


def notes(facts: Facts) -> list[str]:
    """All sentences except those about the data, the most urgent first."""
    return [
        *missing_evidence_sentences(facts),
        *edge_sentences(facts),
        *pruning_sentences(facts),
        *budget_sentences(facts),
        *importance_sentences(facts),
        *robustness_sentences(facts),
        *claim_sentences(facts),
    ]


def urgent_sentences(facts: Facts) -> list[str]:
    """Problems to fix before relying on the answer."""
    many = copies_sentences(facts.data, MANY_COPIES)
    return [
        *missing_evidence_sentences(facts),
        *many,
        *identity_sentences(facts),
        *_unfair(facts),
        *edge_sentences(facts),
    ]


# ---------------------------------------------------------------- what the trials read and ran on


def identity_sentences(facts: Facts) -> list[str]:
    """Reasons why trials of the study may not be comparable with each other."""
    identity = facts.generations[-1].identity if facts.generations else None
    late = identity.late if identity else 0
    mixed = [
        f"Trials ran with different versions of {package} ({', '.join(versions)}): part of what differs between them "
        "may come from that."
        if package != "device"
        else f"Trials ran on different types of devices ({', '.join(versions)}): their results differ in rounding."
        for package, versions in mixed_versions(identity).items()
    ]
    assumed = (
        f"The first {late} trial{'' if late == 1 else 's'} ran under a release that did not record which data and code "
        "they read: that these have not changed since then is assumed, not verified."
    )
    return [*mixed, *([assumed] if late else [])]


def generation_sentences(facts: Facts) -> list[str]:
    """Earlier generations, whose trials count nowhere."""
    return [
        f"This is generation {facts.generations[-1].number}: data or code changed after generation {earlier.number} "
        f"({earlier.trials} trial{'' if earlier.trials == 1 else 's'}), whose results are not part of this report."
        for earlier in facts.generations[:-1]
    ]


# ---------------------------------------------------------------- missing evidence and edges


def missing_evidence_sentences(facts: Facts) -> list[str]:
    """Reasons why the study cannot answer its question."""
    return [missing_sentence(missing) for missing in facts.lacks]


def missing_sentence(missing: MissingEvidence) -> str:
    """One such reason."""
    return _MISSING[missing.kind].format(**_fields(missing))


_MISSING: Mapping[Kind, str] = {
    "no arms": "The study has no arms, so there is nothing to report.",
    "one arm": "The study has only one arm, {arm}, so there is nothing to compare it with.",
    "no baseline": "The baseline {arm} is not one of the study's arms, so nothing can be compared with it.",
    "empty arm": "{arm} has no planned trials, so nothing is known about it.",
    "all diverged": "All {count} finished trials of {arm} diverged: try lower learning rates.",
    "few trials": "{arm} has {count} finished trial{s}: too few to judge parameters or rates.",
    "no spread": "All complete trials of {arm} ended with the same value, so no effect of its parameters can be seen.",
}


def _fields(missing: MissingEvidence) -> dict[str, object]:
    return {"arm": missing.arm, "count": missing.count, "s": "" if missing.count == 1 else "s"}


def edge_sentences(facts: Facts) -> list[str]:
    """Ranges that may have been too narrow."""
    return [edge_sentence(edge) for edge in facts.edges]


def edge_sentence(edge: Edge) -> str:
    """One such range, and a wider one."""
    return (
        f"{edge.arm}'s best {edge.parameter} ({edge.value:.3g}) lies at the {edge.end} end of its range "
        f"({edge.low:g} to {edge.high:g}): try {edge.try_low:g} to {edge.try_high:g}."
    )


# ---------------------------------------------------------------- pruning


def pruning_sentences(facts: Facts) -> list[str]:
    """How often pruning stopped good trials, and what that cost; if no trial was audited, how to find out."""
    if not any(audit.audited or audit.waiting for audit in facts.pruning):
        searched = not any(arm.counts["running"] + arm.counts["waiting"] for arm in facts.arms.values())
        return [_unaudited(facts.pruning)] if facts.pruning and searched else []
    return [*(_audit(facts.unit, audit) for audit in facts.pruning), *_unfair(facts)]


def _unfair(facts: Facts) -> list[str]:
    """Pairs of arms that pruning treated differently."""
    return [
        f"Pruning erred at different rates in {gap.arm} and {gap.against} (p = {gap.p_value:.2g}): "
        "the search was not equally fair to both."
        for gap in facts.pruning_gaps
        if gap.differ
    ]


def _unaudited(audits: Sequence[PruningAudit]) -> str:
    """Suggests the audit share that gives each arm about as many audits as a rate needs."""
    fewest = min(audit.pruned for audit in audits)
    share = min(10, math.ceil(10 * MIN_AUDITS / fewest)) / 10
    counts = " and ".join(f"{audit.pruned} of {audit.arm}" for audit in audits)
    enough = "" if fewest >= MIN_AUDITS else f" (a rate needs {MIN_AUDITS} in each arm)"
    return (
        f"Pruning was not audited: {counts} were stopped early, and none of them was trained to the end to check "
        f"whether that was right. With audit = {share:g} under [search], run does that now{enough}."
    )


def _audit(unit: Unit, audit: PruningAudit) -> str:
    if audit.rate is None or audit.interval is None:
        planned = f", {audit.waiting} more are planned" if audit.waiting else ""
        return (
            f"{audit.audited} of {audit.arm}'s {_stopped(audit.pruned)} were trained to their end{planned}: "
            f"too few for a rate of wrong prunings (at least {MIN_AUDITS} are needed)."
        )
    low, high = map(_share, audit.interval)
    return (
        f"Of {audit.arm}'s {audit.audited} audited prunings {audit.wrong} were wrong ({_share(audit.rate)}, "
        f"95% interval {low} to {high}): trained to the end, they are in the better half of the complete trials. "
        f"{_ended_amplified(audit)}{_lost_best(unit, audit)}"
    )


def _ended_amplified(audit: PruningAudit) -> str:
    """At granularity "epoch", the luck in a wrong trial's last value."""
    if not audit.ended_amplified:
        return ""
    which = "It" if audit.wrong == 1 else f"{audit.ended_amplified} of them"
    return f"{which} ended with an amplified epoch, whose effect on the last value no pruner can foresee. "


def _stopped(count: int) -> str:
    return "1 pruned trial" if count == 1 else f"{count} pruned trials"


def _lost_best(unit: Unit, audit: PruningAudit) -> str:
    if not audit.lost_best or audit.cost is None:
        return "None beats the best complete trial."
    beats = "beats" if audit.lost_best == 1 else "beat"
    return f"{audit.lost_best} {beats} the best complete trial, by up to {unit.size(audit.cost, 2)}."


# ---------------------------------------------------------------- budget


def budget_sentences(facts: Facts) -> list[str]:
    """Which arm was ahead in the search, and from which budget on."""
    return [sentence for lead in facts.leads for sentence in _lead(facts.unit, lead)]


def _lead(unit: Unit, lead: Lead) -> Iterable[str]:
    difference = lead.difference[-1] if lead.difference else None
    if difference is not None:
        yield _ahead(unit, lead, difference)
    if lead.ordinal is not None and lead.ordinal.interval is not None:
        pairs, bounds = lead.ordinal, _bounds(unit, lead.ordinal.interval)
        yield (
            f"At equal shared values, {lead.arm}'s trials end {unit.difference(pairs.difference, 2)} from "
            f"{lead.against}'s on average (95% interval {bounds}, {pairs.n} pairs without divergence)."
        )


def _ahead(unit: Unit, lead: Lead, difference: float) -> str:
    if lead.leader is None:
        return (
            f"{_in_which_search(lead)} {lead.arm} and {lead.against} are level after {_trials(len(lead.trials))} each."
        )
    behind = lead.against if lead.leader == lead.arm else lead.arm
    since = f"from {_trials(lead.ahead_from)} on" if lead.ahead_from != 1 else "from the first trial on"
    size = unit.size(difference, unit.digits(difference))
    ahead = f"{_in_which_search(lead)} {lead.leader} is ahead of {behind} {since}, by {size} at the end"
    return f"{ahead}{_beyond_band(lead)}."


def _in_which_search(lead: Lead) -> str:
    if lead.kind == "expected":
        return "Expected for random search,"
    return "On average over the search blocks," if lead.kind == "blocks" else "In this single search,"


def _beyond_band(lead: Lead) -> str:
    if not lead.band:
        return "; another search may differ"
    if lead.sure_from is None:
        return "; at the end it is within its 95% band"
    return f", and beyond its 95% band from {_trials(lead.sure_from)} on"


def _trials(count: int | None) -> str:
    return "1 trial" if count == 1 else f"{count} trials"


# ---------------------------------------------------------------- importance


def importance_sentences(facts: Facts) -> list[str]:
    """Which parameters matter in each arm, by the verdicts."""
    return [_importance(arm, parameters) for arm, parameters in facts.importance.items() if parameters]


def _importance(arm: str, parameters: Mapping[str, Importance]) -> str:
    ranked = sorted(parameters.items(), key=lambda pair: -pair[1].value)
    matter = [f"{name} ({_part(found.value)})" for name, found in ranked if found.verdict == "matters"]
    chance = [name for name, found in ranked if found.verdict == "indistinguishable"]
    unknown = [name for name, found in ranked if found.verdict == "too little evidence"]
    if len(unknown) == len(parameters):
        return f"In {arm}, there is too little evidence on every parameter."
    parts = [
        f"{_enumerated(matter)} {'matters' if len(matter) == 1 else 'matter'}"
        if matter
        else "nothing is shown to matter",
        *([f"{_enumerated(chance)} cannot be distinguished from chance"] if chance else []),
        *([f"there is too little evidence on {_enumerated(unknown)}"] if unknown else []),
    ]
    return f"In {arm}, {'; '.join(parts)}."


def _part(value: float) -> str:
    """A share that is above zero, even if it rounds to 0%."""
    return "below 1%" if value < 0.01 else _share(value)


def _enumerated(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# ---------------------------------------------------------------- rates


def robustness_sentences(facts: Facts) -> list[str]:
    """Whether an arm tolerates a badly chosen rate."""
    found = {each.arm: each for each in facts.robustness}
    compared = {each.arm for each in facts.forgiveness}
    pairs = [(each, found[each.arm], found[each.against]) for each in facts.forgiveness]
    alone = [each for each in facts.robustness if each.arm not in compared and each.arm != facts.baseline]
    widths = [_forgiveness(facts.unit, *pair) for pair in pairs]
    singles = [
        f"{each.arm}'s good rates: {_range(facts.unit, each.rates)}." for each in alone if each.rates is not None
    ]
    return [*widths, *singles, *(_diverged(each) for each in facts.robustness if each.diverged)]


def _forgiveness(unit: Unit, found: Forgiveness, this: Robustness, other: Robustness) -> str:
    if this.rates is None or other.rates is None:
        return ""
    question = f"Does {found.arm} tolerate a badly chosen learning rate better than {found.against}?"
    if not found.judged:
        return f"{question} {found.trials} trials are too few to judge, at least about {found.enough} are needed."
    answer = {"more": "Yes", "less": "No, less", "no difference shown": "No difference shown"}[found.verdict]
    low, high = map(_factor, found.interval)
    return (
        f"{question} {answer}: rates within "
        f"{unit.size(this.rates.tolerance, 0)} of the best span {_range(unit, this.rates)}, {found.against}'s "
        f"{_range(unit, other.rates)}; {_factor(found.times)} times as wide (95% interval {low} to {high})."
    )


def _range(unit: Unit, rates: RateRange) -> str:
    least = "at least " if rates.low_open or rates.high_open else ""
    return f"{least}a factor of {_factor(rates.factor)} ({rates.low:.2g} to {rates.high:.2g})"


def _factor(value: float) -> str:
    """Two digits, never in scientific notation."""
    return f"{value:.2g}" if value < 100 else f"{value:,.0f}"


def _diverged(found: Robustness) -> str:
    if found.share is None or found.share_interval is None:
        return ""
    low, high = map(_share, found.share_interval)
    return (
        f"Of {found.arm}'s {found.finished} search trials {found.diverged} diverged "
        f"({_share(found.share)}, 95% interval {low} to {high})."
    )


# ---------------------------------------------------------------- the paper's other claims


def claim_sentences(facts: Facts) -> list[str]:
    """What an epoch costs, which arm overfits less, and whether amplification adds to other changes of the training."""
    return [
        *(_cost(facts, cost) for cost in facts.costs if cost.interval is not None),
        *(_gap(facts, found, difference) for found in facts.overfitting for difference in found.differences),
        *(_complementarity(facts, found) for found in facts.complementarity),
    ]


def _cost(facts: Facts, cost: Cost) -> str:
    low, high = cost.interval or (cost.ratio, cost.ratio)
    verdict = "slower" if low > 1 else "faster" if high < 1 else "no extra cost shown"
    if cost.paired_by == "twin":
        whom, pairs = f"with amplification as without, at {cost.arm}'s configuration", "equal seeds"
    else:
        whom, pairs = f"in {cost.arm} as in {cost.against}", "search trials, whose configurations differ"
    times = (
        f"An epoch takes {cost.ratio:.2f} times as long {whom} ({100 * facts.confidence:g}% interval {low:.2f} to "
        f"{high:.2f}, {cost.n} pairs of {pairs}): "
    )
    return Sentence(times, verdict, ".")


def _gap(facts: Facts, found: Overfitting, difference: GapDifference) -> str:
    unit = facts.unit
    whom = "its twin without amplification" if difference.twin else f"{difference.against}'s"
    bounds = (
        f"{100 * facts.confidence:g}% interval {_bounds(unit, difference.interval)}, " if difference.interval else ""
    )
    verdict = {"less": "it overfits less", "more": "it overfits more"}.get(difference.verdict, difference.verdict)
    side = "worse" if found.gap < 0 else "better"
    gaps = (
        f"{found.arm}'s configuration is {unit.size(found.gap, 2)} {side} on its training data than on validation; "
        f"against {whom} that is {unit.difference(difference.difference, 2)} ({bounds}n = {difference.n}): "
    )
    return Sentence(gaps, verdict, ".")


def _complementarity(facts: Facts, found: Complementarity) -> str:
    unit, plain, other = facts.unit, found.plain, found.other
    confidence = f"{100 * facts.confidence:g}% interval"
    bounds = f"{confidence} {_bounds(unit, found.interval)}" if found.interval else "too few for an interval"
    margin = f" (within {unit.size(facts.margin)})" if found.verdict == "adds up" else ""
    question = (
        f"Does amplification add to the changes from {plain.against} to {other.against} ({', '.join(found.differs)})? "
        f"It changes {plain.against} by {_changed(unit, plain)} and {other.against} by {_changed(unit, other)}, "
        f"the second minus the first is {unit.difference(found.interaction, 2)} ({bounds}, n = {found.n} seeds on the "
        f"{found.split} split): "
    )
    caveat = "Each of the four arms is tuned separately; uncorrected."
    return Sentence(question, found.verdict, f"{margin}. {caveat}")


def _changed(unit: Unit, gain: Gain) -> str:
    bounds = f" ({_bounds(unit, gain.interval)})" if gain.interval else ""
    return unit.difference(gain.difference, 2) + bounds


def _bounds(unit: Unit, interval: Interval) -> str:
    return " to ".join(unit.signed(bound, 2) for bound in interval)


def _share(value: float) -> str:
    return f"{100 * value:.0f}%"
