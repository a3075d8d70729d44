"""The tables of a report, as plain text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from ralr_tune.analysis import rows as study_rows
from ralr_tune.analysis.evaluators import Evaluated, Name
from ralr_tune.analysis.facts import ArmFacts, Confirmed, Facts
from ralr_tune.analysis.importance import Importance
from ralr_tune.analysis.robustness import RateRange, Robustness
from ralr_tune.metric import UNITS, Unit
from ralr_tune.records import ArmRecord, Row, StudyRecord
from ralr_tune.report.markup import Table

TOP_TRIALS = 10  # of each arm

Evaluators = Mapping[str, Mapping[Name, Mapping[str, Evaluated]]]
"""By arm: the importances of its parameters by Optuna's own evaluators."""

_SLOW: tuple[Name, ...] = ("fANOVA", "MDI")
"""Too slow to resample."""


def arms_table(facts: Facts) -> Table:
    """The results of each arm in numbers."""
    head = [
        "arm",
        f"{facts.split} {facts.metric.words}",
        "seeds",
        "best in search",
        "training − validation",
        "s per epoch",
    ]
    caption = "Mean ± standard deviation over fresh seeds of the confirmed configuration."
    return Table(caption, head, [_arm_cells(facts, arm) for arm in facts.arms.values()])


def _arm_cells(facts: Facts, arm: ArmFacts) -> list[str]:
    unit, confirm, gap = facts.unit, arm.confirm, arm.generalization_gap
    return [
        arm.name,
        "–" if confirm is None or confirm.mean is None else _mean_and_std(unit, confirm.mean, confirm.std),
        str(len(confirm.values) if confirm else 0),
        unit.value(arm.best.value, 2) if arm.best else "–",
        "–" if gap is None else unit.difference(gap, 2),
        "–" if arm.seconds_per_epoch is None else f"{arm.seconds_per_epoch:.3g}",
    ]


def evaluators_table(facts: Facts, found: Evaluators) -> Table:
    """This package's importance next to Optuna's three evaluators."""
    caption = (
        "Next to ralr_tune's importance: Optuna's evaluators, over complete trials only (at most 200); each adds up to "
        "100% per arm. PED-ANOVA, which is fast, has a 95% interval and a range by chance. No verdict depends on them."
    )
    head = ["arm", "parameter", "ralr_tune", "by chance up to", "verdict"]
    head += ["PED-ANOVA", "95% interval", "by chance up to", *_SLOW]
    rows = [
        [arm, name, *_importance_cells(one), *_evaluated_cells(found.get(arm, {}), name)]
        for arm, parameters in facts.importance.items()
        for name, one in sorted(parameters.items(), key=lambda pair: -pair[1].value)
    ]
    return Table(caption, head, rows, left=2)


def _importance_cells(found: Importance) -> list[str]:
    if found.verdict == "too little evidence":
        return ["–", "–", found.verdict]
    return [_share(found.value), _share(found.null[1]), found.verdict]


def _evaluated_cells(found: Mapping[Name, Mapping[str, Evaluated]], parameter: str) -> list[str]:
    fast, *slow = (found.get(name, {}).get(parameter) for name in ("PED-ANOVA", *_SLOW))
    interval = " to ".join(map(_share, fast.interval)) if fast and fast.interval else "–"
    chance = _share(fast.null[1]) if fast and fast.null else "–"
    return [_value(fast), interval, chance, *map(_value, slow)]


def _value(one: Evaluated | None) -> str:
    return "–" if one is None else _share(one.value)


def robustness_table(facts: Facts) -> Table:
    """Good rates and diverged trials of each arm."""
    ranged = [each.rates for each in facts.robustness if each.rates is not None]
    close = facts.unit.size(max(rates.tolerance for rates in ranged), 0) if ranged else "the tolerance"
    head = ["arm", "good rates", "factor", "95% interval", "diverged", "share", "95% interval"]
    rows = [[each.arm, *_rate_cells(each.rates), *_diverged_cells(each)] for each in facts.robustness]
    return Table(
        f"Base rates whose expected score is within {close} of the best; search trials that diverged.", head, rows
    )


def _rate_cells(rates: RateRange | None) -> list[str]:
    if rates is None:
        return ["–"] * 3
    low, high = ("< " if rates.low_open else "", " >" if rates.high_open else "")
    interval = " to ".join(_factor(end) for end in rates.factor_interval) if rates.judged else "too few trials"
    return [f"{low}{rates.low:.2g} to {rates.high:.2g}{high}", _factor(rates.factor), interval]


def _factor(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{value:,.0f}"


def _diverged_cells(found: Robustness) -> list[str]:
    if found.share is None or found.share_interval is None:
        return ["–"] * 3
    return [
        f"{found.diverged} of {found.finished}",
        f"{found.share:.0%}",
        " to ".join(f"{end:.0%}" for end in found.share_interval),
    ]


def top_trials(record: StudyRecord, facts: Facts) -> Table:
    """The best complete search trials of each arm, best first."""
    names = list(dict.fromkeys(name for arm in record.arms.values() for name in arm.dimensions))
    found = [
        (row, value)
        for arm in record.arms.values()
        for row, value in study_rows.ranked(arm.search(), facts.metric)[:TOP_TRIALS]
    ]
    found.sort(key=lambda pair: facts.metric.as_gain(pair[1]), reverse=True)
    blocks = max((arm.blocks for arm in facts.arms.values()), default=1)
    rows = [
        [row.arm, _trial(row, blocks), facts.unit.value(value, 2), *(_number(row.params.get(name)) for name in names)]
        for row, value in found
    ]
    caption = f"Validation {facts.metric.words} at the last epoch, one seed each; at most {TOP_TRIALS} per arm."
    return Table(caption, ["arm", "trial", facts.metric.words, *names], rows)


def tested_table(record: StudyRecord, facts: Facts) -> Table | None:
    """What the evaluation on the test split measured besides the study's metric; None if there is nothing."""
    found = {label: _tested(record.arms[arm], role, one) for label, arm, role, one in _confirmed(facts)}
    names = sorted({name for values in found.values() for name in values})
    units = {name: known.format if (known := record.known_metrics.get(name)) else UNITS["plain"] for name in names}
    rows = [
        [label, *(_over_seeds(units[name], values.get(name, ())) for name in names)]
        for label, values in found.items()
        if values
    ]
    caption = "Mean ± standard deviation over the seeds. No verdict depends on them."
    return Table(caption, ["arm", *names], rows) if rows else None


def _confirmed(facts: Facts) -> Iterator[tuple[str, str, str, Confirmed]]:
    """(label, arm, role, result) of every configuration whose test values count."""
    for arm in facts.arms.values():
        for label, role, one in ((arm.name, "best", arm.confirm), (f"{arm.name}, twin", "twin", arm.twin)):
            if one is not None and one.split == "test":
                yield label, arm.name, role, one


def _tested(arm: ArmRecord, role: str, one: Confirmed) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in arm.stage("test", role):
        if (row.block, row.source) == (one.block, one.trial) and row.seed in one.seeds:
            for series in row.metrics:
                if series.axis == "test":
                    found.setdefault(series.name, []).extend(at for _, at in series.points if at is not None)
    return found


def _over_seeds(unit: Unit, values: Sequence[float]) -> str:
    return _mean_and_std(unit, fmean(values), stdev(values) if len(values) > 1 else None) if values else "–"


def _mean_and_std(unit: Unit, mean: float, std: float | None) -> str:
    """ "97.00% ± 0.31" or "0.4213 ± 0.02"; without `std` the mean."""
    spread = "" if std is None else f" ± {unit.value(std, 2).removesuffix(unit.value_suffix)}"
    return unit.value(mean, 2) + spread


def counts_table(facts: Facts) -> Table:
    """The outcomes of the search trials."""
    names = list(next(iter(facts.arms.values())).counts) if facts.arms else []
    rows = [[arm.name, *(str(arm.counts[name]) for name in names)] for arm in facts.arms.values()]
    return Table("Search trials.", ["arm", *names], rows)


def failure_table(record: StudyRecord) -> Table:
    """Diverged and failed rows by arm and kind, with the last message of each."""
    lost = [row for arm in record.arms.values() for row in arm.rows if row.outcome in ("diverged", "failed")]
    counts = Counter((row.arm, row.failure or "unknown") for row in lost)
    messages = {(row.arm, row.failure or "unknown"): row.message or "" for row in lost}
    rows = [[arm, kind, str(number), messages[arm, kind]] for (arm, kind), number in sorted(counts.items())]
    return Table("Runs that ended without a score.", ["arm", "kind", "runs", "last message"], rows, left=4)


def _share(value: float) -> str:
    return f"{value:.0%}"


def _trial(row: Row, blocks: int) -> str:
    number = "–" if row.trial is None else str(row.trial)
    return number if blocks == 1 else f"{number} (block {row.block})"


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
