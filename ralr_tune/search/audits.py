"""Which prunings are audited: the pruned trial is trained to its end all the same, apart from the search (ours).

An audit is a row of the ledger's own, after the search of all arms: Optuna was told PRUNED at the verdict, as of any
other trial, and neither sampler nor pruner nor choice ever sees the tail. Whether a pruning is audited is a pure
function of (study seed, block, ordinal), equal in all arms, and a larger share takes in the smaller one's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ralr_tune.records import Row
from ralr_tune.seeds import SEED_BITS, derive_seed
from ralr_tune.studyfile import StudySpec

AUTO_SHARE = 0.1
"""Of `audit = "auto"`, where the budget allows."""
AUTO_MIN_TRIALS = 100
"""Trials of an arm, all blocks together, from which on it does (ours). A rate of wrong prunings is named from 10 audits
on, and with fewer trials a tenth of the pruned ones cannot be as many."""


def share(spec: StudySpec, trials: int) -> float:
    """The share of prunings that is audited where an arm has so many search trials, all blocks together."""
    audit = spec.search.audit
    if audit != "auto":
        return audit
    return AUTO_SHARE if trials >= AUTO_MIN_TRIALS and spec.search.pruner != "none" else 0.0


def sampled(spec: StudySpec, rows: Sequence[Row]) -> list[Row]:
    """The pruned search rows that are audited, in the order of `rows`, which are all that the study has."""
    search = [row for row in rows if row.stage == "search"]
    trials = max(Counter(row.arm for row in search).values(), default=0)
    return [row for row in search if row.outcome == "pruned" and is_sampled(spec, row, trials)]


def is_sampled(spec: StudySpec, row: Row, trials: int) -> bool:
    """Whether the pruning of this search row, if it is pruned, is audited; `trials` as for `share`."""
    limit = share(spec, trials) * (1 << SEED_BITS)
    return derive_seed("audit", spec.study.seed, row.block, row.ordinal) < limit


def waiting(spec: StudySpec, rows: Sequence[Row]) -> list[Row]:
    """The pruned search rows whose audit is still to be done, planned or not."""
    done = {(row.arm, row.block, row.ordinal) for row in rows if row.stage == "audit" and row.state == "done"}
    return [row for row in sampled(spec, rows) if (row.arm, row.block, row.ordinal) not in done]
