from __future__ import annotations

from dataclasses import replace

import pytest

from ralr_tune.records import Row
from ralr_tune.search.stages import choosing_seeds, judging_seeds
from tests.calibration.searches import TABLE, record_of, study_of, whole


def _known(row: Row) -> Row:
    return replace(row, id=0)


def test_a_whole_study_is_judged_as_the_package_judges() -> None:
    file = study_of(3, sampler="tpe", pruner="median", blocks=2, trials=8)
    record = record_of(file)
    again = record_of(file)
    for name, arm in record.arms.items():
        assert [_known(row) for row in arm.rows] == [_known(row) for row in again.arms[name].rows]
    for arm in record.arms.values():
        assert len(arm.search()) == 2 * 8
        assert {row.outcome for row in arm.search()} >= {"complete", "pruned"}
        assert {row.seed for row in arm.stage("choose")} == set(choosing_seeds(file))
        for block in (1, 2):
            judged = [row.seed for row in arm.stage("judge") if row.block == block]
            assert judged == judging_seeds(file, file.confirm.max_seeds)
    seeds = [[row.seed for row in arm.search()] for arm in record.arms.values()]
    assert seeds[0] == seeds[1]


def test_two_whole_studies_are_counted() -> None:
    counted = whole(2, 2, "random", "none")
    assert sum(counted.counts.values()) == 2
    assert counted.broken == []


@pytest.mark.slow
def test_every_row() -> None:
    assert [fault for row in TABLE.counted() for fault in row.broken] == []
