"""docs/results.md and the README say what the stored records say; a planned study runs to its record."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ralr_tune.store.record_file import read_record_file
from ralr_tune.studyfile import parse_study
from ralr_tune.studyfile.code import module_files
from ralr_tune.studyfile.imports import imports_of
from results import __main__ as command
from results import page, planned
from results.facts import results
from results.page import CLAIMS, PAGES, PARTS, updated
from results.planned import STUDIES, Planned, named
from tests.studies import simulated_text


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_says_what_the_records_say(path: Path) -> None:
    assert updated(path.read_text()) == path.read_text(), "type: python -m results --page"


def test_a_record_holds_the_study_of_its_name() -> None:
    found = {each.name: read_record_file(each.record).study.name for each in STUDIES if each.record.exists()}
    assert found == {name: name for name in found} != {}


def test_a_repetition_is_compared_question_by_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the digits study in place of both."""
    (found,) = (each for name, each in results().items() if name == "digits")
    monkeypatch.setattr(page, "results", lambda: {"rivals": found, "rivals_seed_3": found})
    lines = PARTS["repeats"]().splitlines()
    question = "amplification alone, in ralr's recipe"
    assert f"| rivals | {question} | not decided | not decided | no |" in lines
    assert "| digits_six_blocks |  | not run | not run |  |" in lines


def test_every_generated_part_is_on_a_page() -> None:
    text = "".join(path.read_text() for path in PAGES)
    assert sorted(re.findall(r"<!-- results: (\w+) -->", text)) == sorted(PARTS)


def test_every_planned_study_is_valid_and_known_by_its_name() -> None:
    assert len({each.name for each in STUDIES}) == len(STUDIES)
    for each in STUDIES:
        assert parse_study(each.text(), source=each.name).name == each.name
        assert named(each.original) is not None
    assert [name for claim in CLAIMS for name in claim.studies if named(name) is None] == []


def test_every_planned_study_finds_its_code_from_the_projects_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its reader types the commands that the record's report shows."""
    monkeypatch.syspath_prepend(planned.ROOT)
    named = {each.name: imports_of(parse_study(each.text())) for each in STUDIES}
    found = {name: [module_files(one) for one in some] for name, some in named.items() if some}
    own = [each.name for each in STUDIES if each.file == "examples/plain_loop/study.toml"]
    assert "plain_loop" in own
    assert {name: [list(files) for files in each] for name, each in found.items()} == {
        name: [["examples.plain_loop.train"]] for name in own
    }


def test_a_repetition_has_another_seed_and_nothing_else() -> None:
    again = named("rivals_seed_3")
    assert again is not None
    one, two = parse_study((planned.ROOT / again.file).read_text()), parse_study(again.text())
    assert (one.study.seed, two.study.seed) == (2, 3)
    assert one.file.model_dump(exclude={"study"}) == two.file.model_dump(exclude={"study"})


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planned:
    """A simulated study in a folder of its own, with another seed."""
    for module in (planned, command):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "sim.toml").write_text(simulated_text(study={"seed": 0}))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setattr(command, "_write_pages", lambda: None)
    study = Planned("sim.toml", "a simulated task", {"seed": 1}, "_seed_1")
    monkeypatch.setattr(command, "STUDIES", (study,))
    return study


@pytest.mark.slow
def test_a_planned_study_runs_to_its_record_and_is_not_run_again(
    small: Planned, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its command starts four interpreters."""
    assert command.main(["--workers", "1"]) == 0
    assert "sim_seed_1: a simulated task. In all " in capfd.readouterr().out
    record = read_record_file(small.record).record("")
    assert (record.name, parse_study(record.spec_text).study.seed) == ("sim_seed_1", 1)
    assert all(row.state == "done" for row in record.rows())
    assert command.main([]) == 0
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_a_study_that_cannot_run_is_named_and_stores_nothing(small: Planned, capfd: pytest.CaptureFixture[str]) -> None:
    path = planned.ROOT / "sim.toml"
    path.write_text(path.read_text().replace("cosine", "cosinus"))
    assert command.main([]) == 1
    assert "error: not finished: sim_seed_1" in capfd.readouterr().err
    assert not small.record.exists()
