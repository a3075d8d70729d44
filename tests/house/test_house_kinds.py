"""No code outside a kind's folder checks which kind of task a study has."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from ralr_tune.studyfile import registry

ROOT = Path(__file__).parents[2] / "ralr_tune"

ASKS = {
    # where a kind has its name, and the stand-in for a file whose own kind is not known
    "studyfile/registry.py": ["classification", "command", "detection", "function", "simulated", "translation"],
    "studyfile/reading.py": ["simulated"],
    # a key of `report --json`: the next step to type
    "analysis/card.py": ["command"],
}


def mentions(source: str, names: frozenset[str]) -> Iterator[str]:
    """Texts equal to the name of a kind, its classes and the modules of its folder; prose does not count."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in names:
            yield node.value
        elif isinstance(node, ast.ImportFrom | ast.Import):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
            yield from (name for module in modules for name in names if f"kinds.{name}" in module)


def asking(root: Path, names: frozenset[str]) -> dict[str, list[str]]:
    """By file, outside the kinds' folders."""
    found = {
        path.relative_to(root).as_posix(): sorted(mentions(path.read_text("utf-8"), names))
        for path in root.rglob("*.py")
        if path.relative_to(root).parts[0] != "kinds"
    }
    return {name: said for name, said in found.items() if said}


def test_no_room_checks_for_a_kind() -> None:
    assert asking(ROOT, frozenset(registry.BUILT_IN)) == ASKS


def test_every_built_in_kind_has_its_folder() -> None:
    folders = {path.name for path in (ROOT / "kinds").iterdir() if (path / "__init__.py").exists()}
    assert folders == set(registry.BUILT_IN)


@pytest.mark.parametrize(
    "line",
    [
        'if spec.task.kind == "simulated": pass',
        "from ralr_tune.kinds.simulated.task import SimulatedTask",
        "import ralr_tune.kinds.simulated",
        "def f():\n    from ralr_tune.kinds.simulated import kind",
        '{"simulated": 1}',
    ],
)
def test_code_that_checks_for_a_kind_is_found(tmp_path: Path, line: str) -> None:
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "worker.py").write_text(line)
    (tmp_path / "kinds").mkdir()
    (tmp_path / "kinds" / "own.py").write_text(line)
    assert asking(tmp_path, frozenset({"simulated"})) == {"launch/worker.py": ["simulated"]}
