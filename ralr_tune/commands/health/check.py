"""The result of one check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """A verdict, what was found, and how to fix it."""

    name: str
    verdict: Verdict
    found: str
    fix: str = ""
    """Empty if the verdict is "ok"."""

    def __str__(self) -> str:
        fix = f" -> {self.fix}" if self.fix else ""
        return f"{self.verdict:<8} {self.name:<15} {self.found}{fix}"

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "verdict": self.verdict, "found": self.found, "mend": self.fix}


def make_check(name: str, found: str, *, problem: str = "", warning: str = "") -> Check:
    """A check with verdict "ok" unless there is something to fix; `problem` (the more severe) and `warning` say how."""
    return Check(name, "problem" if problem else "warning" if warning else "ok", found, problem or warning)
