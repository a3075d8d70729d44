"""What differs between two study files, and which differences one study can hold."""

from __future__ import annotations

import pytest

from ralr_tune.spec.changes import changes
from tests.spec.design_file import DESIGN, Text


def found(text: Text) -> dict[str, bool]:
    """Changed keys of a text against the design's file; True where harmless."""
    return {change.key: change.harmless for change in changes(DESIGN.study(), text.study())}


@pytest.mark.parametrize(
    "text",
    [
        DESIGN,
        Text("# a remark\n" + DESIGN),
        DESIGN.but("lease_s = 30", "lease_s = 60"),
        Text(DESIGN[: DESIGN.index("[storage]")]),
        DESIGN.but("blocks = 1", ""),
    ],
    ids=["nothing", "comment", "lease", "no storage", "default"],
)
def test_what_means_the_same_is_no_change(text: Text) -> None:
    assert found(text) == {}


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("trials = 24", "trials = 48", "search.trials"),
        ("trials = 24", "trials = 12", "search.trials"),
        ("blocks = 1", "blocks = 3", "search.blocks"),
        ("top = 2", "top = 3", "confirm.top"),
        ("seeds = 5", "seeds = 10", "confirm.seeds"),
        ("margin = 0.005", "margin = 0.01", "confirm.margin"),
        ("confidence = 0.95", "confidence = 0.9", "confirm.confidence"),
    ],
)
def test_how_much_is_done_may_change(old: str, new: str, key: str) -> None:
    assert found(DESIGN.but(old, new)) == {key: True}


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("seed = 0", "seed = 1", "study.seed"),
        ("validation = 0.2", "validation = 0.3", "task.validation"),
        ('source = "digits"', 'source = "digits", limit = 9', "task.data.limit"),
        ("epochs = 12", "epochs = 13", "training.epochs"),
        ("momentum = 0.9", "", "training.momentum"),
        ("gamma = 0.1", "gamma = 0.2", "schedule.gamma"),
        ("[0.5, 0.75]", "[0.5]", "schedule.milestones"),
        ("low = 0.05", "low = 0.1", "arms.ralr.amplify.probability.low"),
        ("[arms.monotone]", "[arms.other]\n[arms.monotone]", "arms.other"),
        ('sampler = "tpe"', 'sampler = "gp"', "search.sampler"),
        ("start = [{ lr = 0.1 }]", "", "search.start"),
    ],
)
def test_what_a_trial_is_may_not(old: str, new: str, key: str) -> None:
    assert found(DESIGN.but(old, new)) == {key: False}


def test_fewer_blocks_would_leave_some_without_a_plan() -> None:
    (change,) = changes(DESIGN.but("blocks = 1", "blocks = 3").study(), DESIGN.study())
    assert (change.key, change.harmless) == ("search.blocks", False)


def test_every_change_is_found() -> None:
    text = DESIGN.but("trials = 24", "trials = 48").but("seed = 0", "seed = 1").but("gamma = 0.1", "gamma = 0.2")
    assert found(text) == {"study.seed": False, "schedule.gamma": False, "search.trials": True}


def test_a_change_says_before_and_after() -> None:
    (change,) = changes(DESIGN.study(), DESIGN.but("epochs = 12", "epochs = { low = 1, high = 2 }").study())
    assert str(change) == 'training.epochs: 12 -> {"low": 1, "high": 2, "log": false, "step": null}'
