from __future__ import annotations

import gzip
import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.commands.export import best_arm, chosen_rows, export_best, export_study
from ralr_tune.commands.record import write_record
from ralr_tune.commands.report import make_report, make_report_from_file
from ralr_tune.errors import StorageError, UsageError
from ralr_tune.launch.devices import Place
from ralr_tune.launch.launcher import Job
from ralr_tune.launch.worker import work
from ralr_tune.search.stages import plan_search
from ralr_tune.store import studies
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.store.reading import read_study
from ralr_tune.store.record_file import read_record_file, record_bytes
from ralr_tune.studyfile import parse_study
from ralr_tune.studyfile.exported import load_exported, parse_exported
from tests.exports import Records
from tests.studies import simulated


def begin(storage: Storage, **changes: dict[str, Any]) -> Ledger:
    """A study whose rows are planned but not started."""
    spec = simulated(**changes)
    studies.register(storage, name=spec.name, text=spec.text, fingerprint=spec.fingerprint)
    for arm in spec.arms:
        studies.optuna_study(storage, studies.optuna_name(spec.name, arm), metric=spec.metric)
    ledger = Ledger(storage, spec.name, spec.storage.lease_s)
    plan_search(ledger, spec, spec.search.trials)
    return ledger


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    """A study of two arms with three trials, confirmed and tested."""
    folder = tmp_path_factory.mktemp("study")
    url = f"sqlite:///{folder}/study.db"
    storage = open_storage(url, create=True)
    begin(storage, search={"trials": 3, "pruner": "none"}, confirm={"top": 1, "seeds": 2}, training={"epochs": 2})
    work(Job("sim", url, folder), Place(0, "cpu", 1))
    yield storage
    storage.dispose()


def test_a_stored_study_gives_a_file_that_reads_back(finished: Storage) -> None:
    made = parse_exported(export_study(finished, "sim", arm="ralr", trial=None, form="toml"))
    record = read_study(finished, "sim")
    row = max(record.arms["ralr"].search(), key=lambda row: row.value or 0.0)
    assert made.provenance.trial == row.trial
    stored = parse_study(record.spec_text).configuration("ralr", row.params)
    assert made.configuration().model_dump_json() == stored.model_dump_json()  # a window from the start is written out
    assert made.provenance.confirmed is not None
    assert made.provenance.tested is not None
    assert made.provenance.confirmed.seeds == made.provenance.tested.seeds
    assert "optuna" in made.provenance.packages


def test_a_trial_can_be_chosen(finished: Storage) -> None:
    for trial in range(3):
        text = export_study(finished, "sim", arm="monotone", trial=trial, form="toml")
        assert parse_exported(text).provenance.trial == trial


@pytest.mark.parametrize("form", ["toml", "json", "yaml"])
def test_every_format_ends_with_a_line_break(finished: Storage, form: str) -> None:
    text = export_study(finished, "sim", arm=None, trial=None, form=form)
    assert text.endswith("\n")
    assert "provenance" in text


@pytest.mark.parametrize(
    ("arm", "trial", "form", "message"),
    [
        ("rarl", None, "toml", "--arm rarl: study sim has no such arm; did you mean 'ralr'"),
        ("sgdr-like", None, "toml", "allowed: monotone, ralr"),
        ("ralr", 99, "toml", "--trial 99: arm ralr: no such trial; complete trials: 0, 1, 2"),
        ("ralr", None, "ini", "--format ini: allowed: toml, json, yaml, python"),
        ("ralr", None, "python", "trains nothing"),
    ],
)
def test_errors_name_what_exists(finished: Storage, arm: str, trial: int | None, form: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        export_study(finished, "sim", arm=arm, trial=trial, form=form)


def test_an_unknown_study(finished: Storage) -> None:
    with pytest.raises(StorageError, match="no study 'sin'"):
        export_study(finished, "sin", arm=None, trial=None, form="toml")


def test_a_study_that_has_just_started(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/study.db", create=True)
    begin(storage)
    for arm, where in ((None, "study sim"), ("ralr", "arm ralr of study sim")):
        with pytest.raises(UsageError, match=f"^{where} has no complete trial yet"):
            export_study(storage, "sim", arm=arm, trial=None, form="toml")
    assert export_best(read_study(storage, "sim"), simulated(), tmp_path) == {}
    storage.dispose()


def test_the_best_of_every_arm_is_written_next_to_the_report(finished: Storage, tmp_path: Path) -> None:
    record = read_study(finished, "sim")
    paths = export_best(record, parse_study(record.spec_text), tmp_path)
    assert paths == {arm: tmp_path / "best" / f"{arm}.toml" for arm in ("monotone", "ralr")}
    assert [load_exported(path).provenance.arm for path in paths.values()] == ["monotone", "ralr"]
    assert [path.name for path in (tmp_path / "best").iterdir() if path not in paths.values()] == []


# ---------------------------------------------------------------- which arm, which trial: on records made by hand


def default_arm(made: Records) -> str:
    record = made.record()
    return best_arm(record, chosen_rows(record, made.spec))


def test_before_confirm_the_best_search_value_decides() -> None:
    made = Records(simulated())
    made.search("monotone", 0.90, 0.91)
    made.search("ralr", 0.92, 0.89)
    assert default_arm(made) == "ralr"


def test_after_confirm_the_mean_on_fresh_seeds_decides() -> None:
    made = Records(simulated(confirm={"top": 1}))
    made.search("monotone", 0.90)
    made.search("ralr", 0.95)
    made.fresh("monotone", "judge", 0, 0.89, 0.90)
    made.fresh("ralr", "judge", 0, 0.88, 0.89)
    made.fresh("ralr", "test", 0, 0.99, 0.99)
    assert default_arm(made) == "monotone"


def test_means_are_never_compared_with_search_values() -> None:
    made = Records(simulated(confirm={"top": 1}))
    made.search("monotone", 0.90)
    made.search("ralr", 0.95)
    made.fresh("monotone", "judge", 0, 0.97, 0.97)
    assert default_arm(made) == "ralr"
    made.fresh("ralr", "judge", 0, 0.91)
    made.add("ralr", "judge", 1, None, source=0, seed=71, state="held", outcome=None)
    assert default_arm(made) == "ralr"


def test_the_chosen_trial_and_not_the_luckiest_one() -> None:
    made = Records(simulated())
    made.search("ralr", 0.95, 0.94)
    made.fresh("ralr", "choose", 0, 0.90, 0.90)
    made.fresh("ralr", "choose", 1, 0.93, 0.93)
    assert chosen_rows(made.record(), made.spec)["ralr"].trial == 1


def exported_trial(monkeypatch: pytest.MonkeyPatch, made: Records, trial: int) -> dict[str, Any]:
    monkeypatch.setattr("ralr_tune.commands.export.read_study", lambda storage, name, curves: made.record())
    text = export_study(None, "sim", arm="ralr", trial=trial, form="toml")  # type: ignore[arg-type]
    found: dict[str, Any] = tomllib.loads(text)["provenance"]
    return found


def test_a_trial_that_is_not_complete_is_refused_with_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Records(simulated())
    made.search("ralr", *(0.5 + n / 100 for n in range(24)))
    made.ended("ralr", 24, "pruned")
    made.add("ralr", "search", 25, None, state="held", outcome=None)
    made.ended("ralr", 26, "diverged", failure="diverged")
    for trial, what in ((24, "pruned"), (25, "running"), (26, "diverged")):
        with pytest.raises(UsageError, match=f"--trial {trial}: arm ralr: it is {what}, not complete") as caught:
            exported_trial(monkeypatch, made, trial)
        assert str(caught.value).endswith(
            "complete trials: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, ..."
        )


def test_the_chosen_block_is_searched_for_a_number_first(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Records(simulated(search={"blocks": 2}))
    made.search("ralr", 0.90, 0.91, 0.89, block=1)
    made.search("ralr", 0.90, 0.99, block=2)
    assert exported_trial(monkeypatch, made, 0)["block"] == 2
    assert exported_trial(monkeypatch, made, 2)["block"] == 1


def test_of_several_blocks_the_best_winner_is_chosen() -> None:
    made = Records(simulated(search={"blocks": 2}, confirm={"top": 1}))
    made.search("ralr", 0.90, 0.91, block=1)
    made.search("ralr", 0.99, block=2)
    assert chosen_rows(made.record(), made.spec)["ralr"].block == 2
    made.fresh("ralr", "choose", 1, 0.95, 0.95, block=1)
    made.fresh("ralr", "choose", 0, 0.90, 0.90, block=2)
    assert chosen_rows(made.record(), made.spec)["ralr"].block == 1


# ---------------------------------------------------------------- export --record


@pytest.fixture(scope="module")
def record_file(finished: Storage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("record") / "sim.json.gz"
    assert str(path) in write_record(finished, "sim", path.parent, path)
    return path


def test_a_record_file_holds_the_study_without_who_ran_it(finished: Storage, record_file: Path) -> None:
    stored, record = read_record_file(record_file).record("here"), read_study(finished, "sim")
    assert any(row.owner for row in record.rows())
    arms = {
        name: replace(arm, rows=tuple(replace(row, owner=None) for row in arm.rows))
        for name, arm in record.arms.items()
    }
    assert replace(stored, environment={}) == replace(record, storage="here", arms=arms, environment={})
    assert record_bytes(stored, {}) == record_file.read_bytes()


def test_the_name_of_a_record_file_ends_so_that_report_knows_it(finished: Storage, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--record .*x\.json: the name must end with \.json\.gz"):
        write_record(finished, "sim", tmp_path, tmp_path / "x.json")


def test_a_report_needs_no_database(
    finished: Storage, record_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RALR_TUNE_STORAGE", raising=False)
    made = make_report_from_file(record_file)
    assert made.page == Path("runs/sim/report.html")
    page = made.page.read_text()
    assert str(record_file) in page
    assert "run runs/sim/study.toml" in page
    stored = make_report(finished, "sim", Path("runs/sim"))
    assert made.facts == replace(stored.facts, arms=made.facts.arms)
    assert made.answer == stored.answer
    assert page.count("<figure") == stored.page.read_text().count("<figure") > 3
    assert not any("dashboard" in line for line in made.next_steps())


def zipped(text: bytes) -> bytes:
    """The same bytes in every process, since pytest names tests by them."""
    return gzip.compress(text, mtime=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"{}", "Not a gzipped file"),
        (zipped(b"{"), "Expecting property name"),
        (zipped(b"[]"), "content: "),
        (zipped(b'{"form": 2}'), "form = 2; allowed: 1"),
        (zipped(b'{"form": 1, "study": {}, "rows": [], "generations": []}'), "study.name: Field required"),
        (zipped(b"{}" * 1000)[:-9], "ended before the end-of-stream"),
    ],
)
def test_another_file_is_refused_with_the_reason(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json.gz"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=re.escape(message)) as refused:
        read_record_file(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)
