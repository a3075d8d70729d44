"""What is printed works when it is typed: every command in a message is made by `invocation`, and tried here."""

from __future__ import annotations

import ast
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ralr_tune.store.location import STORAGE_VARIABLE
from tests.commands.conftest import Cli, Ran, cli, quick_databases, study_file
from tests.house.test_house_imports import ROOT, modules
from tests.store import first_release
from tests.waiting import LONG_S

__all__ = ["cli", "quick_databases", "study_file"]

MAKERS = frozenset({"command", "again", "program", "python", "install", "naming"})

TYPED = {
    "cli": "only examples of --help: tests/commands/test_commands_cli.py",
    "cli.options": "only examples of --help: tests/commands/test_commands_cli.py",
    "cli.running": "test_an_interrupted_run_names_what_resumes_it",
    "commands.check": "test_a_broken_file_in_the_list",
    "commands.dashboard": "test_a_token_is_made",
    "commands.doctor": "test_what_is_stuck_and_what_is_left",
    "commands.export": "test_before_anything_is_complete",
    "commands.gc": "test_where_nothing_is_stored",
    "commands.health.folder": "test_what_is_stuck_and_what_is_left",
    "commands.health.packages": "nothing to type here: it installs packages",
    "commands.health.storage": "test_tables_of_the_first_release",
    "commands.locate": "test_where_nothing_is_stored",
    "commands.plan": "test_a_range_that_looks_wrong",
    "commands.record": "test_after_the_file_of_a_study_is_gone",
    "commands.range": "test_a_range_that_looks_wrong",
    "commands.repair": "test_what_is_stuck_and_what_is_left",
    "commands.report": "test_after_a_run",
    "commands.terminal": "prints no command of its own: keeps lines with commands whole",
    "commands.run": "test_a_worker_joins",
    "kinds.detection.kind": "nothing to type here: it installs packages",
    "kinds.translation.files": "nothing to type here: it installs packages",
    "kinds.translation.vocabulary": "nothing to type here: it installs packages",
    "launch.ray": "nothing to type here: it installs packages",
    "launch.worker": "test_where_nothing_is_stored",
    "mirror.targets": "nothing to type here: it installs packages",
    "objects.opening": "nothing to type here: it installs packages",
    "models.timm_models": "nothing to type here: it installs packages",
    "store.schema": "test_tables_of_the_first_release",
    "studyfile.exported": "test_files_that_are_meant_for_another_command",
    "studyfile.reading": "test_files_that_are_meant_for_another_command",
}
"""Modules that print commands, and the test of this file that types them."""

TRAVELS = {"child.script", "kinds.translation.standalone_section", "report.export", "script.parts"}
"""Their texts go into files that are read on other machines: those name the program in general."""


def strings(tree: ast.Module) -> Iterator[str]:
    """Literals of a module, docstrings aside."""
    documented = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
            yield node.value


def makes_commands(tree: ast.Module) -> bool:
    """Whether a module imports what makes commands, or asks a study's location for one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and MAKERS & {alias.name for alias in node.names}:
            return True
        if isinstance(node, ast.Attribute) and node.attr == "command" and "where" in ast.unparse(node.value):
            return True
    return False


def test_every_printed_command_is_made_in_one_place_and_tried_here() -> None:
    literal, makes = set(), set()
    for module, path in modules(ROOT).items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(re.search(r"python -m |ralr-tune [a-z]|\bpip install", text) for text in strings(tree)):
            literal.add(module)
        if makes_commands(tree):
            makes.add(module)
    assert literal <= TRAVELS
    assert makes == TYPED.keys()
    assert {name for name in TYPED.values() if name.startswith("test_")} <= globals().keys()


# ---------------------------------------------------------------- typed


@pytest.fixture
def typed(cli: Cli, warm_interpreter: str, tmp_path: Path) -> Callable[..., Ran]:
    """Types the one command (`verb` of it) that a text shows into a shell; it must end with `code`."""
    begins = f"{shlex.quote(warm_interpreter)} -m ralr_tune "

    def type_in(text: str, verb: str, more: str = "", *, code: int = 0, env: dict[str, str] | None = None) -> Ran:
        (line,) = set(re.findall(rf"{re.escape(begins + verb)}[^`\n]*", text))
        clean = {name: value for name, value in os.environ.items() if name != STORAGE_VARIABLE}
        done = subprocess.run(
            ["bash", "-c", f"{line} {more}"],
            cwd=tmp_path,
            env=clean | (env or {}),
            capture_output=True,
            text=True,
            timeout=LONG_S,
            check=False,
        )
        assert done.returncode == code, f"{line}\n{done.stderr}"
        return Ran(code, done.stdout, done.stderr)

    return type_in


ELSEWHERE = ("--storage", "sqlite:///else where/x.db")
SMALL = {"training": {"epochs": 1}, "search": {"trials": 1}, "confirm": {"top": 1, "seeds": 2}}
Typed = Callable[..., Ran]
StudyFile = Callable[..., Path]


@pytest.mark.parametrize("given", [(*ELSEWHERE, "--out", "o'ut"), ()], ids=["elsewhere", "here"])
def test_after_a_run(cli: Cli, typed: Typed, study_file: StudyFile, given: tuple[str, ...]) -> None:
    study_file(**SMALL)
    ran = cli("run", "sim.toml", "--launcher", "inprocess", "--workers", 1, *given)
    assert ran.code == 0, ran.err
    folder = shlex.quote(f"{given[-1]}/best/ralr.toml") if given else "runs/sim/best/ralr.toml"
    typed(ran.out, f"train {folder}", "--quiet")
    typed(ran.out, "run", "--launcher inprocess --workers 1 --quiet")  # the card's next step, without its lines
    served = typed(ran.out, "dashboard", "--host 203.0.113.1 --token twenty-characters-long", code=2)
    assert "cannot listen" in served.err  # once the study was found


def test_after_the_file_of_a_study_is_gone(cli: Cli, typed: Typed, study_file: StudyFile, tmp_path: Path) -> None:
    path = study_file(**SMALL)
    ran = cli("run", "sim.toml", "--launcher", "inprocess", "--workers", 1, "--quiet", *ELSEWHERE)
    assert ran.code == 0, ran.err
    text = path.read_text()
    path.unlink()
    typed(cli("export", "sim", "--record", "sim.json.gz", *ELSEWHERE).out, "report", "--json")
    shown = cli("report", "sim", *ELSEWHERE).out
    copy = tmp_path / "runs/sim/study.toml"
    assert "Set in runs/sim/study.toml, then type the command:" in shown
    assert copy.read_text() == text
    copy.write_text(text.replace("seeds = 2", "seeds = 3"))
    typed(shown, "run runs/sim/study.toml", "--launcher inprocess --workers 1 --quiet")
    assert "seeds = 3" in copy.read_text()  # what the user changed stays
    (study,) = cli("report", "sim", *ELSEWHERE, "--json").json()["comparisons"]
    assert study["n"] == 3


def test_an_interrupted_run_names_what_resumes_it(
    cli: Cli, typed: Typed, study_file: StudyFile, warm_interpreter: str, tmp_path: Path
) -> None:
    study_file(**SMALL | {"task": {"data": {"seconds_per_epoch": 0.2}}, "search": {"trials": 200}})
    chosen = ("--launcher", "inprocess", "--workers", "1", "--trials", "3", "--no-confirm", *ELSEWHERE)
    words = [warm_interpreter, "-m", "ralr_tune", "run", "sim.toml", *chosen]
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "starting 1 worker…" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=LONG_S)
    assert process.returncode == 130, errors
    typed(errors.splitlines()[-1], "run")
    arms = cli("status", "sim", *ELSEWHERE, "--json").json()["arms"]
    assert [(arm["budget"], arm["waiting"]) for arm in arms.values()] == [(3, 0)] * 2


@pytest.mark.parametrize("from_environment", [False, True])
def test_a_worker_joins(cli: Cli, typed: Typed, study_file: StudyFile, from_environment: bool) -> None:
    study_file(**SMALL)
    env = {STORAGE_VARIABLE: ELSEWHERE[1]} if from_environment else {}
    ran = cli("run", "sim.toml", "--init", *(() if from_environment else ELSEWHERE), env=env)
    assert ran.code == 0, ran.err
    assert (f'--storage "${STORAGE_VARIABLE}"' in ran.out) == from_environment
    typed(ran.out, "worker", env=env)
    assert cli("status", "sim", *ELSEWHERE, "--json").json()["stage"] == "done"


def test_before_anything_is_complete(cli: Cli, typed: Typed, study_file: StudyFile) -> None:
    study_file(**SMALL)
    assert cli("run", "sim.toml", "--init", *ELSEWHERE).code == 0
    refused = cli("export", "sim", *ELSEWHERE)
    assert refused.code == 2
    assert "1 waiting" in typed(refused.err, "status").out


@pytest.mark.parametrize("verb", ["status", "gc", "worker"])
def test_where_nothing_is_stored(cli: Cli, typed: Typed, study_file: StudyFile, tmp_path: Path, verb: str) -> None:
    path = study_file(**SMALL)
    (tmp_path / "studies").mkdir()
    path.rename(tmp_path / "studies" / path.name)
    (tmp_path / "else where").mkdir()
    (tmp_path / "else where/x.db").touch()
    refused = cli(verb, "sim", *ELSEWHERE)
    assert refused.code == 1
    if verb == "status":
        typed(refused.err, "run", "--init")
        assert cli("status", "sim", *ELSEWHERE, "--json").json()["stage"] == "search"
    else:
        assert " run sim --storage 'sqlite:///else where/x.db'` creates one" in refused.err.replace("%20", " ")


def test_a_broken_file_in_the_list(cli: Cli, typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies/bad.toml").write_text("[study]")
    assert "studies/bad.toml: " in typed(cli("studies").out, "check bad", code=2).err


def test_what_is_stuck_and_what_is_left(cli: Cli, typed: Typed, study_file: StudyFile, tmp_path: Path) -> None:
    study_file(**SMALL)
    assert cli("run", "sim.toml", "--launcher", "inprocess", "--workers", 1, *ELSEWHERE, "--quiet").code == 0
    left = tmp_path / "runs/sim/checkpoints/sim-search-1.ckpt"
    left.parent.mkdir(exist_ok=True)
    left.touch()
    typed(cli("repair", "sim", *ELSEWHERE).out, "gc")
    assert not left.exists()


def test_tables_of_the_first_release(cli: Cli, typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "else where").mkdir()
    first_release.make(f"sqlite:///{tmp_path}/else where/x.db")
    for verb in ("status", "worker"):
        refused = cli(verb, "sim", *ELSEWHERE)
        assert refused.code == 1
    typed(refused.err, "repair")
    assert cli("status", "sim", *ELSEWHERE).code == 0


def test_files_that_are_meant_for_another_command(
    cli: Cli, typed: Typed, study_file: StudyFile, tmp_path: Path
) -> None:
    study_file(**SMALL)
    typed(cli("train", "sim.toml").err, "run", "--launcher inprocess --workers 1 --quiet")
    for ending in ("toml", "json"):
        assert cli("export", "sim", "--format", ending, "-o", f"be st.{ending}").code == 0
        typed(cli("check", f"./be st.{ending}").err, "train")


def test_a_range_that_looks_wrong(cli: Cli, typed: Typed, tmp_path: Path) -> None:
    text = (ROOT.parent / "studies/digits.toml").read_text().replace("start = [{ lr = 0.1 }]", "")
    (tmp_path / "my study.toml").write_text(text.replace("low = 1e-3, high = 1.0, log", "low = 1e-9, high = 1e-6, log"))
    planned = cli("plan", "my study.toml", "--devices", "cpu")
    assert planned.code == 0, planned.err
    small = "--seeds 1 --steps 100 --low 1e-3 --high 30 --device cpu"
    proposed = typed(planned.out, "range", f"{small} --out 'o ut'")
    assert "lr = {" in proposed.out
    assert "digits" in typed(proposed.out, "plan", "--devices cpu").out
    flat = cli("range", "my study.toml", *small.split(), "--low", "1e-12", "--high", "1e-11")
    assert "lr = {" in typed(flat.out, "range", small + " --steps 120").out


def test_a_token_is_made(cli: Cli, study_file: StudyFile) -> None:
    study_file(**SMALL)
    assert cli("run", "sim.toml", "--init").code == 0
    refused = cli("dashboard", "sim", "--host", "0.0.0.0", "--token", "short")
    made = subprocess.run(
        ["bash", "-c", refused.err.split("create one with: ")[1]], capture_output=True, text=True, check=True
    )
    assert len(made.stdout.strip()) > 16
