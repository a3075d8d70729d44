"""Python and the packages: compare the installed versions with the requirements in the metadata."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ralr_tune.commands.health.check import Check, make_check
from ralr_tune.invocation import python as interpreter

DISTRIBUTION = "ralr-tune"

Installed = Callable[[str], str]
"""The version of a package; raises PackageNotFoundError."""


def package_checks() -> Iterator[Check]:
    """Check Python, the packages that pyproject.toml requires, and that torch and torchvision match."""
    try:
        python = SpecifierSet(metadata(DISTRIBUTION)["Requires-Python"] or "")
        required = [Requirement(line) for line in requires(DISTRIBUTION) or []]
    except PackageNotFoundError:
        fix = f"install it: {pip()} install -e ."
        yield Check(DISTRIBUTION, "warning", "not installed: requirements unknown", fix)
        return
    yield python_check(python, platform.python_version())
    yield required_check([each for each in required if _applies(each)])
    yield pair_check(version)


def pip() -> str:
    """pip of the interpreter in use, as it may be typed."""
    return interpreter("-m", "pip")


def python_check(wanted: SpecifierSet, found: str) -> Check:
    """Check the version of the interpreter."""
    problem = "" if wanted.contains(found, prereleases=True) else f"install Python {wanted}, and ralr_tune with it"
    return make_check("python", f"{found} ({platform.python_implementation()}; needs {wanted})", problem=problem)


def required_check(required: list[Requirement], installed: Installed = version) -> Check:
    """Check all packages in one line: the main versions if all fit, otherwise those that do not fit."""
    versions = {each.name: _installed(each.name, installed) for each in required}
    wrong = [each for each in required if not _fits(each, versions[each.name])]
    if not wrong:
        shown = ", ".join(f"{name} {versions[name]}" for name in ("optuna", "torch", "torchvision", "sqlalchemy")
                          if name in versions)  # fmt: skip
        return Check("packages", "ok", f"all {len(required)} requirements met; {shown}")
    found = "; ".join(f"{each.name} {versions[each.name] or 'is missing'}, needs {each.specifier}" for each in wrong)
    wanted = " ".join(f'"{each}"' for each in wrong)
    return Check("packages", "problem", found, f"{pip()} install {wanted}")


def pair_check(installed: Installed = version, requirements: Callable[[str], list[str] | None] = requires) -> Check:
    """Check torch against torchvision, which is built for one version of torch and fails to import with another."""
    found = {name: _installed(name, installed) for name in ("torch", "torchvision")}
    lines = (requirements("torchvision") or []) if found["torchvision"] else []
    wanted = next((each for each in map(Requirement, lines) if each.name == "torch"), None)
    shown = " with ".join(f"{name} {number or 'missing'}" for name, number in found.items())
    if wanted is None or _fits(wanted, found["torch"]):
        return Check("torch pair", "ok", shown)
    fix = f"install both together from the same source: {pip()} install --upgrade torch torchvision"
    return Check("torch pair", "problem", f"{shown}, which needs torch{wanted.specifier}", fix)


def _applies(required: Requirement) -> bool:
    """Whether it is required on this platform, and not only by an extra such as `test`."""
    return required.marker is None or required.marker.evaluate({"extra": ""})


def _fits(wanted: Requirement, found: str | None) -> bool:
    # ignore the local part of a version: 2.15.0+cpu counts as 2.15.0
    return found is not None and wanted.specifier.contains(found.partition("+")[0], prereleases=True)


def _installed(name: str, installed: Installed) -> str | None:
    try:
        return installed(name)
    except PackageNotFoundError:
        return None
