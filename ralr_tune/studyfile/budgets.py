"""`search.budget` and [split]: what a study may spend, and the trials and seeds that were chosen for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field

from ralr_tune.nearest import nearest
from ralr_tune.studyfile.values import Count, Frozen, problem

Unit = Literal["epochs", "device hours", "device minutes"]

UNITS: dict[Unit, float | None] = {"epochs": None, "device hours": 3600.0, "device minutes": 60.0}
"""Seconds of each unit; None: it counts epochs."""
MOST = 10**9 - 1
EXAMPLES = '"12 device hours", "90 device minutes" or "600 epochs"'
_FORM = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z][A-Za-z ]*?)\s*")
_UNIT_OF: dict[str, Unit] = {**{unit: unit for unit in UNITS}, **{unit.removesuffix("s"): unit for unit in UNITS}}
_CLOSE: dict[str, str] = {
    "h": "device hours", "hour": "device hours", "hours": "device hours",
    "min": "device minutes", "minute": "device minutes", "minutes": "device minutes", "epoch": "epochs",
}  # fmt: skip
"""What people write in place of the units; refused, since an hour of the clock is not one of a device."""


class Budget(NamedTuple):
    """An amount of epochs, or of the time that one device trains."""

    amount: float
    unit: Unit

    @property
    def seconds(self) -> float | None:
        """Device time; None if it counts epochs."""
        factor = UNITS[self.unit]
        return None if factor is None else self.amount * factor

    def epochs(self, seconds_per_epoch: float | None) -> int | None:
        """Whole epochs; None if the duration of an epoch is needed and not known."""
        if self.seconds is None:
            return int(self.amount)
        return min(int(self.seconds / seconds_per_epoch), MOST) if seconds_per_epoch else None


def parse_budget(text: str) -> Budget:
    """A budget from its text. Raises ValueError, one line, with the nearest form that is allowed."""
    found = _FORM.fullmatch(text)
    unit = _UNIT_OF.get(" ".join(found[2].lower().split())) if found else None
    if found is None or unit is None:
        raise ValueError(f"must be {EXAMPLES}{_suggestion(found)}")
    amount = float(found[1])
    if not amount > 0:
        raise ValueError(f"must be above 0, such as {EXAMPLES}")
    if unit == "epochs" and not amount.is_integer():
        raise ValueError(f'epochs are whole; did you mean "{max(1, round(amount))} epochs"?')
    if amount > MOST:
        raise ValueError(f"must be at most {MOST}")
    return Budget(amount, unit)


def _suggestion(found: re.Match[str] | None) -> str:
    if found is None:
        return ""
    given = found[2].lower()
    close: str | None = _CLOSE.get(given) or next(iter(nearest(given, UNITS, cutoff=0.5)), None)
    return f'; did you mean "{found[1]} {close}"?' if close else ""


def _budget(value: Any) -> Any:
    if not isinstance(value, str):
        likely = isinstance(value, int) and not isinstance(value, bool) and value > 0
        raise problem(f"must be {EXAMPLES}" + (f'; did you mean "{value} epochs"?' if likely else ""))
    try:
        parse_budget(value)
    except ValueError as error:
        raise problem(str(error)) from None
    return value


BudgetText = Annotated[str, BeforeValidator(_budget)]


class SplitSection(Frozen):
    """[split]: what `search.budget` was split into. `run` adds it to the stored file, so that every worker and every
    later run use the same."""

    epochs: Count
    """The budget in epochs: the study plans no more than these."""
    trials: Annotated[int, Field(ge=1, le=1_000_000)]
    """Takes the place of `search.trials`."""
    seeds: Annotated[int, Field(ge=2, le=10_000)]
    """Takes the place of `confirm.seeds`; of `confirm.most_seeds` if that is "auto"."""

    def as_toml(self) -> Iterator[str]:
        yield "[split]"
        yield from (f"{key} = {value}" for key, value in self)
