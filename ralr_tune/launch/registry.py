"""Launchers by name: those of this package, and entry points of the group `ralr_tune.launchers`.

A launcher's module is imported on first use: an unused engine costs nothing and need not be installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points

from pydantic import ValidationError

from ralr_tune.errors import UsageError
from ralr_tune.launch.launcher import Launcher, LauncherOptions
from ralr_tune.studyfile.problems import lines
from ralr_tune.studyfile.values import one_of

GROUP = "ralr_tune.launchers"

_BUILT_IN: Mapping[str, str] = {
    "local": "ralr_tune.launch.local:LocalProcesses",
    "inprocess": "ralr_tune.launch.inprocess:InProcess",
    "ray": "ralr_tune.launch.ray:Ray",
    "slurm": "ralr_tune.launch.slurm:Slurm",
}


def names() -> list[str]:
    """Allowed names for `--launcher`, those of this package first."""
    return [*_BUILT_IN, *(name for name in _installed() if name not in _BUILT_IN)]


def make_launcher(name: str, options: Mapping[str, object] | None = None) -> Launcher:
    """The launcher of this name; option texts are converted to the types that the launcher declares.

    Raises UsageError for an unknown name, a module that cannot be imported, or an invalid option.
    """
    kind = _load(name)
    return kind(_validated(name, kind.Options, options or {}))


def parse_options(given: Iterable[str]) -> dict[str, str | list[str]]:
    """`key=value` texts as a table; a repeated key has a list of values. Raises UsageError."""
    found: dict[str, list[str]] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UsageError(f"--launcher-option {text}: allowed: key=value")
        found.setdefault(key, []).append(value)
    return {key: values if len(values) > 1 else values[0] for key, values in found.items()}


def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _entry(name: str) -> EntryPoint:
    if name in _BUILT_IN:  # first: listing installed packages takes 0.1 s (measured), and no package may replace these
        return EntryPoint(name, _BUILT_IN[name], GROUP)
    try:
        return _installed()[name]
    except KeyError:
        raise UsageError(f"--launcher {name}: no such launcher; {one_of(names(), name)}") from None


def _load(name: str) -> type[Launcher]:
    entry = _entry(name)
    try:
        found = entry.load()
    except Exception as error:  # importing runs third-party code, which may raise anything
        raise UsageError(f"--launcher {name}: cannot be imported: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Launcher)):
        raise UsageError(f"--launcher {name}: {entry.value} is not a subclass of ralr_tune.launch.launcher.Launcher")
    return found


def _validated(name: str, model: type[LauncherOptions], given: Mapping[str, object]) -> LauncherOptions:
    """The options as the launcher's model. Keys may use '-' or '_'."""
    raw = {key.replace("-", "_"): value for key, value in given.items()}
    if raw and not model.model_fields:
        raise UsageError(f"--launcher-option {next(iter(given))}: launcher {name} has no options")
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        found = lines(error, model, raw)
        raise UsageError("\n".join(f"--launcher-option {line}" for line in found)) from None
