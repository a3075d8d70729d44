"""The documents are correct: the README's examples and commands run, links have targets, the layout is the package's.

test_docs_blocks.py runs the other pages, test_docs_site.py builds the site.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LOG.md",
    *(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")),
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("python -m ralr_tune ")]
    return [shlex.split(line, comments=True)[3:] for line in lines]


@pytest.fixture
def small_digits(tmp_path: Path) -> None:
    """The README's study, made smaller: a file in this folder's studies/ replaces the packaged one."""
    text = (ROOT / "studies/digits.toml").read_text()
    for key, small in (("trials", 2), ("epochs", 2), ("seeds", 2), ("top", 1)):
        text = re.sub(rf"^{key} = \d+", f"{key} = {small}", text, flags=re.MULTILINE)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies/digits.toml").write_text(text)


@pytest.mark.usefixtures("small_digits")
@pytest.mark.parametrize("code", blocks("python"))
def test_python_examples_run(code: str, tmp_path: Path) -> None:
    code = code.replace("trials=8", "trials=1")
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=300, cwd=tmp_path)


@pytest.mark.usefixtures("small_digits")
def test_every_command_of_the_readme_runs_in_order(tmp_path: Path, warm_interpreter: str) -> None:
    ran = [arguments for arguments in commands() if arguments[0] != "dashboard"]  # serves until it is stopped
    assert [arguments[0] for arguments in ran] == [
        "run", "check", "plan", "preview", "range", "run", "status", "report", "export", "train", "doctor", "repair",
        "gc",
    ]  # fmt: skip
    for arguments in ran:
        interpreter = sys.executable if arguments[0] == "check" else warm_interpreter  # imports take 3 s each
        done = subprocess.run(
            [interpreter, "-m", "ralr_tune", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, (arguments, done.stderr)
        assert done.stdout.strip()
    assert (tmp_path / "runs/digits/report.html").exists()
    assert (tmp_path / "train_digits.py").exists()
    assert (tmp_path / "runs/digits/best/ralr/model.safetensors").exists()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_has_a_target(document: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text())
    missing = [
        link for link in links if not link.startswith("https://") and not ((ROOT / document).parent / link).exists()
    ]
    assert missing == []


def test_the_readme_answers_within_a_screen_and_a_half() -> None:
    """What and why, then install, ten lines, one command, its answer, one picture; everything else is a link."""
    opening = [
        "make demo",
        "make test",
        "from ralr_tune import RandomAmplifyLR",
        "python -m ralr_tune run",
        "Amplification changes ralr's recipe by ",
        "![",
    ]
    places = [next(n for n, line in enumerate(README.splitlines()) if line.startswith(start)) for start in opening]
    assert places == sorted(places)
    assert places[-1] <= 62
    assert 60 <= len(README.splitlines()) <= 170


def test_the_readme_links_every_page() -> None:
    linked = set(re.findall(r"\]\((docs/[\w/]+\.md)\)", README))
    assert linked == {name for name in DOCUMENTS if name.startswith("docs/")} - {"docs/index.md"}


def test_the_tree_of_the_layout_is_that_of_the_package() -> None:
    layout = (ROOT / "CONTRIBUTING.md").read_text()
    (tree,) = re.findall(r"```\nralr_tune/\n(.*?)```", layout, flags=re.DOTALL)
    named = set(re.findall(r"[├└]── ([a-z_]+)(?:/|\.py)|([a-z_]+)\.py", tree))
    rooms = {path.stem for path in (ROOT / "ralr_tune").iterdir() if path.suffix in ("", ".py")}
    assert {first or second for first, second in named} == rooms - {"__init__", "__main__", "__pycache__"}


def test_every_make_target_has_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    assert set(phony.split()) == set(re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.MULTILINE))


def test_make_reads_nothing_outside_the_checkout() -> None:
    assert "../" not in (ROOT / "Makefile").read_text()


def test_ci_runs_the_readmes_test_command() -> None:
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "exec make test"
