"""Python and the packages: what is installed against what is asked for, by their own metadata."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ralr_tune.commands.health.check import Check, judged
from ralr_tune.invocation import python as interpreter

OURS = "ralr-tune"

Installed = Callable[[str], str]
"""The version of a package; raises PackageNotFoundError."""


def package_checks() -> Iterator[Check]:
    """Python, the packages that pyproject.toml asks for, and torch beside torchvision."""
    try:
        python = SpecifierSet(metadata(OURS)["Requires-Python"] or "")
        required = [Requirement(line) for line in requires(OURS) or []]
    except PackageNotFoundError:
        yield Check(
            OURS,
            "warning",
            "not installed, so what it needs is not known",
            f"install it: {pip()} install -e .",
        )
        return
    yield python_check(python, platform.python_version())
    yield required_check([each for each in required if _applies(each)])
    yield pair_check(version)


def pip() -> str:
    """pip of the interpreter in use, as it may be typed."""
    return interpreter("-m", "pip")


def python_check(wanted: SpecifierSet, found: str) -> Check:
    """The interpreter itself."""
    problem = "" if wanted.contains(found, prereleases=True) else f"install Python {wanted}, and this program with it"
    return judged("python", f"{found} ({platform.python_implementation()}; needs {wanted})", problem=problem)


def required_check(required: list[Requirement], installed: Installed = version) -> Check:
    """All packages in one line: their names and versions where all fit, else those that do not."""
    versions = {each.name: _installed(each.name, installed) for each in required}
    wrong = [each for each in required if not _fits(each, versions[each.name])]
    if not wrong:
        shown = ", ".join(f"{name} {versions[name]}" for name in ("optuna", "torch", "torchvision", "sqlalchemy")
                          if name in versions)  # fmt: skip
        return Check("packages", "ok", f"{len(required)} as required; {shown}")
    found = "; ".join(f"{each.name} {versions[each.name] or 'is missing'}, needs {each.specifier}" for each in wrong)
    wanted = " ".join(f'"{each}"' for each in wrong)
    return Check("packages", "problem", found, f"{pip()} install {wanted}")


def pair_check(installed: Installed = version, asked: Callable[[str], list[str] | None] = requires) -> Check:
    """torchvision is built for one torch; beside another it does not import."""
    found = {name: _installed(name, installed) for name in ("torch", "torchvision")}
    lines = (asked("torchvision") or []) if found["torchvision"] else []
    wanted = next((each for each in map(Requirement, lines) if each.name == "torch"), None)
    shown = " with ".join(f"{name} {number or 'missing'}" for name, number in found.items())
    if wanted is None or _fits(wanted, found["torch"]):
        return Check("torch pair", "ok", shown)
    mend = f"install both together, from one place: {pip()} install --upgrade torch torchvision"
    return Check("torch pair", "problem", f"{shown}, which needs torch{wanted.specifier}", mend)


def _applies(required: Requirement) -> bool:
    """Whether it is asked for here, and not only by an extra such as `test`."""
    return required.marker is None or required.marker.evaluate({"extra": ""})


def _fits(wanted: Requirement, found: str | None) -> bool:
    # a local build (2.15.0+cpu) is the version that it is built from
    return found is not None and wanted.specifier.contains(found.partition("+")[0], prereleases=True)


def _installed(name: str, installed: Installed) -> str | None:
    try:
        return installed(name)
    except PackageNotFoundError:
        return None
