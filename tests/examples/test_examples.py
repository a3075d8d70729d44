"""The examples: every study is valid, every study runs to its verdict, and the documentation shows what they contain.

Those of a framework run in an environment that has it (CONTRIBUTING.md, Integrations), and skip elsewhere.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ralr_tune.commands.check import check_study
from ralr_tune.studyfile import load_study_file

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/study.toml"))
NEEDS = {"lightning": "lightning", "huggingface": "transformers", "keras": "keras"}
PAGE = ROOT / "docs/frameworks.md"

every_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)


def needs(example: Path) -> None:
    module = NEEDS.get(example.name)
    if module and importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not in this environment: see CONTRIBUTING.md, Integrations")


@pytest.fixture
def in_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python` is this interpreter."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "bin/python").chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")


@every_example
def test_a_study_has_both_arms_and_confirms_them(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(example)
    monkeypatch.syspath_prepend(str(example))
    spec = load_study_file(Path("study.toml"))
    assert (spec.name, [*spec.arms]) == (example.name, ["monotone", "ralr"])
    assert spec.file.confirm.seeds >= 4  # with fewer there is no verdict


@every_example
@pytest.mark.usefixtures("in_path")
def test_check_finds_nothing_wrong(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs(example)
    monkeypatch.chdir(example)
    monkeypatch.syspath_prepend(str(example))
    assert check_study("study.toml").startswith(f"study.toml: valid. Study {example.name}: monotone")


@pytest.mark.slow
@every_example
@pytest.mark.usefixtures("in_path")
def test_a_study_runs_to_its_verdict(example: Path, tmp_path: Path) -> None:
    """With fewer trials, epochs and seeds."""
    needs(example)
    folder = Path(shutil.copytree(example, tmp_path / example.name, ignore=shutil.ignore_patterns("runs")))
    text = (folder / "study.toml").read_text()
    for key in ("trials", "epochs", "seeds"):
        text = re.sub(rf"^{key} = \d+", f"{key} = 2", text, flags=re.MULTILINE)
    (folder / "study.toml").write_text(text)

    def ralr_tune(*words: str) -> str:
        command = [sys.executable, "-m", "ralr_tune", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env={**os.environ})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "Amplification" in ralr_tune("run", "study.toml", "--workers", "2")
    report = json.loads(ralr_tune("report", "study.toml", "--json"))
    assert [twin["arm"] for twin in report["twins"]] == ["ralr"]
    counts = json.loads(ralr_tune("status", "study.toml", "--json"))["arms"]
    assert {name: (arm["budget"], arm["failed"], arm["waiting"]) for name, arm in counts.items()} == {
        "monotone": (2, 0, 0),
        "ralr": (2, 0, 0),
    }


def shown() -> list[tuple[str, str]]:
    """Every line of code of the page, with the example that it is said to be from."""
    found, example = [], ""
    for part in re.split(r"(^```python\n.*?^```$)", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE):
        if part.startswith("```python"):
            found += [(example, line.strip()) for line in part.splitlines()[1:-1] if line.strip()]
        elif links := re.findall(r"\(\.\./examples/(\w+)/train\.py\)", part):
            example = links[-1]
    return found


def test_the_page_shows_lines_of_the_examples() -> None:
    lines = {path.name: {line.strip() for line in (path / "train.py").read_text().splitlines()} for path in EXAMPLES}
    assert {example for example, _ in shown()} == lines.keys()
    assert [(example, line) for example, line in shown() if line not in lines[example]] == []


def test_the_tables_name_every_example() -> None:
    for document, pattern in ((ROOT / "examples/README.md", r"^\| \[(\w+)\]"), (PAGE, r"^\| \[(\w+)\]")):
        assert set(re.findall(pattern, document.read_text(), flags=re.MULTILINE)) == {path.name for path in EXAMPLES}
