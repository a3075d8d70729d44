"""The figures as Markdown and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.decisions.decision import Policy
from benchmarks.decisions.measures import DIFFERENCES, Figures
from benchmarks.decisions.worlds import World

HEADINGS = (
    "policy", "claims, equal arms", "wrong about its recipes",
    *(f"right at {each:g} sd" for each in DIFFERENCES if each), f"wrong at {DIFFERENCES[1]:g} sd",
    "regret, equal arms", "regret at 1 sd", "epochs", "of which",
)  # fmt: skip


def markdown(found: Mapping[str, Sequence[Figures]], worlds: Mapping[str, World], policies: Sequence[Policy]) -> str:
    """One table for each world, then the policies. `found`: figures by the name of their world."""
    lines = ["Shares with their 95% interval; regret in standard deviations between seeds and epochs with their error."]
    for name, rows in found.items():
        lines += ["", _title(worlds[name], rows), "", *_table(rows)]
    lines += ["", *(f"- {policy.name}: {policy.settings}." for policy in policies)]
    return "\n".join(lines) + "\n"


def _title(world: World, rows: Sequence[Figures]) -> str:
    counts = sorted({row.replays for row in rows})
    replays = " or ".join(map(str, counts))
    return f"**{world.name}**: {replays} replays; one sd is {100 * world.sd:.2f} points, the best mean {world.best:.4f}"


def _table(rows: Sequence[Figures]) -> Iterator[str]:
    yield "| " + " | ".join(HEADINGS) + " |"
    yield "|" + "---|" * len(HEADINGS)
    for row in rows:
        yield "| " + " | ".join(_cells(row)) + " |"


def _cells(row: Figures) -> list[str]:
    stages = ", ".join(f"{stage} {mean.value:,.0f}" for stage, mean in row.epochs.items() if mean.value)
    return [
        row.policy,
        str(row.false_claims),
        str(row.recipes_wrong),
        *map(str, row.right.values()),
        str(row.wrong[DIFFERENCES[1]]),
        str(row.regret[0.0]),
        str(row.regret[1.0]),
        f"{row.total[0.0].value:,.0f} ± {row.total[0.0].error:.0f}",
        stages,
    ]


def as_json(found: Mapping[str, Sequence[Figures]], worlds: Mapping[str, World]) -> dict[str, Any]:
    """The same figures, all of them."""
    return {
        name: {
            "sd": worlds[name].sd,
            "best": worlds[name].best,
            "policies": [asdict(row) for row in rows],
        }
        for name, rows in found.items()
    }
