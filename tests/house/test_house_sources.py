"""What no file of this project may contain: paths of one machine, registries, functions that are too long."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MACHINE = re.compile(r"(?<![\w.~*-])/(?:work|root)/")
"""Absolute paths of one developer's machine."""

REGISTRIES = re.compile(
    r"\b(?:pypi|python[h]osted|anaconda|npmjs|download\.pytorch|crates)\.(?:org|com|io)\b", re.IGNORECASE
)
"""Hosts that belong in the package manager's configuration on a machine, never in a project."""

LONGEST_FUNCTION = 60
"""Lines, from `def` to the last one."""


def sources() -> Iterator[Path]:
    """Every file that git tracks or would add."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip(f"not a git checkout: {listed.stderr.strip()}")
    yield from (path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file())


def lines_with(pattern: re.Pattern[str], paths: Iterator[Path]) -> list[str]:
    found = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture, not a source
        found += [f"{path}:{n}: {line[:120]}" for n, line in enumerate(text.splitlines(), 1) if pattern.search(line)]
    return found


def long_functions(root: Path, longest: int = LONGEST_FUNCTION) -> list[str]:
    found = []
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > longest:
                    found.append(f"{path.relative_to(root)}:{node.lineno}: {node.name} has {lines} lines")
    return found


def test_no_path_of_one_machine() -> None:
    assert lines_with(MACHINE, sources()) == []


def test_no_package_registry() -> None:
    assert lines_with(REGISTRIES, sources()) == []


def test_git_lists_the_sources() -> None:
    listed = {path.relative_to(ROOT).as_posix() for path in sources()}
    assert {"pyproject.toml", "ralr_tune/errors.py", "tests/house/test_house_sources.py"} <= listed
    assert not any(path.startswith((".venv/", "runs/")) for path in listed)


@pytest.mark.parametrize(
    ("pattern", "line", "hit"),
    [
        (MACHINE, "cd /{}/main", True),
        (MACHINE, 'data = "/{}/x.npz"', True),
        (MACHINE, "at/{}/x", False),
        (MACHINE, "../{}/x", False),
        (MACHINE, "/{}book/x", False),
    ],
)
def test_a_path_of_one_machine_is_found(tmp_path: Path, pattern: re.Pattern[str], line: str, hit: bool) -> None:
    (tmp_path / "x.md").write_text("fine\n" + line.format("work"))
    assert bool(lines_with(pattern, iter([tmp_path / "x.md"]))) is hit


@pytest.mark.parametrize(
    "host", ["pypi{}org", "files.python" + "hosted{}org", "download.pytorch{}org", "Conda.Anaconda{}org"]
)
def test_a_registry_is_found(tmp_path: Path, host: str) -> None:
    (tmp_path / "x.md").write_text(f"--index-url https://{host.format('.')}/simple")
    assert len(lines_with(REGISTRIES, iter([tmp_path / "x.md"]))) == 1


def test_no_function_is_too_long() -> None:
    assert long_functions(ROOT / "ralr_tune") == []


def test_a_function_that_is_too_long_is_found(tmp_path: Path) -> None:
    inner = "class C:\n    async def f(self):\n" + "        x = 1\n" * 4 + "\ndef g():\n" + "    x = 1\n" * 3
    (tmp_path / "x.py").write_text(inner)
    assert long_functions(tmp_path, longest=4) == ["x.py:2: f has 5 lines"]
