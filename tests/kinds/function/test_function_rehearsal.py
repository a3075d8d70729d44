"""What a rehearsal measures, on functions with one thing wrong each."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ralr_tune import run
from ralr_tune.cli import app
from tests.kinds.function.conftest import FUNCTION, Write

GOOD = {
    "test value": "came in the test stage, and only there",
    "another seed": "changes the value",
    "the same seed": "gives the same values",
    "resume": "exact: 1 epoch, a kill and 1 epoch equal 2 epochs",
    "another base rate": "changes the value",
    "amplification": "changes the value",
}

CALL = "trial.report(value("
LOOP = "    for epoch in trial.epochs():\n"


def rehearsed(folder: Path, code: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit code, and by item the mark and the text."""
    (folder / "known_answer.py").write_text(code)
    done = CliRunner().invoke(app, ["check", "own.toml", "--rehearse"])
    found = {}
    for line in done.output.splitlines():
        if line.startswith("  "):
            mark, _, rest = line.strip().partition(" ")
            item, _, text = rest.strip().partition(": ")
            found[item] = (mark, text)
    return done.exit_code, found


def test_a_good_function_and_the_report_that_says_so(study: Write, folder: Path, quick_tables: None) -> None:
    study()
    code, found = rehearsed(folder, FUNCTION)
    assert code == 0
    assert {item: text for item, (_, text) in found.items() if item in GOOD} == GOOD
    assert {mark for mark, _ in found.values()} == {"ok"}
    assert found["stop"][1].startswith("obeyed within 0.")
    report = run("own.toml", workers=1, launcher="inprocess", progress=False)
    page = report.page.read_text()
    assert "exact: 1 epoch, a kill and 1 epoch equal 2 epochs" in page
    (folder / "known_answer.py").write_text(FUNCTION.replace("0.002", "0.003"))
    again = CliRunner().invoke(app, ["report", "own"])
    assert again.exit_code == 0, again.output
    assert ", of an earlier state of the code" in report.page.read_text()


CASES: list[tuple[tuple[str, str], str, str, str]] = [
    (("gauss(0, 0.002)", "gauss(0, 0.0)"), "another seed", "WRONG", "gives the same value: nothing random follows"),
    (('trial.params["lr"] / 0.1', "1"), "another base rate", "WRONG", "gives the same values: lr is not used"),
    (
        ("(trial.factor(epoch) != 1)", "(trial.factor(epoch) < 0)"),
        "amplification",
        "WRONG",
        "gives the same values",
    ),
    ((", checkpoint=path", ""), "resume", "note", "not possible, since no checkpoint is reported"),
    (("return learned", "return random.random() + learned"), "the same seed", "ok", "gives the same values"),
    (
        ("return learned", "return int.from_bytes(os.urandom(2)) + learned"),
        "the same seed",
        "note",
        "does not give",
    ),
    (
        ("def train(trial):", "COUNT = []\ndef train(trial):\n    COUNT.append(1)"),
        "the same seed",
        "ok",
        "gives the",
    ),
    (('state, "test")', 'state, "test") * math.nan'), "test value", "WRONG", "came, but is not a number"),
    (('if trial.stage == "test"', "if True"), "trains", "WRONG", 'trial.stage = "search": a test value is allowed'),
    (
        ("        trial.report(", "        if epoch == 2: 1 / 0\n        trial.report("),
        "trains",
        "WRONG",
        "ZeroDiv",
    ),
]
"""A change of the good function, and what is then found: item, mark and text."""
FAST = ("amplification", "resume", "test value")
"""Items that the fast tests measure; the others are slow."""


@pytest.mark.parametrize(
    ("changed", "item", "mark", "text"),
    [pytest.param(*case, marks=() if case[1] in FAST else pytest.mark.slow) for case in CASES],
)
def test_what_is_wrong_is_found(
    study: Write, folder: Path, changed: tuple[str, str], item: str, mark: str, text: str
) -> None:
    study(task={"grace": 0.5})
    assert changed[0] in FUNCTION
    code, found = rehearsed(folder, FUNCTION.replace(*changed))
    assert found[item][0] == mark, found
    assert text in found[item][1]
    assert code == (1 if "WRONG" in {each for each, _ in found.values()} else 0)


def test_a_process_that_remembers_earlier_trials_is_not_reused(study: Write, folder: Path) -> None:
    study(task={"grace": 0.5})
    remembers = FUNCTION.replace("def train(", "COUNT = []\ndef train(").replace(
        "return learned", "return 0.01 * len(COUNT) + learned"
    )
    remembers = remembers.replace(LOOP, f"    COUNT.append(1)\n{LOOP}")
    code, found = rehearsed(folder, remembers)
    assert code == 1
    assert "in a later trial of one process" in found["the same seed"][1]
    assert "set reuse = false in [task]" in found["the same seed"][1]
    study(task={"grace": 0.5, "reuse": False})
    code, found = rehearsed(folder, remembers)
    assert (code, found["the same seed"]) == (0, ("ok", "gives the same values"))


def test_a_function_that_ignores_the_stop_is_ended(study: Write, folder: Path) -> None:
    study(task={"grace": 0.5})
    waits = FUNCTION.replace(
        '    if trial.stage == "test"',
        "    import time\n    time.sleep(60 * (trial.answer != 'continue'))\n    if trial.stage == 'test'",
    )
    code, found = rehearsed(folder, waits)
    assert code == 0
    assert found["stop"][0] == "note"
    assert "not obeyed: the program had to be ended after" in found["stop"][1]
