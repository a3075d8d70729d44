"""Which files are removed and which stay, for every state of a row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ralr_tune.commands.gc import collect_garbage
from ralr_tune.errors import UsageError
from ralr_tune.records import Outcome, Row, Stage
from ralr_tune.search.artifacts import ArtifactStore
from ralr_tune.store import studies
from ralr_tune.store.address import sqlite_url
from ralr_tune.store.database import open_storage
from ralr_tune.store.ledger import Ledger, PlannedRow
from tests.studies import simulated

PARAMS = {"lr": 0.1, "weight_decay": 1e-4}


class Folder:
    """The out folder of a study with its database."""

    def __init__(self, runs: Path, name: str = "sim") -> None:
        self.out = runs / name
        self.out.mkdir(parents=True)
        self.url = sqlite_url((self.out / "study.db").absolute())
        self.storage = open_storage(self.url, create=True)
        self.artifacts = self.study(name)

    def study(self, name: str) -> ArtifactStore:
        spec = simulated(study={"name": name})
        studies.register(self.storage, name=name, text=spec.text, fingerprint=spec.fingerprint)
        return ArtifactStore(self.out / "checkpoints", spec, name)

    def row(self, ordinal: int, stage: Stage = "search", *, name: str = "sim", lease_s: float = 60) -> Row:
        """A row that a worker has claimed."""
        ledger = Ledger(self.storage, name, lease_s)
        confirm = {} if stage == "search" else {"role": "best", "source": 0, "params": PARAMS}
        ledger.plan([PlannedRow("monotone", stage, 1, ordinal, seed=ordinal, **confirm)])
        row = ledger.claim("box:1:0", stage)
        assert row is not None
        return row

    def done(self, ordinal: int, stage: Stage = "search", *, name: str = "sim", outcome: Outcome = "complete") -> Row:
        row = self.row(ordinal, stage, name=name)
        Ledger(self.storage, name).finish(row, outcome=outcome, value=0.5, curve=(), seconds=1.0)
        return row

    def names(self) -> set[str]:
        return {str(path.relative_to(self.out)) for path in self.out.rglob("*") if "study.db" not in path.name}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RALR_TUNE_STORAGE", raising=False)
    made = Folder(Path("runs"))
    yield made
    made.storage.dispose()


def write(path: Path, *, age_s: float = 0.0) -> Path:
    """A file of 1 KiB that was last written `age_s` ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 1024)
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def temporary(path: Path) -> Path:
    """The temporary file that a process writes before it renames it."""
    return path.with_name(f".{path.name}.4711")


def removed(folder: Folder) -> dict[str, str]:
    """What a dry run lists, by file name, with the reasons; then checks that gc removes exactly that."""
    before = folder.names()
    rehearsed = collect_garbage("sim", dry_run=True)
    assert folder.names() == before
    done = collect_garbage("sim")
    assert done.files == rehearsed.files
    assert {Path(file.path).name for file in done.files} == {Path(name).name for name in before - folder.names()}
    assert {file.bytes for file in done.files} <= {1024}
    assert collect_garbage("sim").files == []
    return {Path(file.path).name: file.why for file in done.files}


def test_checkpoints_of_finished_trials_are_removed_and_others_stay(folder: Folder) -> None:
    artifacts = folder.artifacts
    complete, pruned = folder.done(0), folder.done(1, outcome="pruned")
    failed, free, lapsed, alive = folder.row(2), folder.row(3), folder.row(4, lease_s=60), folder.row(5)
    ledger = Ledger(folder.storage, "sim")
    ledger.fail(failed, kind="bug", message="", retry=False)
    ledger.release(free)
    Ledger(folder.storage, "sim", lease_s=-1).renew_lease(lapsed)
    for row in (complete, pruned, failed, free, lapsed, alive):
        write(artifacts.checkpoint(row))
    write(artifacts.checkpoint(replace(complete, attempt=7)))
    write(temporary(artifacts.checkpoint(complete)))
    write(temporary(artifacts.checkpoint(alive)))
    old = write(folder.out / "checkpoints" / "sim-search-3.ckpt")
    finished = [
        artifacts.checkpoint(complete),
        artifacts.checkpoint(pruned),
        artifacts.checkpoint(replace(complete, attempt=7)),
    ]
    assert removed(folder) == {
        **{path.name: "of a finished trial" for path in [*finished, temporary(artifacts.checkpoint(complete))]},
        old.name: "checkpoint of release 0.1",
    }
    assert all(artifacts.checkpoint(row).exists() for row in (failed, free, lapsed, alive))


def test_weights_stay_until_they_are_tested(folder: Folder) -> None:
    artifacts = folder.artifacts
    tested, untested = folder.done(0, "judge"), folder.done(1, "judge")
    diverged = folder.done(2, "judge", outcome="diverged")
    running = folder.row(3, "judge")
    for row in (tested, untested, diverged):
        write(artifacts.weights(row))
    for row in (untested, diverged, running):
        write(artifacts.draft(row))
    assert removed(folder).keys() == {artifacts.draft(diverged).name, artifacts.weights(diverged).name}
    folder.done(0, "test")
    waiting = folder.row(1, "test")
    assert removed(folder) == {artifacts.weights(tested).name: "weights of no pending test"}
    Ledger(folder.storage, "sim").finish(waiting, outcome="complete", value=0.5, curve=(), seconds=1.0)
    gone = removed(folder)
    assert artifacts.weights(untested).name in gone
    assert artifacts.draft(running).exists()


def test_files_for_users_stay(folder: Folder) -> None:
    stays = ["report.html", "best/ralr.toml", "best/.hidden", "figures/confirmed.png", "logs/worker-0.log", "mine.txt"]
    for name in (*stays, "checkpoints/mine.ckpt", "checkpoints/sim-row1.1.ckpt.backup"):
        write(folder.out / name, age_s=1e6)
    assert removed(folder) == {}
    half = {temporary(folder.out / name) for name in stays if not name.startswith("best/.")}
    for path in half:
        write(path, age_s=1e6)
    write(temporary(folder.out / "best/monotone.toml"), age_s=60)  # being written now
    expected = {path.name: "partly written" for path in half if path.parent.name in ("sim", "best", "figures")}
    assert removed(folder) == expected
    assert all((folder.out / name).exists() for name in stays)


def test_decoded_images_are_removed_if_no_worker_opened_them_recently(folder: Folder) -> None:
    names = ("images-ab12.npy", "images-cd34.npy", ".images-ab12.npy.77", ".images-cd34.npy.78", "mine.npy")
    lately, long_ago, being_written, half, mine = (folder.out / "data" / name for name in names)
    for path in (lately, being_written):
        write(path, age_s=60)
    for path in (long_ago, half, mine):
        write(path, age_s=1e6)
    assert removed(folder) == {
        long_ago.name: "decoded images, decoded again when needed",
        half.name: "partly written",
    }
    assert all(path.exists() for path in (lately, being_written, mine))


def test_a_folder_of_partly_drawn_figures_is_removed_as_a_whole(folder: Folder) -> None:
    images = folder.out / "figures" / ".images-ab12"
    write(images / "confirmed.png")
    os.utime(images, (1e9, 1e9))
    (found,) = collect_garbage("sim").files
    assert (found.path, found.bytes, found.why) == ("runs/sim/figures/.images-ab12", 1024, "partly written")
    assert not images.exists()


def test_other_studies_of_the_storage_are_cleaned_and_unknown_studies_left(folder: Folder) -> None:
    other = folder.study("other-row1.1")
    row = folder.done(0, name="other-row1.1")
    write(other.checkpoint(row))
    strange = write(folder.out / "checkpoints" / "theirs-row3.1.ckpt")
    write(folder.out / "checkpoints" / "theirs-final-12ab-34cd.safetensors")
    found = collect_garbage("sim")
    assert [Path(file.path).name for file in found.files] == [other.checkpoint(row).name]
    assert found.left == ["2 files of study theirs in runs/sim/checkpoints: the study is not in this storage"]
    assert strange.exists()


def test_without_a_study_all_studies_stored_here_are_cleaned(folder: Folder) -> None:
    second = Folder(Path("runs"), "second")
    second.storage.dispose()
    for each in (folder, second):
        write(each.out / "checkpoints" / f"{each.out.name}-search-1.ckpt")
    write(Path("runs") / "third" / "study.db")  # not a database
    found = collect_garbage(dry_run=True)
    assert [Path(file.path).name for file in found.files] == ["second-search-1.ckpt", "sim-search-1.ckpt"]
    (left,) = found.left
    assert "not a database" in left
    by_storage = collect_garbage(storage=folder.url, dry_run=True)
    assert [Path(file.path).name for file in by_storage.files] == ["sim-search-1.ckpt"]
    by_folder = collect_garbage(out=second.out, dry_run=True)
    assert [Path(file.path).name for file in by_folder.files] == ["second-search-1.ckpt"]


def test_no_stored_study_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RALR_TUNE_STORAGE", raising=False)
    with pytest.raises(UsageError, match=r"no study is stored in runs/; give STUDY, --storage or --out"):
        collect_garbage()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_removed_is_listed_and_the_others_are_removed(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubborn, other = (write(folder.artifacts.checkpoint(folder.done(ordinal))) for ordinal in range(2))
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == stubborn:
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    found = collect_garbage("sim")
    assert [file.path for file in found.files] == [str(other)]
    assert found.left == [f"{stubborn}: cannot be removed: Permission denied"]


def test_the_command_shows_sizes_and_a_total_without_torch(folder: Folder) -> None:
    names = [write(folder.artifacts.checkpoint(folder.done(ordinal))).name for ordinal in range(2)]
    script = (
        "import sys\n"
        "from ralr_tune.__main__ import main\n"
        "try:\n    main(['gc', 'sim', '--dry-run', *sys.argv[1:]])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    text = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert text.splitlines() == [
        *(f"runs/sim/checkpoints/{name}  1.0 KiB  of a finished trial" for name in names),
        "2 files, 2.0 KiB, would be removed",
    ]
    facts = subprocess.run([sys.executable, "-c", script, "--json"], capture_output=True, text=True, check=True).stdout
    assert json.loads(facts)["bytes"] == 2048
    assert {"path", "bytes", "why"} == json.loads(facts)["files"][0].keys()
