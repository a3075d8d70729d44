"""The metric that trials are compared by: one object that knows which values are better and how values are formatted.

No other module uses the direction to compare values: use `better(a, b)`, `gain(a, b)`, `best(values)`, and
`as_gain(value)` as a sort key.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MINUS = "\N{MINUS SIGN}"
"""In numbers that people read; JSON, CSV and what is pasted keep "-"."""

Direction = Literal["maximize", "minimize"]
UnitName = Literal["share", "plain"]
Number = TypeVar("Number", float, "NDArray[np.float64]")


def ascii_minus(text: str) -> str:
    """The text with "-" for each minus sign: for what programs read."""
    return text.replace(MINUS, "-")


class Unit(NamedTuple):
    """How values of a metric are formatted."""

    factor: float
    """Shown number = stored value times factor."""
    value_suffix: str
    difference_suffix: str

    def value(self, value: float, digits: int = 1) -> str:
        """ "98.1%" or "0.4213"."""
        return self._number(value, digits) + self.value_suffix

    def difference(self, value: float, digits: int = 1) -> str:
        """ "+0.2 points" or "−0.0312", with a real minus sign: for sentences and labels."""
        return self.signed(value, digits) + self.difference_suffix

    def size(self, value: float, digits: int = 1) -> str:
        """The absolute value of a difference: "0.2 points", "1 point" or "0.0312"."""
        text = self._number(abs(value), digits, 3)
        return text + (self.difference_suffix.removesuffix("s") if text == "1" else self.difference_suffix)

    def signed(self, value: float, digits: int = 1) -> str:
        """A difference without its unit."""
        text = self._number(value, digits, 3)
        return text if text.startswith(MINUS) else "+" + text

    def digits(self, *differences: float) -> int:
        """Decimals of percentages: one, or two if one would round a difference to zero."""
        return 2 if any(0 < abs(difference) * self.factor < 0.05 for difference in differences) else 1

    def _number(self, value: float, digits: int, significant: int = 4) -> str:
        """With so many decimals if it is a percentage, otherwise with so many significant digits."""
        text = f"{value * self.factor:.{digits}f}" if self.value_suffix else f"{value:.{significant}g}"
        if not text.startswith("-"):
            return text
        return text[1:] if self.value_suffix and not float(text) else MINUS + text[1:]  # no "−0.0"


UNITS: dict[UnitName, Unit] = {"share": Unit(100.0, "%", " points"), "plain": Unit(1.0, "", "")}


@dataclass(frozen=True)
class Metric:
    """What a study compares trials by."""

    name: str
    direction: Direction
    unit: UnitName = "plain"
    """A share is shown in percent and its differences in points; "plain" values are shown as plain numbers."""
    worst: float | None = None
    """The value reported for a diverged trial. None (unbounded metric): the worst finite value so far is used."""
    tolerance: float = 0.01
    """Values within this distance of the best one count as close to it: in the metric's own unit for a share, as a
    fraction of the best value for a plain metric."""
    default_margin: float = 0.0
    """Differences below it count as equivalent when the study file gives no margin, in the metric's own unit.
    0: nothing is called equivalent."""
    label: str = ""
    """As the field writes it, where that is not the name with spaces: "mAP"."""

    @property
    def words(self) -> str:
        """The name in sentences, headings and on axes: "balanced accuracy", "mAP"; files and columns keep the name."""
        return self.label or self.name.replace("_", " ")

    @property
    def format(self) -> Unit:
        """How values and differences are formatted."""
        return UNITS[self.unit]

    @property
    def reading(self) -> str:
        """How to read its values: "a share, larger is better"."""
        what = {"share": "a share", "plain": "a plain number"}[self.unit]
        return f"{what}, {'larger' if self.better(1.0, 0.0) else 'smaller'} is better"

    def as_gain(self, value: Number) -> Number:
        """A value, or a difference of two, with a sign such that larger is better: exactly itself or its negative.

        Applied twice, it returns the original value.
        """
        return value if self.direction == "maximize" else -value

    def better(self, one: float, other: float) -> bool:
        """Whether the first of two values is the better one."""
        return self.gain(one, other) > 0

    def gain(self, one: float, other: float) -> float:
        """How much better the first of two values is; negative if it is worse."""
        return self.as_gain(one - other)

    def best(self, values: Iterable[float]) -> float:
        """The best of some values. Raises ValueError if there are none."""
        return max(values, key=self.as_gain)

    def worst_of(self, values: Iterable[float]) -> float:
        """The worst of some values; NaN if there are none."""
        return min(values, key=self.as_gain, default=math.nan)

    def close(self, best: float) -> float:
        """The distance from the best value within which a value counts as close to it (see `tolerance`)."""
        return self.tolerance if self.unit == "share" else self.tolerance * abs(best)

    def of_diverged(self, seen: Iterable[float]) -> float:
        """The value reported for a diverged trial: `worst`; for an unbounded metric, the worst finite value of `seen`.

        If `seen` has no finite value, it is infinitely bad (our choice): any finite number might be a good value.
        """
        if self.worst is not None:
            return self.worst
        found = self.worst_of(value for value in seen if math.isfinite(value))
        return self.as_gain(-math.inf) if math.isnan(found) else found
