"""What a study's data hold is shown before anything runs; test data that cannot be read are told then, in a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.commands.health import probe
from ralr_tune.commands.health.devices import data_check
from ralr_tune.commands.progress import Display
from ralr_tune.commands.report import make_report
from ralr_tune.commands.run import run
from ralr_tune.errors import DataError
from ralr_tune.records import Inventory
from ralr_tune.store.database import open_storage
from ralr_tune.studyfile import parse_study
from tests.commands.conftest import Cli
from tests.kinds.conftest import picture
from tests.studies import simulated_text

StudyFile = Callable[..., Path]
SMALL: dict[str, dict[str, Any]] = {
    "training": {"epochs": 1, "batch_size": 4},
    "search": {"trials": 1},
    "confirm": {"top": 1, "seeds": 2},
    "arms": {"monotone": {}},
}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Training/ and Testing/, a file that is no picture among the cats, and a test image that is in train, too."""
    root = tmp_path / "pictures"
    for split, count in (("Training", 4), ("Testing", 2)):
        for number, name in enumerate(("ant", "cat")):
            (root / split / name).mkdir(parents=True)
            for each in range(count):
                picture(10 * number + each + 100 * count * (each > 0)).save(root / split / name / f"{each}.png")
    (root / "Training" / "cat" / "x.heic").touch()
    return root


@pytest.fixture
def study(study_file: StudyFile, pictures: Path) -> Path:
    data = {"source": "folder", "path": str(pictures), "size": 8}
    return study_file(task={"kind": "classification", "data": data, "model": "small_cnn"}, **SMALL)


ROWS = ["ant 3 1 2", "cat 3 1 2 1", "all 6 2 4 1"]
TRUE = ["1 .heic (train/cat 1)", "2 of 4 test images are exact copies of", "all 4 test images can be decoded"]


def shows_all(text: str) -> bool:
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return all(row in lines for row in ROWS) and all(each in text for each in TRUE)


def test_plan_shows_the_table(cli_inside: Cli, study: Path) -> None:
    assert shows_all(cli_inside("plan", "sim.toml").out)
    data = cli_inside("plan", "sim.toml", "--json").json()["data"]
    assert data["classes"] == ["ant", "cat"]
    assert [(split["name"], split["counts"]) for split in data["splits"]] == [
        ("train", [3, 3]),
        ("validation", [1, 1]),
        ("test", [2, 2]),
    ]


def test_check_says_it_in_a_few_words(cli_inside: Cli, study: Path, pictures: Path) -> None:
    said = cli_inside("check", "sim.toml").out
    assert "2 classes; 6 train, 2 validation, 4 test images, 4 of the test images decoded; 1 skipped" in said


def test_run_shows_it_first_and_the_report_keeps_it(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[Inventory] = []
    report = run(parse_study(study.read_text()), out=tmp_path / "out", launcher="inprocess", workers=1,
                 show_data=shown.append)  # fmt: skip
    (inventory,) = shown
    assert report.facts.data is not None
    assert (report.facts.data.classes, report.facts.data.skipped) == (inventory.classes, inventory.skipped)
    assert all(split.digest for split in report.facts.data.splits)
    assert any("2 of 4 test images are exact copies of train images" in note for note in report.notes)
    assert json.loads(json.dumps(report.as_json()))["data"]["verified"] == 4
    page = report.page.read_text()
    assert "<h3>Data</h3>" in page
    assert "train/cat 1" in page
    with Display() as display:
        display.show_data(inventory)
    assert shows_all(capsys.readouterr().err)
    run(parse_study(study.read_text()), out=tmp_path / "out", launcher="inprocess", show_data=shown.append)
    assert len(shown) == 1  # nothing is left to do, so nothing need be there


def test_kinds_without_a_table_have_none(tmp_path: Path, sqlite_url: str) -> None:
    shown: list[Inventory] = []
    spec = parse_study(simulated_text(**SMALL))
    report = run(spec, out=tmp_path, storage=sqlite_url, launcher="inprocess", workers=1, show_data=shown.append)
    assert (shown, report.as_json()["data"]) == ([], None)
    assert "<h3>Data</h3>" not in report.page.read_text()
    storage = open_storage(sqlite_url)
    assert make_report(storage, "sim", tmp_path).facts.data is None
    storage.dispose()


def test_doctor_learns_the_same(study: Path, pictures: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    found = probe.data(study.read_text(), tmp_path / "runs" / "sim")
    assert found["inventory"]["verified"] == 4
    assert data_check(found).verdict == "warning"
    assert set(tmp_path.rglob("*")) == before
    (pictures / "Testing" / "ant" / "1.png").write_bytes(b"")
    check = data_check(probe.data(study.read_text(), tmp_path / "runs" / "sim"))
    assert check.verdict == "problem"
    assert "Testing/ant/1.png: not a readable image" in check.found


@pytest.mark.parametrize("command", ["check", "plan"])
def test_bad_test_data_are_one_line(cli_inside: Cli, study: Path, pictures: Path, command: str) -> None:
    (pictures / "Testing" / "cat" / "0.png").write_bytes(b"")
    ran = cli_inside(command, "sim.toml")
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 1
    assert "Testing/cat/0.png: not a readable image" in ran.err


def test_bad_test_data_end_a_run_before_the_first_trial(study: Path, pictures: Path, tmp_path: Path) -> None:
    (pictures / "Testing" / "cat" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"Testing/cat/0\.png: not a readable image"):
        run(parse_study(study.read_text()), out=tmp_path / "out", launcher="inprocess")
    assert not (tmp_path / "out" / "checkpoints").exists()
