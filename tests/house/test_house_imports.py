"""Imports point downwards: the table of rooms, and no cycle between modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "ralr_tune"
PACKAGE = ROOT.name

GROUND = ("errors", "secrecy", "seeds", "bounds", "metric", "records", "logs", "invocation", "nearest")
"""Every room may import these; they import nothing but those before them."""

ROOMS: Mapping[str, tuple[str, ...]] = {
    "machine": (),
    "schedules": (),
    "tasks": ("machine",),
    "studyfile": ("schedules", "tasks"),
    "models": (),
    # what the kinds of task that train on pictures share
    "images": ("studyfile", "machine"),
    "training": ("studyfile", "machine", "models"),
    # no room imports a kind: the registry finds it by name
    "kinds": ("child", "images"),
    # what runs in another process: a copy of it must work without this package
    "client": (),
    "child": ("script", "client"),
    # what people's own training code uses
    "own": ("child",),
    # callbacks of frameworks, which people's own training code imports
    "integrations": ("own", "schedules"),
    "store": ("studyfile", "machine"),
    # buckets and shared folders, where artifacts are kept
    "objects": ("machine",),
    # whether to judge further seeds and what is said of them in the end must be one decision
    "search": ("store", "objects", "training", "analysis"),
    "launch": ("search",),
    # shows the ledger elsewhere; whatever goes wrong there must not reach a trial
    "mirror": ("store",),
    "analysis": (),
    # what exported scripts are made of: they carry this package's own source
    "script": ("training",),
    "report": ("analysis", "training"),
    "commands": ("launch", "mirror", "report", "kinds"),
    "cli": ("commands",),
}
"""What each room may import, and transitively what those may import."""

TOP = ("__init__", "__main__")
"""The package's public interface and entry point: they may import every room, and no room imports them."""


def allowed(room: str) -> frozenset[str]:
    """Rooms that `room` may import, itself included."""
    if room in GROUND:
        return frozenset(GROUND[: GROUND.index(room) + 1])
    if room in TOP:
        return frozenset({*TOP, *GROUND, *ROOMS})
    return frozenset({room, *GROUND}).union(*(allowed(below) for below in ROOMS[room]))


def modules(root: Path) -> dict[str, Path]:
    """Files by dotted module name below the package; the package's own __init__ is "__init__"."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


def imported(node: ast.AST, module: str, is_package: bool) -> Iterator[tuple[str, str]]:
    """(module, name) of every import of this package in `node` itself; name "" for the module itself."""
    if isinstance(node, ast.Import):
        names = [(alias.name, "") for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = (node.module or "").split(".") if node.module else []
        if node.level:
            here = [PACKAGE, *module.split(".")] if module != "__init__" else [PACKAGE]
            base = here[: len(here) - node.level + is_package] + base
        names = [(".".join(base), alias.name) for alias in node.names]
    else:
        names = []
    for dotted, name in names:
        if dotted == PACKAGE or dotted.startswith(f"{PACKAGE}."):
            yield dotted.removeprefix(PACKAGE).removeprefix("."), name


def target(dotted: str, name: str, known: Mapping[str, Path]) -> str:
    """The module that an import of this package refers to."""
    inner = f"{dotted}.{name}".strip(".")
    return inner if inner in known else dotted or "__init__"


def breaches(root: Path) -> list[str]:
    """Forbidden imports, including those inside functions and under TYPE_CHECKING."""
    known = modules(root)
    found = []
    for module, path in known.items():
        room = module.split(".")[0]
        if room not in (*ROOMS, *GROUND, *TOP):
            found.append(f"{module}: the room {room} has no row in the table")
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for dotted, name in imported(node, module, path.name == "__init__.py"):
                goal = target(dotted, name, known).split(".")[0]
                if goal not in allowed(room):
                    found.append(f"{path.relative_to(root)}:{node.lineno}: {room} must not import {goal}")  # type: ignore[attr-defined]
    return found


def at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported: not those of functions, nor under TYPE_CHECKING."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield node
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield from at_import(getattr(node, "body", []))
            yield from at_import([each for handler in getattr(node, "handlers", []) for each in handler.body])
        yield from at_import(getattr(node, "orelse", []))
        yield from at_import(getattr(node, "finalbody", []))


def cycle(root: Path) -> list[str]:
    """Modules that import each other in a cycle; empty if there is none."""
    known = modules(root)
    graph = {
        module: {
            target(dotted, name, known)
            for node in at_import(ast.parse(path.read_text(encoding="utf-8")).body)
            for dotted, name in imported(node, module, path.name == "__init__.py")
        }
        for module, path in known.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_imports_point_downwards() -> None:
    assert breaches(ROOT) == []


def test_there_is_no_import_cycle() -> None:
    assert cycle(ROOT) == []


def test_all_rooms_of_the_table_are_checked() -> None:
    """A checker that finds no files finds no mistakes."""
    rooms = {module.split(".")[0] for module in modules(ROOT)}
    assert {
        *GROUND,
        "__init__",
        "machine",
        "schedules",
        "studyfile",
        "models",
        "tasks",
        "kinds",
        "store",
        "analysis",
    } <= rooms


def test_the_closure_of_the_table() -> None:
    assert allowed("records") == {"errors", "secrecy", "seeds", "bounds", "metric", "records"}
    assert allowed("errors") == {"errors"}
    assert allowed("analysis") == {"analysis", *GROUND}
    assert allowed("training") == {"training", "schedules", "tasks", "studyfile", "models", "machine", *GROUND}
    assert allowed("cli") == {*ROOMS, *GROUND} - {"own", "integrations"}  # they run in the user's process
    assert "store" not in allowed("report") | allowed("kinds") | allowed("training")


def tree(root: Path, files: Mapping[str, str]) -> Path:
    """A small package under `root`."""
    for name, text in files.items():
        path = root / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / PACKAGE


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("errors.py", "from ralr_tune.records import Row"),
        ("studyfile/study.py", "import ralr_tune.store.ledger"),
        ("studyfile/study.py", "from ralr_tune.store import ledger"),
        ("studyfile/study.py", "from ralr_tune import store"),
        ("studyfile/study.py", "from ..store import ledger"),
        ("studyfile/study.py", "from .. import store"),
        ("studyfile/__init__.py", "from ..store import ledger"),
        ("studyfile/study.py", "from ralr_tune import RandomAmplifyLR"),
        ("analysis/facts.py", "def f():\n    import ralr_tune.studyfile"),
        ("analysis/facts.py", "if TYPE_CHECKING:\n    from ralr_tune.studyfile import StudySpec"),
        ("report/page.py", "from ralr_tune.launch.worker import work"),
        ("commands/run/__init__.py", "from ralr_tune.cli import app"),
        ("attic/old.py", "x = 1"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, file: str, line: str) -> None:
    root = tree(tmp_path, {"__init__.py": "", "store/__init__.py": "", "store/ledger.py": "", file: line})
    assert len(breaches(root)) == 1


@pytest.mark.parametrize(
    ("file", "line"),
    [
        (
            "studyfile/study.py",
            "from ralr_tune.errors import DataError\nfrom . import values\nfrom .values import Range",
        ),
        ("studyfile/study.py", "import numpy, ralr_tune_elsewhere"),
        ("search/trial.py", "from ralr_tune.schedules import rate\nimport ralr_tune.training.loop"),
        ("cli/running.py", "def run():\n    from ralr_tune.commands.run import run"),
        ("__init__.py", "from ralr_tune.report import page"),
    ],
)
def test_an_allowed_import_passes(tmp_path: Path, file: str, line: str) -> None:
    assert breaches(tree(tmp_path, {file: line})) == []


def test_a_cycle_is_found(tmp_path: Path) -> None:
    ring = {
        "a.py": "from ralr_tune import b",
        "b.py": "try:\n    from ralr_tune.c import x\nexcept ImportError:\n    pass",
        "c.py": "class C:\n    import ralr_tune.a",
    }
    assert set(cycle(tree(tmp_path, ring))) == {"a", "b", "c"}


def test_a_deferred_import_makes_no_cycle(tmp_path: Path) -> None:
    files = {
        "a.py": "from ralr_tune import b",
        "b.py": "if TYPE_CHECKING:\n    from ralr_tune import a\ndef f():\n    from ralr_tune import a",
    }
    assert cycle(tree(tmp_path, files)) == []
