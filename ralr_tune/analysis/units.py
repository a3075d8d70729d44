"""How values of a metric are written: accuracies as percent and percentage points, anything else as plain numbers."""

from __future__ import annotations

from typing import NamedTuple


class Unit(NamedTuple):
    """The unit in which one metric is shown."""

    factor: float
    """Shown number = stored value times factor."""
    value_suffix: str
    difference_suffix: str

    def value(self, value: float, digits: int = 1) -> str:
        """ "98.1%" or "0.4213"."""
        return self._number(value, digits) + self.value_suffix

    def difference(self, value: float, digits: int = 1) -> str:
        """ "+0.2 points" or "-0.0312"."""
        return self.signed(value, digits) + self.difference_suffix

    def size(self, value: float, digits: int = 1) -> str:
        """How large a difference is: "0.2 points", "1 point" or "0.0312"."""
        text = self._number(abs(value), digits)
        return text + (self.difference_suffix.removesuffix("s") if text == "1" else self.difference_suffix)

    def signed(self, value: float, digits: int = 1) -> str:
        """A difference without its unit."""
        text = self._number(value, digits)
        return text if text.startswith("-") else "+" + text

    def digits(self, *differences: float) -> int:
        """Decimals of percents: one, unless that would round a difference to nothing."""
        return 2 if any(0 < abs(difference) * self.factor < 0.05 for difference in differences) else 1

    def _number(self, value: float, digits: int) -> str:
        if not self.value_suffix:
            return f"{value:.4g}"
        text = f"{value * self.factor:.{digits}f}"
        return text.removeprefix("-") if not float(text) else text  # no "-0.0"


def unit_of(metric: str) -> Unit:
    """The unit of a metric by its name; shares are recognised by the word accuracy."""
    return Unit(100.0, "%", " points") if "accuracy" in metric.lower() else Unit(1.0, "", "")
