"""The factors that one `RandomAmplifyLR` draws: a pure function of its checked arguments and the step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ralr_tune.schedules.amplification import LAWS, Amplification
from ralr_tune.schedules.checks import check_integer, refusal
from ralr_tune.seeds import derive_seed


@dataclass(frozen=True)
class Draws:
    """Step i's factor is `amplification.factor(seed, i)` inside `window` (steps, end excluded), 1 outside of it.

    Our choice: each `prefix` selects an independent stream for the same seed. Raises ValueError for invalid arguments.
    Holds Python's own numbers, because torch.load(weights_only=True) reads no others.
    """

    amplification: Amplification
    window: tuple[int, int] | None
    seed: int
    prefix: str

    def __post_init__(self) -> None:
        law = self.amplification
        name = LAWS[LAWS.index(law.law)]  # Python's str, not NumPy's
        plain = Amplification(float(law.probability), float(law.lower), float(law.upper), name)
        self._set("amplification", plain)
        self._set("window", _checked_window(self.window))
        check_integer("seed", self.seed, low=0, below=2**64)
        self._set("seed", int(self.seed))
        if not isinstance(self.prefix, str):
            raise refusal("prefix", self.prefix, "a string")
        self._set("prefix", str(self.prefix))

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Draws:
        """From the result of `state`; states of release 0.1 have no prefix."""
        fields = {"probability", "lower", "upper", "law"}
        law = state["amplification"]
        if not isinstance(law, Mapping) or set(law) != fields:
            raise refusal("state_dict['amplification']", law, f"a dict of {', '.join(sorted(fields))}")
        return cls(Amplification(**law), state["window"], state["seed"], state.get("prefix", ""))

    def state(self) -> dict[str, Any]:
        """The fields as plain values, for a checkpoint."""
        law = self.amplification
        return {
            "amplification": {"probability": law.probability, "lower": law.lower, "upper": law.upper, "law": law.law},
            "window": self.window,
            "seed": self.seed,
            "prefix": self.prefix,
        }

    def factor(self, step: int) -> float:
        """The factor at one step, from 0."""
        first, last = self.window or (0, step + 1)
        if not first <= step < last:
            return 1.0
        seed = derive_seed("amplify", self.prefix, self.seed) if self.prefix else self.seed
        return self.amplification.factor(seed, step)

    def _set(self, field: str, value: object) -> None:
        object.__setattr__(self, field, value)  # the dataclass is frozen


@dataclass(frozen=True)
class ListedFactors:
    """Step i's factor is `factors[i]`; 1 after the last one."""

    factors: tuple[float, ...]

    def state(self) -> dict[str, Any]:
        """Nothing: a resumed run gets the same list again."""
        return {}

    def factor(self, step: int) -> float:
        """The factor at one step, from 0."""
        return self.factors[step] if step < len(self.factors) else 1.0


def _checked_window(window: object) -> tuple[int, int] | None:
    if window is None:
        return None
    if not isinstance(window, tuple | list) or len(window) != 2:
        raise refusal("window", window, "None or two steps, first < last")
    first, last = window
    check_integer("window", last, low=1)
    check_integer("window", first, low=0, below=last)
    return int(first), int(last)
