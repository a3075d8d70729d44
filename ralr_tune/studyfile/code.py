"""Files of code on which a task depends: the modules that its keys name, and those next to them which they import.

Nothing is executed: imports are found by reading the code.
"""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.machinery import PathFinder
from modulefinder import Module, ModuleFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ralr_tune.records import SourceFile
from ralr_tune.studyfile.imports import Import, imports, imports_of

if TYPE_CHECKING:
    from ralr_tune.studyfile.exported import Exported
    from ralr_tune.studyfile.study import StudySpec

_FOLDER = 5
"""ModuleFinder's kind of a package."""
_PACKAGE = __name__.partition(".")[0]
_INSTALLED = frozenset(Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib", "stdlib"))


def source_files(spec: StudySpec) -> tuple[SourceFile, ...]:
    """All files besides the data on which trials depend, by key and name."""
    return _sorted_files(imports_of(spec), spec.kind.source_files(spec.task))


def changed_files(exported: Exported) -> list[str]:
    """The files besides the data, by the study's name, that are no longer those which an exported configuration
    records. Files that only one side knows are not compared: the study's other arms may have read others."""
    named = imports(exported.kind, exported.task, [exported.training.optimizer])
    now = _sorted_files(named, exported.kind.source_files(exported.task))
    before = exported.provenance.files
    known = {file.name: file.digests for file in now if file.digests and file.name in before}
    return sorted(name for name, found in known.items() if set(found).isdisjoint(before[name]))


def _sorted_files(named: Iterable[Import], others: Iterable[SourceFile]) -> tuple[SourceFile, ...]:
    code = (file for each in named for file in _modules(each))
    return tuple(sorted({*code, *others}, key=lambda file: (file.key, file.name)))


def _modules(named: Import) -> Iterator[SourceFile]:
    for name, path in module_files(named).items():
        try:
            content = path.read_bytes()
        except OSError:
            continue
        yield SourceFile(named.key, f"module {name}", digests(content))


def module_files(named: Import) -> dict[str, Path]:
    """The module that a key names and the user's own modules that it imports; none if it is not found.

    Of an installed module only its own file: its distribution has a version."""
    folder = named.folder()
    if folder is None:
        return {}
    if folder.resolve() in _INSTALLED:
        own = _own_file(named.module, folder)
        return {named.module: own} if own else {}
    finder = _Finder(path=[str(folder)], excludes=[_PACKAGE])
    try:
        finder.import_hook(named.module)
    except (ImportError, SyntaxError, ValueError):  # loading the task reports it
        own = _own_file(named.module, folder)
        return {named.module: own} if own else {}
    files: dict[str, str | None] = {name: getattr(module, "__file__", None) for name, module in finder.modules.items()}
    return {name: Path(file) for name, file in files.items() if file}


class _Finder(ModuleFinder):
    """Also finds modules in folders without `__init__.py`, on which Python's own finder raises AttributeError."""

    def find_module(self, name: str, path: Any, parent: Module | None = None) -> Any:
        found = PathFinder.find_spec(name, self.path if path is None else path)
        if found is not None and found.origin is None and found.submodule_search_locations:
            return None, next(iter(found.submodule_search_locations)), ("", "", _FOLDER)
        return super().find_module(name, path, parent)

    def load_package(self, fqname: str, pathname: str) -> Any:
        if (Path(pathname) / "__init__.py").exists():
            return super().load_package(fqname, pathname)
        module: Any = self.add_module(fqname)
        module.__path__ = [pathname]
        return module


def _own_file(module: str, folder: Path) -> Path | None:
    """The file of a module below a folder; its parents are not imported."""
    places: list[str] | None = [str(folder)]
    found = None
    for part in module.split("."):
        found = PathFinder.find_spec(part, places)
        if found is None:
            return None
        places = list(found.submodule_search_locations or ())
    return Path(found.origin) if found and found.origin else None


def digests(content: bytes) -> tuple[str, ...]:
    """Hashes of the text and of the syntax of a file: comments and line breaks may change.

    The syntax tree depends on Python's version, so two versions compare the text."""
    text = hashlib.sha256(content).hexdigest()
    try:
        tree = ast.dump(ast.parse(content))
    except (SyntaxError, ValueError, RecursionError):  # not Python, or not valid
        return (text,)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return text, hashlib.sha256(f"{version}|{tree}".encode(errors="backslashreplace")).hexdigest()
