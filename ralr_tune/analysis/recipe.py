"""A recipe: what an arm's best configuration trains with, as far as it was searched, and its amplification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ralr_tune.analysis.facts import ArmFacts
from ralr_tune.records import AMPLIFICATION, OF_OPTIMIZER

LR, PROBABILITY, LOWER, UPPER, WIDTH = "lr", "probability", "lower", "upper", "width"


@dataclass(frozen=True)
class Recipe:
    """One configuration of an arm: the confirmed one, or the best search trial before any is confirmed."""

    arm: str
    params: Mapping[str, Any]
    """Searched parameters by Optuna name; those of the table of one optimizer without its prefix."""
    base_rate: float | None
    """None if the study has no `lr`."""
    amplification: Mapping[str, Any] = field(default_factory=dict)
    """`probability`, `lower`, `upper` and further settings, fixed or searched; empty if the arm does not amplify."""
    confirmed: bool = False
    """False: one run with one seed."""
    command: str = ""
    """Trains it on train + validation data."""

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of everything that matters to a reader: rate, amplification, then what else was searched."""
        rows = [] if self.base_rate is None else [("base rate", _short(self.base_rate))]
        if self.amplification:
            factors = " to ".join(_short(self.amplification.get(end)) for end in (LOWER, UPPER))
            rows += [("probability", _short(self.amplification.get(PROBABILITY))), ("factors", factors)]
        else:
            rows.append(("amplification", "none"))
        return rows + [(name, _short(value)) for name, value in self.further().items()]

    def further(self) -> dict[str, Any]:
        """Searched parameters other than the base rate and the amplification's probability and bounds."""
        bounds = {f"{AMPLIFICATION}{name}" for name in (PROBABILITY, LOWER, UPPER, WIDTH)}
        return {name: value for name, value in self.params.items() if name != LR and name not in bounds}

    def text(self) -> str:
        """Lines to copy: the keys of a study file."""
        values = {} if self.base_rate is None else {LR: self.base_rate}
        values |= {name: value for name, value in self.further().items() if not name.startswith(AMPLIFICATION)}
        lines = [f"{name} = {toml(value)}" for name, value in values.items()]
        return "\n".join(lines + ([f"amplify = {toml(self.amplification)}"] if self.amplification else []))


def recipe(arm: ArmFacts, command: str = "") -> Recipe | None:
    """The arm's recipe; None if no trial is complete. `command` trains it."""
    if arm.recipe is None:
        return None
    fixed = {name: value for name, value in arm.settings.items() if not _is_domain(value)}
    optimizer = {**fixed, **arm.recipe}.get("optimizer")
    values = _of_optimizer({**fixed, **arm.recipe}, optimizer)
    rate = values.get(LR)
    return Recipe(
        arm=arm.name,
        params=_of_optimizer(arm.recipe, optimizer),
        base_rate=None if rate is None else float(rate),
        amplification=_amplification(values),
        confirmed=arm.confirm is not None and arm.confirm.mean is not None,
        command=command,
    )


def _of_optimizer(values: Mapping[str, Any], optimizer: Any) -> dict[str, Any]:
    """The values that this optimizer trains with: its own replace the shared ones, others' are left out."""
    own = f"{OF_OPTIMIZER}{optimizer}."
    shared = {name: value for name, value in values.items() if not name.startswith(OF_OPTIMIZER)}
    return shared | {name.removeprefix(own): value for name, value in values.items() if name.startswith(own)}


def _is_domain(value: Any) -> bool:
    return isinstance(value, Mapping) and ("low" in value or "choices" in value)


def _amplification(values: Mapping[str, Any]) -> dict[str, Any]:
    """With the upper bound in place of the width."""
    found = {name.removeprefix(AMPLIFICATION): values[name] for name in values if name.startswith(AMPLIFICATION)}
    width = found.pop(WIDTH, None)
    if width is not None:
        found[UPPER] = found.get(LOWER, 1.0) + width
    first = [name for name in (PROBABILITY, LOWER, UPPER) if name in found]
    return {name: found[name] for name in (*first, *(name for name in found if name not in first))}


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else "–" if value is None else str(value)


def toml(value: Any) -> str:
    """A value in TOML, on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{name} = {toml(each)}' for name, each in value.items() if each is not None)} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    return str(value) if isinstance(value, int) else f'"{_escaped(str(value))}"'


def _escaped(text: str) -> str:
    return "".join(f"\\u{ord(each):04x}" if each < " " or each in '"\\\x7f' else each for each in text)
