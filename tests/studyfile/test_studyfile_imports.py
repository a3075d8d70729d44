"""Finds what a study file imports, without importing anything."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ralr_tune.errors import UsageError
from ralr_tune.kinds.classification.kind import KIND
from ralr_tune.kinds.classification.section import ClassificationSection, DigitsData
from ralr_tune.models import registry
from ralr_tune.models.names import NAMES
from ralr_tune.studyfile.imports import Import, check_model, imports, refuse_imports
from tests.studyfile.design_file import DESIGN, complaints


def task(model: str) -> ClassificationSection:
    return ClassificationSection(kind="classification", data=DigitsData(source="digits"), model=model)


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose code leaves a trace when it runs."""
    (tmp_path / "somebodys").mkdir()
    for name in ("__init__", "nets"):
        (tmp_path / "somebodys" / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    (tmp_path / "alone.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("somebodys", "somebodys.nets", "alone"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.parametrize("model", [*NAMES, "torchvision:resnet18", ""])
def test_built_in_networks_import_nothing(model: str) -> None:
    assert imports(KIND, task(model)) == ()
    refuse_imports(imports(KIND, task(model)))


@pytest.mark.parametrize(("model", "module"), [("somebodys.nets:build", "somebodys.nets"), ("alone:a.b", "alone")])
def test_an_import_path_is_reported_with_its_folder_and_not_imported(network: Path, model: str, module: str) -> None:
    (found,) = imports(KIND, task(model))
    assert str(found) == (f'task.model = "{model}" runs code outside of ralr_tune: module {module}, from {network}')
    with pytest.raises(UsageError, match=f'"{model}" runs code .* from {network}; --no-imports forbids that'):
        refuse_imports(imports(KIND, task(model)))
    assert not (network / "ran").exists()
    assert module not in sys.modules


def test_the_trace_above_is_left_by_an_import(network: Path) -> None:
    with pytest.raises(UsageError, match="has no attribute"):
        registry.build("alone:nothing", classes=2, channels=1, size=8)
    assert (network / "ran").exists()


@pytest.mark.parametrize("module", ["no_such_module_at_all", "sys", "__main__"])
def test_modules_without_a_folder(module: str) -> None:
    assert "module " + module in str(Import("task.model", f"{module}:f"))


def test_every_name_that_the_registry_would_import_is_known_here(network: Path) -> None:
    """A new form of import path in the registry must be added here, too."""
    for model in ("alone:f", "somebodys.nets:f", "torchvision:nothing", "nothing", "small_cnn"):
        loaded = set(sys.modules)
        with pytest.raises(UsageError):
            registry.build(model, classes=2, channels=1, size=8, options={"nonsense": 1})
        named = {found.module for found in imports(KIND, task(model))}
        assert {name for name in set(sys.modules) - loaded if name in {"alone", "somebodys.nets"}} == named


@pytest.mark.parametrize(
    "model",
    [
        "a:",
        ":a",
        "a.b:",
        ":",
        "..a:b",
        "a..b:c",
        "a:b:c",
        "a b:c",
        "a:b()",
        "a:b\nimport os",
        "a/b:c",
        "class:f",
        "a:if",
    ],
)
def test_invalid_import_paths(model: str) -> None:
    with pytest.raises(ValueError, match="not an import path"):
        check_model(model)
    escaped = model.replace("\n", "\\n")
    (line,) = complaints(DESIGN.but('"small_cnn"', f'"{escaped}"'))
    assert line == f'task.model = "{escaped}": not an import path package.module:callable'
