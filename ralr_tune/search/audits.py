"""Which prunings are audited: the pruned trial is trained to its end outside of the search (our choice).

An audit is a separate row of the ledger, run after the search of all arms. Optuna gets PRUNED when the trial is pruned,
as for any other trial; sampler, pruner and choice never see the remaining epochs. Whether a pruning is audited is a
pure function of (study seed, block, ordinal), the same in all arms. A larger share includes a smaller share's audits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ralr_tune.records import Row
from ralr_tune.seeds import SEED_BITS, derive_seed
from ralr_tune.studyfile import StudySpec

AUTO_SHARE = 0.1
"""Share of prunings that `audit = "auto"` audits if an arm has AUTO_MIN_TRIALS trials."""
AUTO_MIN_TRIALS = 100
"""Trials of an arm, all blocks together, that `audit = "auto"` needs (our choice). The report gives a rate of wrong
prunings from 10 audits on, and a tenth of the pruned trials of a smaller arm is fewer than that."""


def share(spec: StudySpec, trials: int) -> float:
    """The share of prunings that is audited if an arm has `trials` search trials, all blocks together."""
    audit = spec.search.audit
    if audit != "auto":
        return audit
    return AUTO_SHARE if trials >= AUTO_MIN_TRIALS and spec.search.pruner != "none" else 0.0


def sampled(spec: StudySpec, rows: Sequence[Row]) -> list[Row]:
    """The pruned search rows that are audited, in the order of `rows`, which must be all rows of the study."""
    search = [row for row in rows if row.stage == "search"]
    trials = max(Counter(row.arm for row in search).values(), default=0)
    return [row for row in search if row.outcome == "pruned" and is_sampled(spec, row, trials)]


def is_sampled(spec: StudySpec, row: Row, trials: int) -> bool:
    """Whether this search row is audited if it is pruned; `trials` as for `share`."""
    return is_sampled_place(spec, row.block, row.ordinal, trials)


def is_sampled_place(spec: StudySpec, block: int, ordinal: int, trials: int) -> bool:
    """As `is_sampled`, also for a trial that is not planned yet."""
    limit = share(spec, trials) * (1 << SEED_BITS)
    return derive_seed("audit", spec.study.seed, block, ordinal) < limit


def waiting(spec: StudySpec, rows: Sequence[Row]) -> list[Row]:
    """The pruned search rows whose audit is not done, planned or not."""
    done = {(row.arm, row.block, row.ordinal) for row in rows if row.stage == "audit" and row.state == "done"}
    return [row for row in sampled(spec, rows) if (row.arm, row.block, row.ordinal) not in done]
