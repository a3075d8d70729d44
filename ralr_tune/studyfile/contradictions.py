"""What a check of a study file finds, and the keys that it involves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ralr_tune.studyfile.parameters import TABLES
from ralr_tune.studyfile.problems import KeyPath, dotted, shown
from ralr_tune.studyfile.study import StudySpec
from ralr_tune.studyfile.values import Choice, Domain


@dataclass(frozen=True)
class Contradiction:
    """One line for the user."""

    line: str
    paths: tuple[KeyPath, ...] = ()
    """Keys and tables that it involves."""

    def depends_on(self, faults: Iterable[KeyPath]) -> bool:
        """Whether a fault is at, above or below one of `paths`: then it is unknown whether this really is a problem."""
        return any(
            all(one == other for one, other in zip(path, fault, strict=False))
            for path in self.paths
            for fault in faults
        )


@dataclass(frozen=True)
class Problem(Contradiction):
    """A reason why a study cannot be trained that only its network, its data or Optuna show (`Kind.problems`)."""

    of_data: bool = False
    """Whether the data are wrong, and not the study file."""
    absent: bool = False
    """Whether what is missing may be on another machine: data that are not here, code that is not installed."""


def missing_file(path: KeyPath, name: str) -> Iterator[Contradiction]:
    """The problem of a key whose file or folder does not exist; nothing if it exists."""
    if not _exists(name):
        line = f"{dotted(path)} = {shown(name)}: no such file or folder (relative to {Path.cwd()})"
        yield Contradiction(line, (path,))


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError):  # name too long, folder not readable; ~USER with an unknown user
        return False


def corners(space: Mapping[str, Domain], keys: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Every combination of the ends and choices of `keys`; other parameters are at their low end or first choice."""
    searched = [key for key in keys if key in space]
    rest = {name: _ends(domain)[0] for name, domain in space.items()}
    for values in product(*(_ends(space[key]) for key in searched)):
        yield rest | dict(zip(searched, values, strict=True))


def _ends(domain: Domain) -> list[Any]:
    return domain.describe()["choices"] if isinstance(domain, Choice) else [domain.low, domain.high]


def path_of_key(spec: StudySpec, arm: str, key: str) -> KeyPath:
    """The path of the [training] key that applies to an arm."""
    own = spec.arms[arm].training
    return ("arms", arm, "training", key) if own and getattr(own, key) is not None else ("training", key)


def path_in_table(spec: StudySpec, arm: str, optimizer: str, key: str) -> KeyPath:
    """The path of the key of an optimizer's table that applies to an arm."""
    own = spec.arms[arm].training
    table = (own.optimizers or {}).get(optimizer) if own else None
    inside = (TABLES, optimizer, key)
    return ("arms", arm, "training", *inside) if table and getattr(table, key) is not None else ("training", *inside)


def training_paths(arm: str, *keys: str) -> tuple[KeyPath, ...]:
    return tuple(path for key in keys for path in (("training", key), ("arms", arm, "training", key)))


def shared_paths(parameter: str) -> tuple[KeyPath, ...]:
    """Paths of a parameter in the shared tables, outside of arms."""
    path = tuple(parameter.split("."))
    if len(path) == 1:
        return (("training", parameter),)
    return () if path[0] in {"amplify", "noise"} else (path,)
