"""Which files of the user's code a task depends on, and which of their changes count."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ralr_tune.records import SourceFile
from ralr_tune.studyfile import parse_study
from ralr_tune.studyfile.code import source_files
from tests.studies import simulated_text


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package and a module, on the path of modules; importing either fails."""
    written = {
        "own_nets/__init__.py": "raise SystemExit('imported')\n",
        "own_nets/wide.py": "import numpy\nfrom . import blocks\nfrom own_helper import scale\nimport ralr_tune\n",
        "own_nets/blocks.py": "def block(): return 1\n",
        "own_nets/unused.py": "x = 1\n",
        "own_helper.py": "scale = 2\n",
    }
    for name, text in written.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def files(model: str) -> dict[str, SourceFile]:
    spec = parse_study(simulated_text(task={"kind": "classification", "data": {"source": "digits"}, "model": model}))
    return {file.name: file for file in source_files(spec)}


def changed(model: str, path: Path, text: str) -> list[str]:
    """Names of the files that share no digest with what they were before `text` was written."""
    before = files(model)
    path.write_text(text)
    after = files(model)
    assert before.keys() == after.keys()
    return [name for name in before if not set(before[name].digests) & set(after[name].digests)]


def test_the_module_and_the_users_own_modules_that_it_imports_are_found(folder: Path) -> None:
    found = files("own_nets.wide:Net")
    assert found.keys() == {
        "module own_nets", "module own_nets.wide", "module own_nets.blocks", "module own_helper",
    }  # fmt: skip
    assert {file.key for file in found.values()} == {"task.model"}
    assert "own_nets" not in sys.modules


def test_folders_without_init_are_packages_too(folder: Path) -> None:
    (folder / "plain" / "inner").mkdir(parents=True)
    (folder / "plain" / "net.py").write_text("from plain.inner.parts import part\nfrom own_nets import blocks\n")
    (folder / "plain" / "inner" / "parts.py").write_text("import inner, plain\npart = 1\n")
    names = {"plain.net", "plain.inner.parts", "own_nets", "own_nets.blocks"}
    assert files("plain.net:Net").keys() == {f"module {name}" for name in names}


def test_code_counts_and_comments_do_not(folder: Path) -> None:
    blocks = folder / "own_nets" / "blocks.py"
    assert changed("own_nets.wide:Net", blocks, "# one block\ndef block():\n    return 1\n") == []
    assert changed("own_nets.wide:Net", blocks, "def block(): return 2\n") == ["module own_nets.blocks"]
    assert changed("own_nets.wide:Net", folder / "own_nets" / "unused.py", "x = 2\n") == []


def test_code_that_cannot_be_parsed_or_found_is_left_to_the_import(folder: Path) -> None:
    broken = folder / "own_helper.py"
    broken.write_text("scale = (\n")
    assert len(files("own_helper:Net")["module own_helper"].digests) == 1
    assert files("no_such_module:Net") == {}


def test_of_an_installed_module_only_its_own_file_counts() -> None:
    assert files("modulefinder:ModuleFinder").keys() == {"module modulefinder"}


def test_networks_of_this_package_depend_on_no_file() -> None:
    assert files("small_cnn") == files("resnet20") == {}
