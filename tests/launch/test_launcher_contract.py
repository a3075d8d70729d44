"""Every launcher starts workers that finish a study, reports how they ended, stops them, and returns their logs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ralr_tune.errors import UsageError
from ralr_tune.launch.devices import Place
from ralr_tune.launch.folder import folder_token
from ralr_tune.launch.launcher import Ending, Job, Launcher
from ralr_tune.launch.registry import make_launcher, names
from ralr_tune.search.stages import pending_stage
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import StudySpec
from tests.launch import fake_ray, fake_slurm
from tests.launch.elsewhere import Elsewhere, ElsewhereOptions
from tests.search.conftest import MakeSession, make_session
from tests.studies import simulated
from tests.waiting import LONG_S, until

__all__ = ["make_session"]

PLACES = [Place(0, "cpu", 1), Place(1, "cpu", 1)]
MAKERS: dict[str, Callable[[Path], Launcher]] = {
    "local": lambda folder: make_launcher("local"),
    "inprocess": lambda folder: make_launcher("inprocess"),
    "elsewhere": lambda folder: Elsewhere(ElsewhereOptions(folder=folder)),
    "ray": lambda folder: make_launcher("ray"),
    "slurm": lambda folder: make_launcher("slurm", {"poll-s": 0.2}),
}


def test_every_launcher_of_this_package_is_tested() -> None:
    assert set(names()) <= set(MAKERS)


@pytest.fixture(params=MAKERS)
def launcher(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Launcher]:
    fake_slurm.install(monkeypatch, tmp_path_factory.mktemp("slurm"))
    fake_ray.install(monkeypatch)
    made = MAKERS[request.param](tmp_path_factory.mktemp("elsewhere"))
    yield made
    made.stop(10)


def ended(launcher: Launcher) -> dict[int, int | None]:
    until(lambda: None not in launcher.poll().values(), "the workers end")
    return launcher.poll()


def job(spec: StudySpec, make_session: MakeSession, out: Path) -> tuple[Job, Ledger]:
    """The job that `run` gives to workers that must see the same folder."""
    session = make_session(spec)
    return Job(spec.name, session.storage.url, out, folder_token=folder_token(out)), session.ledger


def test_each_worker_gets_a_place(launcher: Launcher) -> None:
    places = launcher.places("auto", 3)
    assert [place.index for place in places] == [0, 1, 2]
    assert all(place.threads >= 1 and place.sharing >= 1 for place in places)
    assert len(launcher.places("auto", None)) >= 1
    with pytest.raises(UsageError, match="--workers 0: allowed: at least 1"):
        launcher.places("auto", 0)


def test_the_meaning_of_the_workers_own_exit_codes(launcher: Launcher) -> None:
    assert launcher.ending(0) is Ending.done
    assert {launcher.ending(code) for code in (1, 2)} == {Ending.gave_up}
    assert launcher.ending(130) is Ending.interrupted
    assert {launcher.ending(code) for code in (-9, 137, 143)} == {Ending.killed}
    assert 0 < launcher.poll_s <= 60


def test_workers_finish_a_study_and_end_with_0(launcher: Launcher, make_session: MakeSession, tmp_path: Path) -> None:
    spec = simulated(search={"trials": 2}, confirm={"top": 1, "seeds": 2})
    work, ledger = job(spec, make_session, tmp_path)
    for place in PLACES:
        launcher.start(work, place)
    assert ended(launcher) == {0: 0, 1: 0}
    assert pending_stage(spec, ledger.rows()) is None


def test_the_log_of_a_failed_worker_has_the_reason(
    launcher: Launcher, make_session: MakeSession, tmp_path: Path
) -> None:
    work, _ = job(simulated(), make_session, tmp_path)
    launcher.start(Job("unheard-of", work.storage_url, tmp_path), PLACES[0])
    assert ended(launcher) == {0: 1}
    last = launcher.tail(0).splitlines()[-1]
    assert last.startswith("error: ")
    assert "unheard-of" in last
    assert launcher.tail(7) == ""


def test_a_worker_that_does_not_see_the_folder_of_the_run_claims_nothing(
    launcher: Launcher, make_session: MakeSession, tmp_path: Path
) -> None:
    work, ledger = job(simulated(), make_session, tmp_path)
    before = ledger.rows()
    launcher.start(
        Job(work.study, work.storage_url, tmp_path / "not-shared", folder_token=work.folder_token), PLACES[0]
    )
    assert ended(launcher) == {0: 2}
    last = launcher.tail(0).splitlines()[-1]
    assert last.startswith(f"error: --out {tmp_path / 'not-shared'}: on this machine it holds no file folder-token")
    assert "the folder is not shared" in last
    assert ledger.rows() == before


def test_stopped_workers_release_their_rows(launcher: Launcher, make_session: MakeSession, tmp_path: Path) -> None:
    spec = simulated(task={"data": {"seconds_per_epoch": 0.2}}, training={"epochs": 500}, search={"pruner": "none"})
    work, ledger = job(spec, make_session, tmp_path)
    launcher.stop(1)  # before any start
    launcher.start(work, PLACES[0])
    until(lambda: launcher.poll() and any(row.epoch for row in ledger.rows(curves=False)), "an epoch is finished")
    launcher.stop(LONG_S)
    assert launcher.poll() == {0: 130}
    begun = [row for row in ledger.rows() if row.attempt]
    assert [row.state for row in begun] == ["free"]
    assert begun[0].epoch > 0
    launcher.stop(1)  # a second call changes nothing
