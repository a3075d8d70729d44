from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ralr_tune.machine.files import replacing
from ralr_tune.records import Row
from ralr_tune.search.artifacts import ArtifactStore
from ralr_tune.studyfile import StudySpec
from ralr_tune.training.checkpoint import companion
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
def artifacts(tmp_path: Path, spec: StudySpec) -> ArtifactStore:
    return ArtifactStore(tmp_path, spec, spec.name)


def names(artifacts: ArtifactStore) -> set[str]:
    return {path.name for path in artifacts.folder.iterdir()}


def test_every_attempt_has_its_own_files(artifacts: ArtifactStore) -> None:
    first, second = row(5), row(5, attempt=2)
    assert (
        len(
            {artifacts.checkpoint(first), artifacts.checkpoint(second), artifacts.draft(first), artifacts.draft(second)}
        )
        == 4
    )
    assert artifacts.weights(row(5, stage="judge")) == artifacts.weights(row(9, attempt=4, stage="test"))


def test_the_folder_of_an_attempt_goes_with_its_files(artifacts: ArtifactStore) -> None:
    for row_id in (5, 6):
        artifacts.checkpoint(row(row_id)).touch()
        companion(artifacts.checkpoint(row(row_id))).mkdir()
        (companion(artifacts.checkpoint(row(row_id))) / "state.json").touch()
    assert artifacts.checkpoints(row(5)) == [artifacts.checkpoint(row(5))]
    artifacts.forget(row(5))
    assert names(artifacts) == {"sim-row6.1.ckpt", "sim-row6.1.files"}
    artifacts.tidy(lambda: [row(6, state="done", outcome="complete")])
    assert names(artifacts) == set()


def test_earlier_attempts_come_latest_first(artifacts: ArtifactStore) -> None:
    for attempt in (1, 2, 10, 11):
        artifacts.checkpoint(row(5, attempt=attempt)).touch()
    artifacts.draft(row(5)).touch()
    artifacts.checkpoint(row(55)).touch()
    artifacts.checkpoint(row(5, attempt=3)).with_name(".sim-row5.3.ckpt.4711").touch()
    found = [path.name for path in artifacts.earlier(row(5, attempt=11))]
    assert found == ["sim-row5.10.ckpt", "sim-row5.2.ckpt", "sim-row5.1.ckpt"]
    assert artifacts.earlier(row(6)) == []


def test_without_a_folder_there_are_no_files(tmp_path: Path, spec: StudySpec) -> None:
    artifacts = ArtifactStore(tmp_path / "none", spec, spec.name)
    assert (artifacts.earlier(row(1)), artifacts.leftovers(lambda: pytest.fail("nothing to hold rows against"))) == (
        [],
        [],
    )
    artifacts.forget(row(1))


def test_forget_removes_the_files_of_all_attempts(artifacts: ArtifactStore) -> None:
    for attempt in (1, 2):
        artifacts.checkpoint(row(5, attempt=attempt)).touch()
    artifacts.draft(row(5)).touch()
    artifacts.checkpoint(row(6)).touch()
    artifacts.forget(row(5, attempt=2))
    assert names(artifacts) == {"sim-row6.1.ckpt"}


def test_partly_written_files_are_recognized_by_their_temporary_name(artifacts: ArtifactStore) -> None:
    with replacing(artifacts.checkpoint(row(5))) as beside:
        beside.touch()
    beside.touch()  # as if the process had been killed before it could rename it
    assert set(artifacts.leftovers(list)) == {artifacts.checkpoint(row(5)), beside}
    artifacts.forget(row(5))
    assert names(artifacts) == set()


def test_leftovers_are_files_that_no_worker_will_read(artifacts: ArtifactStore, spec: StudySpec) -> None:
    for other in (row(1), row(2), row(3), row(99)):
        artifacts.checkpoint(other).touch()
    ArtifactStore(artifacts.folder, spec, "sim-row1.1").checkpoint(row(1)).touch()
    ArtifactStore(artifacts.folder, spec, "sim@2").checkpoint(row(1)).touch()  # of another generation
    (artifacts.folder / "model.safetensors").touch()
    failed = row(3, state="done", outcome="failed")  # the next `run` reopens it
    rows = [row(1), row(2, state="done", outcome="complete"), failed]
    assert [path.name for path in artifacts.leftovers(lambda: rows)] == ["sim-row2.1.ckpt", "sim-row99.1.ckpt"]
    artifacts.tidy(lambda: rows)
    assert names(artifacts) == {"sim-row1.1.ckpt", "sim-row3.1.ckpt", "sim-row1.1-row1.1.ckpt", "sim@2-row1.1.ckpt",
                                "model.safetensors"}  # fmt: skip


def searched(trial: int, value: float) -> Row:
    found = row(trial, state="done", outcome="complete")
    return replace(found, ordinal=trial, trial=trial, value=value, epoch=4)


def run_of_winner(row_id: int, source: int, stage: str, ordinal: int = 0, outcome: str | None = "complete") -> Row:
    found = row(row_id, stage=stage, state="done" if outcome else "free", outcome=outcome)
    return replace(found, source=source, ordinal=ordinal)


FIRST = [searched(3, 0.5), *(run_of_winner(10 + seed, 3, "judge", seed) for seed in range(2))]
"""A study of two judged seeds, up to its tests."""
FIRST_TESTED = [*FIRST, *(run_of_winner(20 + seed, 3, "test", seed) for seed in range(2))]
SECOND = [searched(4, 0.9), *(run_of_winner(30 + seed, 4, "judge", seed) for seed in range(2))]
"""What a larger budget found and judged: another winner."""


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        (FIRST[:2], {10}),  # judging
        (FIRST, {10, 11}),  # no test is planned yet
        ([*FIRST, run_of_winner(20, 3, "test", outcome=None)], {10, 11}),
        ([*FIRST, run_of_winner(20, 3, "test", outcome="failed")], {10, 11}),  # the next `run` reopens it
        (FIRST_TESTED, set()),
        ([*FIRST, *SECOND[:2]], {10, 11, 30}),  # the second is being judged, and may not stay the winner
        ([*FIRST, *SECOND], {30, 31}),
        ([*FIRST_TESTED, *SECOND], {30, 31}),
        ([*FIRST, run_of_winner(20, 3, "test", outcome=None), *SECOND], {10, 30, 31}),  # planned before
        ([*FIRST_TESTED, run_of_winner(12, 3, "judge", 2)], {12}),  # a further seed
    ],
)
def test_weights_wait_for_the_tests_that_need_them(tmp_path: Path, rows: list[Row], kept: set[int]) -> None:
    spec = simulated(search={"trials": 2}, confirm={"top": 1, "seeds": 2})
    artifacts = ArtifactStore(tmp_path, spec, spec.name)
    judged = [each for each in rows if each.stage == "judge"]
    for each in judged:
        artifacts.draft(each).touch()
    left = {path.name for path in artifacts.leftovers(lambda: rows)}
    assert {each.id for each in judged if artifacts.draft(each).name not in left} == kept


def test_a_file_that_cannot_be_removed_is_no_error(artifacts: ArtifactStore) -> None:
    artifacts.checkpoint(row(5)).mkdir()
    artifacts.tidy(list)
    assert names(artifacts) == {"sim-row5.1.ckpt"}
