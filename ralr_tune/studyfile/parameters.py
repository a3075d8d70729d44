"""The parameters of a trial by name, and which optimizers use them.

lr, schedule.gamma, amplify.width      a key of [training] (without a prefix), [schedule] or an arm
optimizers.adamw.lr                    a key of [training.optimizers.adamw]
optimizer_options.betas                an option of an imported optimizer
task.model, params.depth               a searched value of [task]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ralr_tune.records import OF_OPTIMIZER
from ralr_tune.studyfile.optimizer_keys import OF_IMPORTED, OPTIMIZER_OPTIONS, OPTIMIZERS
from ralr_tune.studyfile.optimizers import is_imported
from ralr_tune.studyfile.values import Choice, Domain, Range

TABLES = "optimizers"
"""The key of [training] with a table for each of several optimizers."""
OPTIONS = "options"
"""The table of a configuration with the optimizer's own options."""

OF_OPTIMIZERS = (OF_OPTIMIZER, f"{OF_IMPORTED}.")
"""Prefixes of the names of parameters that single optimizers have."""


@dataclass(frozen=True)
class Parameter:
    """A fixed or searched value of an arm."""

    name: str
    """Optuna's."""
    value: Any
    table: str
    """Its table in a configuration."""
    key: str
    """Its key there; of [task], its path."""
    optimizers: frozenset[str] | None = None
    """Those that use it; None: all."""

    @property
    def domain(self) -> Domain | None:
        return self.value if isinstance(self.value, Range | Choice) else None

    def is_used(self, optimizer: str) -> bool:
        return self.optimizers is None or optimizer in self.optimizers

    def resolved(self, params: Mapping[str, Any]) -> Any:
        """Its value at `params`. Raises KeyError if it is searched and missing there."""
        if isinstance(self.value, Choice):
            return self.value.decode(params[self.name])
        return params[self.name] if isinstance(self.value, Range) else self.value


def possible(value: Any) -> tuple[Any, ...]:
    """The values that a key may have, if it is fixed or a choice."""
    return value.choices if isinstance(value, Choice) else (value,)


def training_parameters(training: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]) -> Iterator[Parameter]:
    """The parameters of [training], those of the tables of its optimizers last."""
    names = possible(training.get("optimizer", "sgd"))
    for key, value in training.items():
        users = frozenset(users_of(key, names)) - {name for name, own in tables.items() if key in own}
        yield from _of_key("", key, value, None if users == set(names) else users)
    for optimizer, own in tables.items():
        for key, value in own.items() if optimizer in names else ():
            yield from _of_key(f"{OF_OPTIMIZER}{optimizer}.", key, value, frozenset({optimizer}))


def users_of(key: str, names: tuple[str, ...]) -> Iterator[str]:
    """Those of the optimizers that have a key of [training]."""
    for name in names:
        if key == OF_IMPORTED:
            has = is_imported(name)
        else:
            has = key not in OPTIMIZER_OPTIONS or key in OPTIMIZERS.get(name, ())
        if has:
            yield name


def _of_key(prefix: str, key: str, value: Any, users: frozenset[str] | None) -> Iterator[Parameter]:
    if key == OF_IMPORTED:
        for option, each in value.items():
            yield Parameter(f"{prefix}{key}.{option}", each, OPTIONS, option, users)
        return
    yield Parameter(prefix + key, value, OPTIONS if key in OPTIMIZER_OPTIONS else "training", key, users)


def own_name(name: str, optimizer: str) -> str | None:
    """The key that a parameter sets when this optimizer trains; None if another optimizer's table has it."""
    if not name.startswith(OF_OPTIMIZER):
        return name.removeprefix(f"{OF_IMPORTED}.")
    own = f"{OF_OPTIMIZER}{optimizer}."
    return name.removeprefix(own).removeprefix(f"{OF_IMPORTED}.") if name.startswith(own) else None
