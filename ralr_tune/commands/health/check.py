"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """A verdict, what it rests on, and what to do about it."""

    name: str
    verdict: Verdict
    found: str
    mend: str = ""
    """Empty where all is well."""

    def __str__(self) -> str:
        mend = f" -> {self.mend}" if self.mend else ""
        return f"{self.verdict:<8} {self.name:<15} {self.found}{mend}"


def judged(name: str, found: str, *, problem: str = "", warning: str = "") -> Check:
    """A check that is bad where there is something to do: `problem` and `warning` are what, the graver one first."""
    return Check(name, "problem" if problem else "warning" if warning else "ok", found, problem or warning)
