"""A study knows what its trials read: other data or code are refused, or begin a new generation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy import text

from ralr_tune.commands.run import init, run
from ralr_tune.commands.run.options import RunOptions
from ralr_tune.commands.status import study_status
from ralr_tune.errors import RalrTuneError, UsageError
from ralr_tune.launch.devices import Place
from ralr_tune.launch.launcher import Job
from ralr_tune.launch.worker import work
from ralr_tune.search.identity import agree, identity_of
from ralr_tune.search.tasks import data_inventory
from ralr_tune.store import generations
from ralr_tune.store.database import open_storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import StudySpec, parse_study
from tests.databases import dump
from tests.kinds.conftest import picture
from tests.studies import simulated_text

SMALL: dict[str, dict[str, Any]] = {
    "training": {"epochs": 1, "batch_size": 8},
    "search": {"trials": 1},
    "confirm": {"top": 1, "seeds": 2},
    "arms": {"monotone": {}},
}


def draw(root: Path, *, seed: int = 0, classes: tuple[str, ...] = ("ant", "cat")) -> None:
    """Writes other pictures for another seed."""
    for split, count in (("train", 8), ("test", 2)):
        for number, name in enumerate(classes):
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for each in range(count):
                drawn = picture(10_000 * seed + 1000 * number + 100 * (split == "test") + each)
                drawn.save(root / split / name / f"{each}.png")


class Case:
    """A study on a folder of pictures, run in this process."""

    def __init__(self, root: Path, url: str) -> None:
        self.root, self.url, self.out = root / "pictures", url, root / "out"
        self.model = "small_cnn"
        draw(self.root)

    def spec(self, seeds: int = 2, path: str | None = None) -> StudySpec:
        data = {"source": "folder", "path": path or str(self.root), "size": 8}
        task = {"kind": "classification", "data": data, "model": self.model}
        return parse_study(simulated_text(**SMALL | {"task": task, "confirm": {"top": 1, "seeds": seeds}}))

    def run(self, seeds: int = 2, *, path: str | None = None, out: Path | None = None, **options: Any) -> Any:
        options = {"launcher": "inprocess", "workers": 1, "devices": "cpu"} | options
        return run(self.spec(seeds, path), storage=self.url, out=out or self.out, **options)

    def dumped(self) -> Any:
        """Everything but the text of the study file, whose budget may be raised before the data are compared."""
        return {name: rows for name, rows in dump(self.url).items() if name in ("ralr_tune_ledger", "trials")}

    def judged(self) -> int:
        storage = open_storage(self.url)
        try:
            return len(Ledger(storage, "sim").rows("judge"))
        finally:
            storage.dispose()


@pytest.fixture
def case(tmp_path: Path, sqlite_url: str) -> Case:
    return Case(tmp_path, sqlite_url)


def test_replaced_images_are_refused_before_another_seed_is_judged(case: Case) -> None:
    case.run(2)
    draw(case.root, seed=1)
    with pytest.raises(UsageError) as refused:
        case.run(4)
    assert str(refused.value) == (
        "study sim: data or code differ from those of its earlier trials, so new trials would not be comparable: "
        "train: the contents or the order of its 13 images changed; "
        "validation: the contents or the order of its 3 images changed; "
        "test: the contents or the order of its 4 images changed. Restore them, or give `run` "
        "--new-generation: it begins generation 2 with the whole budget, and pools nothing with the earlier trials"
    )
    draw(case.root)  # restored, with other modification times
    case.run(4)
    assert case.judged() == 4


def test_another_class_is_refused_in_the_middle_of_confirm(case: Case) -> None:
    case.run(2)
    draw(case.root, classes=("ant", "bee", "cat"))
    with pytest.raises(UsageError, match="2 classes before, 3 now: bee added"):
        case.run(4)


def test_another_folder_under_the_same_relative_path_is_refused(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("here", "there", "copy")):
        draw(tmp_path / name / "data", seed=number % 2)
    monkeypatch.chdir(tmp_path / "here")
    case.run(2, path="data", out=Path("out"))
    monkeypatch.chdir(tmp_path / "there")
    with pytest.raises(UsageError, match="train: the contents or the order"):
        case.run(4, path="data", out=Path("out"))
    monkeypatch.chdir(tmp_path / "copy")  # the same pictures elsewhere are the same data
    case.run(4, path="data", out=Path("out"))
    assert case.judged() == 4


def test_a_new_generation_starts_afresh_and_a_repeated_command_resumes_it(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    first = case.run(2)
    before = case.dumped()
    draw(case.root, seed=1, classes=("ant", "bee", "cat"))
    second = case.run(2, new_generation=True)
    again = case.run(2, new_generation=True)
    assert again.as_json() == second.as_json()
    names = optuna.get_all_study_names(case.url)
    assert sorted(names) == ["sim/monotone", "sim/monotone@2"]
    assert [len(optuna.load_study(study_name=name, storage=case.url).trials) for name in sorted(names)] == [1, 1]
    after = case.dumped()
    assert all(row in after["ralr_tune_ledger"] for row in before["ralr_tune_ledger"])
    assert len(after["ralr_tune_ledger"]) == 2 * len(before["ralr_tune_ledger"])
    one, two = second.facts.generations
    assert (one.trials, len(one.identity.data.classes), len(two.identity.data.classes)) == (one.trials, 2, 3)
    assert one.trials == two.trials > 0
    page = second.page.read_text()
    assert "This is generation 2: data or code changed after generation 1" in page
    assert "generation 1 (not in this report)" in page
    assert second.as_json()["generations"][0]["trials"] == one.trials
    assert (case.out / "generation-1" / "report.html").read_text() != page
    assert first.facts.generations[0].number == 1
    storage = open_storage(case.url)
    status = study_status(storage, "sim")
    storage.dispose()
    assert status.as_text().startswith("study sim, generation 2, done, in ")
    assert status.as_json()["generation"] == 2


def test_a_new_generation_without_a_change_resumes(case: Case) -> None:
    case.run(2, new_generation=True)
    case.run(4, new_generation=True)
    assert case.judged() == 4
    assert optuna.get_all_study_names(case.url) == ["sim/monotone"]


def test_a_plan_whose_trials_have_not_begun_takes_the_data_as_they_are(case: Case) -> None:
    init(case.spec(), RunOptions(storage=case.url, out=case.out))
    storage = open_storage(case.url)
    agree(Ledger(storage, "sim"), identity_of(case.spec(), data_inventory(case.spec(), contents=True)))
    storage.dispose()
    draw(case.root, seed=1, classes=("ant", "bee", "cat"))
    assert len(case.run(2).facts.data.classes) == 3


def test_a_worker_compares_before_it_claims(case: Case, tmp_path: Path) -> None:
    case.run(2)
    init(case.spec(4), RunOptions(storage=case.url, out=case.out))
    before = case.dumped()
    draw(case.root, seed=1)
    with pytest.raises(UsageError, match="train: the contents or the order"):
        work(Job("sim", case.url, tmp_path / "elsewhere"), Place(0, "cpu", 1))
    assert case.dumped() == before


def test_changed_code_of_a_network_is_refused_and_comments_are_not(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "own_identity_net.py"
    source = (
        "from torch import nn\n\ndef net(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))\n"
    )
    file.write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    case.model = "own_identity_net:net"
    case.run(2)
    file.write_text("# the same\n" + source)
    case.run(3)
    file.write_text(source.replace("nn.Flatten()", "nn.Flatten(), nn.ReLU()"))
    with pytest.raises(UsageError, match=r"module own_identity_net \(task\.model\) changed"):
        case.run(4)
    assert case.judged() == 4


def test_a_new_generation_waits_for_running_workers(case: Case) -> None:
    init(case.spec(), RunOptions(storage=case.url, out=case.out))
    storage = open_storage(case.url)
    assert Ledger(storage, "sim", lease_s=60).claim("box:1:0", "search") is not None
    storage.dispose()
    draw(case.root, seed=1)
    with pytest.raises(UsageError, match="--new-generation: trials of study sim still running: 1; stop"):
        case.run(4, new_generation=True)


def test_mixed_versions_are_said_in_the_report(case: Case) -> None:
    case.run(2)
    storage = open_storage(case.url)
    known = generations.identity(storage, "sim", 1)
    assert known is not None
    (versions,) = known.versions
    assert versions.keys() == {"ralr-tune", "numpy", "python", "torch", "torchvision", "device"}
    with storage.engine.connect() as connection:
        old = json.dumps([dict(versions) | {"torch": "1.0"}])
        connection.execute(
            text("UPDATE ralr_tune_generations SET identity = json_set(identity, '$.versions', json(:old))"),
            {"old": old},
        )
    storage.dispose()
    report = case.run(3)
    assert any(f"different versions of torch (1.0, {versions['torch']})" in note for note in report.notes)


def test_a_study_of_an_earlier_release_gets_its_identity_and_says_so(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    case.run(2)
    storage = open_storage(case.url)
    with storage.engine.connect() as connection:
        connection.execute(text("DROP TABLE ralr_tune_generations"))
        connection.execute(text("UPDATE ralr_tune_alembic_version SET version_num = '0002'"))
    storage.dispose()
    rows = case.dumped()["ralr_tune_ledger"]
    report = case.run(3)
    assert "an earlier release did not record what its trials read" in caplog.text
    assert any("trials ran under a release that did not record" in note for note in report.notes)
    assert all(row in case.dumped()["ralr_tune_ledger"] for row in rows)
    draw(case.root, seed=1)
    with pytest.raises(UsageError, match="train: the contents"):
        case.run(4)


def test_test_data_are_compared_without_being_opened_to_a_model(case: Case) -> None:
    case.run(2, confirm=False)
    shutil.copy(case.root / "test" / "ant" / "0.png", case.root / "test" / "cat" / "0.png")
    with pytest.raises(RalrTuneError, match=r"test: the contents or the order of its 4 images changed\. Restore"):
        case.run(2)
