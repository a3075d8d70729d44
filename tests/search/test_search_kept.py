from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ralr_tune.records import Row
from ralr_tune.search.kept import Kept
from ralr_tune.studyfile import StudySpec
from ralr_tune.training.files import replacing
from tests.studies import simulated

PARAMS = {"lr": 0.1, "weight_decay": 1e-4}


def row(
    row_id: int, *, attempt: int = 1, stage: str = "search", state: str = "held", outcome: str | None = None
) -> Row:
    fields = dict.fromkeys(Row.__dataclass_fields__)
    fields |= {"id": row_id, "arm": "monotone", "stage": stage, "block": 1, "ordinal": 0, "seed": 7, "params": PARAMS}
    fields |= {"role": "" if stage == "search" else "best", "source": None if stage == "search" else 3}
    fields |= {"attempt": attempt, "state": state, "outcome": outcome, "epoch": 0, "curve": ()}
    return Row(**fields)  # type: ignore[arg-type]


@pytest.fixture
def spec() -> StudySpec:
    return simulated()


@pytest.fixture
def kept(tmp_path: Path, spec: StudySpec) -> Kept:
    return Kept(tmp_path, spec)


def names(kept: Kept) -> set[str]:
    return {path.name for path in kept.folder.iterdir()}


def test_every_attempt_has_files_of_its_own(kept: Kept) -> None:
    first, second = row(5), row(5, attempt=2)
    assert len({kept.checkpoint(first), kept.checkpoint(second), kept.draft(first), kept.draft(second)}) == 4
    assert kept.weights(row(5, stage="judge")) == kept.weights(row(9, attempt=4, stage="test"))


def test_earlier_attempts_come_latest_first(kept: Kept) -> None:
    for attempt in (1, 2, 10, 11):
        kept.checkpoint(row(5, attempt=attempt)).touch()
    kept.draft(row(5)).touch()
    kept.checkpoint(row(55)).touch()
    kept.checkpoint(row(5, attempt=3)).with_name(".sim-row5.3.ckpt.4711").touch()
    found = [path.name for path in kept.earlier(row(5, attempt=11))]
    assert found == ["sim-row5.10.ckpt", "sim-row5.2.ckpt", "sim-row5.1.ckpt"]
    assert kept.earlier(row(6)) == []


def test_without_a_folder_there_is_nothing(tmp_path: Path, spec: StudySpec) -> None:
    kept = Kept(tmp_path / "none", spec)
    assert (kept.earlier(row(1)), kept.leftovers(lambda: pytest.fail("nothing to hold rows against"))) == ([], [])
    kept.forget(row(1))


def test_a_row_that_is_done_leaves_nothing_of_any_attempt(kept: Kept) -> None:
    for attempt in (1, 2):
        kept.checkpoint(row(5, attempt=attempt)).touch()
    kept.draft(row(5)).touch()
    kept.checkpoint(row(6)).touch()
    kept.forget(row(5, attempt=2))
    assert names(kept) == {"sim-row6.1.ckpt"}


def test_half_written_files_are_known_by_the_name_they_are_written_under(kept: Kept) -> None:
    with replacing(kept.checkpoint(row(5))) as beside:
        beside.touch()
    beside.touch()  # as if the process had been killed before it could rename it
    assert set(kept.leftovers(list)) == {kept.checkpoint(row(5)), beside}
    kept.forget(row(5))
    assert names(kept) == set()


def test_leftovers_are_what_nobody_will_read(kept: Kept, spec: StudySpec) -> None:
    for other in (row(1), row(2), row(3), row(99)):
        kept.checkpoint(other).touch()
    Kept(kept.folder, simulated(study={"name": "sim-row1.1"})).checkpoint(row(1)).touch()
    (kept.folder / "model.safetensors").touch()
    failed = row(3, state="done", outcome="failed")  # the next `run` opens it again
    rows = [row(1), row(2, state="done", outcome="complete"), failed]
    assert [path.name for path in kept.leftovers(lambda: rows)] == ["sim-row2.1.ckpt", "sim-row99.1.ckpt"]
    kept.tidy(lambda: rows)
    assert names(kept) == {"sim-row1.1.ckpt", "sim-row3.1.ckpt", "sim-row1.1-row1.1.ckpt", "model.safetensors"}


@pytest.mark.parametrize(
    ("tests", "left"),
    [
        ([], False),  # not planned yet
        ([row(8, stage="test", state="free")], False),
        ([row(8, stage="test", state="done", outcome="complete")], True),
        ([replace(row(8, stage="test", state="free"), source=4)], True),  # another winner is tested
    ],
)
def test_weights_wait_for_their_test(kept: Kept, tests: list[Row], left: bool) -> None:
    judged = row(7, stage="judge", state="done", outcome="complete")
    kept.weights(judged).touch()
    kept.draft(judged).touch()
    assert bool(kept.leftovers(lambda: [judged, *tests])) == left


def test_what_cannot_be_removed_stops_nobody(kept: Kept) -> None:
    kept.checkpoint(row(5)).mkdir()
    kept.tidy(list)
    assert names(kept) == {"sim-row5.1.ckpt"}
