"""What a study can see, and what other splits of its epochs can."""

from __future__ import annotations

from ralr_tune.search.forecast import most_epochs
from ralr_tune.search.outlook import outlook
from tests.studies import simulated


def test_a_divided_search_compares_schedules_alone_and_other_splits_are_searches_of_their_own() -> None:
    search = {"sampler": "random", "trials": 24, "blocks": 4, "divided": True}
    spec = simulated(search=search, confirm={"top": 1, "seeds": 5})
    found = outlook(spec, None)
    assert found is not None
    (own,) = found.own
    assert (own.what, own.trials, own.blocks, own.epochs) == ("arm", 6, 4, most_epochs(spec))
    same_seeds = outlook(simulated(search=search | {"trials": 6, "divided": False}, confirm={"seeds": 5}), None)
    assert same_seeds is not None
    assert own.chances[-1].right != same_seeds.own[1].chances[-1].right
    others = [answer for answer in found.answers if not answer.own]
    assert all(4 * answer.trials * answer.blocks <= answer.epochs <= own.epochs for answer in others)
    assert any(answer.trials > 6 for answer in others if answer.blocks == 1)
