"""The README's second picture: false and right claims against epochs, this package and today's habits.

    python -m benchmarks.decisions.picture [.bench/decisions.json]

writes `summary.json` next to this file, pooled over the worlds, and draws docs/decisions.svg from it; without an
argument it draws from the summary that is there. A test holds both files together.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from scipy import stats

from ralr_tune.report.style import FONT, GREY, INK, PALETTE, RULE, log_ticks

SUMMARY = Path(__file__).with_name("summary.json")
PICTURE = Path(__file__).parents[2] / "docs" / "decisions.svg"
OWN = "ralr_tune"
"""How the names of this package's policies begin."""
SIZE = 1.0
"""Of the true difference in the lower panel, in standard deviations between seeds."""
PROMISE = 0.05
"""At most this share of false claims: 1 - `confirm.confidence`."""


@dataclass(frozen=True)
class Shown:
    """A policy in all its worlds together."""

    policy: str
    replays: int
    epochs: float
    """Mean of a study of two equal arms."""
    false: int
    """Replays that claim a difference of equal arms."""
    right: int
    """Replays that claim the right one at a true difference of `SIZE`."""


@dataclass(frozen=True)
class Summary:
    """What the picture shows."""

    worlds: tuple[str, ...]
    policies: tuple[Shown, ...]
    """By epochs."""

    @classmethod
    def of(cls, results: Mapping[str, Any]) -> Summary:
        """From the JSON of `python -m benchmarks.decisions`. A policy that a world lacks is pooled over the others."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        for world in results.values():
            for row in world["policies"]:
                found.setdefault(row["policy"], []).append(row)
        return cls(tuple(results), tuple(sorted(map(_pooled, found.values()), key=lambda each: each.epochs)))

    @classmethod
    def read(cls, file: Path = SUMMARY) -> Summary:
        held = json.loads(file.read_text(encoding="utf-8"))
        return cls(tuple(held["worlds"]), tuple(Shown(**each) for each in held["policies"]))

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"


def _pooled(rows: Sequence[Mapping[str, Any]]) -> Shown:
    return Shown(
        policy=rows[0]["policy"],
        replays=sum(row["replays"] for row in rows),
        epochs=round(fmean(row["total"]["0.0"]["value"] for row in rows), 1),
        false=sum(round(row["false_claims"]["value"] * row["replays"]) for row in rows),
        right=sum(round(row["right"][f"{SIZE}"]["value"] * row["replays"]) for row in rows),
    )


# ---------------------------------------------------------------- drawing

WIDTH, LEFT, RIGHT = 800, 58, 20
PANEL, TOPS = 168, (96, 322)
"""Height of a panel, and where each begins, in pixels."""
HEIGHT = 558
LETTER, LINE = 7.0, 15
"""Estimated width of a letter and height of a line of labels, in pixels, at 12 px."""
FAR = 14.0
"""A label further from its dot, in pixels, is joined to it by a line."""

_STYLE = f"""
text {{ font-family: {FONT}; font-size: 12px; fill: {INK}; }}
.title {{ font-size: 17px; }} .panel {{ font-size: 14px; }} .soft {{ fill: {GREY}; }}
.back {{ fill: #ffffff; }} .rule {{ stroke: {RULE}; }} .promise {{ stroke: {GREY}; stroke-dasharray: 4 4; }}
.own {{ fill: {PALETTE[0]}; stroke: {PALETTE[0]}; }} .habit {{ fill: {PALETTE[1]}; stroke: {PALETTE[1]}; }}
text.own, text.habit {{ stroke: #ffffff; stroke-width: 3px; paint-order: stroke; }}
.bar {{ stroke-width: 2; opacity: 0.5; }} .leader {{ stroke-width: 1; opacity: 0.5; }}
.one {{ fill: #ffffff; stroke-width: 2; }}
@media (prefers-color-scheme: dark) {{
text {{ fill: #e3e8ee; }} .back {{ fill: #14191f; }} .rule {{ stroke: #38424d; }} .soft {{ fill: #98a2ad; }}
.own {{ fill: #56B4E9; stroke: #56B4E9; }} .one {{ fill: #14191f; }} .habit {{ fill: #F0914D; stroke: #F0914D; }}
text.own, text.habit {{ stroke: #14191f; }}
}}"""
"""The report's colours; in the dark lighter ones of the same hues, with a contrast above 6."""


class Box(NamedTuple):
    """A rectangle that a mark or a label covers."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)


@dataclass(frozen=True)
class Axis:
    """Epochs, on a logarithmic scale."""

    low: float
    high: float

    @classmethod
    def of(cls, summary: Summary) -> Axis:
        epochs = [each.epochs for each in summary.policies]
        return cls(min(epochs) / 1.3, max(epochs) * 1.3)

    def x(self, epochs: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(epochs / self.low) / math.log(self.high / self.low)


def draw(summary: Summary) -> str:
    """The picture as SVG: dots with 95% intervals (Clopper and Pearson), labelled, in two panels."""
    axis, replays = Axis.of(summary), max(each.replays for each in summary.policies)
    panels = (
        (
            "False claims: two equally good schedules are said to differ",
            {p.policy: p.false for p in summary.policies},
        ),
        (
            f"Right claims, at a true difference of {SIZE:g} standard deviation between seeds",
            {p.policy: p.right for p in summary.policies},
        ),
    )
    size = f'width="{WIDTH}" height="{HEIGHT}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>False and right claims against epochs</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="back" {size}/>',
        _text(14, 26, "How often is a claim right, and what does it cost?", "title"),
        *_key(),
        _text(14, 66, f"{replays:,} replays each, {_curves(summary.worlds)}; {_error(summary, panels)}", "soft"),
    ]
    for top, (title, counts) in zip(TOPS, panels, strict=True):
        lines += _panel(summary, axis, top, title, counts)
    lines.append(_text(WIDTH - RIGHT, HEIGHT - 12, "epochs of one study, all stages", "soft", anchor="end"))
    return "\n".join([*lines, "</svg>"]) + "\n"


def _error(summary: Summary, panels: Iterable[tuple[str, Mapping[str, int]]]) -> str:
    """In words, since marks hide the bars of many replays."""
    found = (_interval(counts[each.policy], each) for _, counts in panels for each in summary.policies)
    return f"95% intervals: ±{math.ceil(max(high - low for low, high in found) * 50)} points at most"


def _interval(count: int, policy: Shown) -> tuple[float, float]:
    found = stats.binomtest(count, policy.replays).proportion_ci(method="exact")
    return float(found.low), float(found.high)


def _curves(worlds: Sequence[str]) -> str:
    """Whose runs are replayed, short enough for a line: a world is called `TABLE, ARM`."""
    tables, arms = (dict.fromkeys(world.split(", ")[part] for world in worlds) for part in (0, 1))
    return f"on curves of {' and of '.join(arms)}: {', '.join(tables)}"


def _key() -> Iterator[str]:
    one = "this package, one search: its claim is about two recipes, not about the schedules"
    for x, mark, words in ((14, "own", "this package"), (122, "habit", "today’s habits"), (242, "own one", one)):
        yield _dot(x + 5, 43, mark)
        yield _text(x + 16, 47, words)


def _panel(summary: Summary, axis: Axis, top: float, title: str, counts: Mapping[str, int]) -> Iterator[str]:
    yield _text(14, top + 6, title, "panel")
    base, height = top + PANEL + 20, PANEL

    def y(share: float) -> float:
        return base - height * share

    for share in (0, 0.25, 0.5, 0.75, 1):
        yield _rule(LEFT, WIDTH - RIGHT, y(share), y(share))
        yield _text(LEFT - 8, y(share) + 4, f"{100 * share:g}%", "soft", anchor="end")
    for tick in log_ticks(axis.low, axis.high):
        yield _rule(axis.x(tick), axis.x(tick), base, base + 4)
        yield _text(axis.x(tick), base + 17, f"{tick:,g}", "soft", anchor="middle")
    if "False" in title:
        yield _rule(LEFT, WIDTH - RIGHT, y(PROMISE), y(PROMISE), "promise")
        yield _text(LEFT + 6, y(PROMISE) - 6, f"promised: at most {100 * PROMISE:g}%", "soft")
    bounds = Box(LEFT, top + 8, WIDTH - RIGHT, base)
    yield from _marks(summary, {p.policy: (axis.x(p.epochs), y) for p in summary.policies}, counts, bounds)


def _marks(summary: Summary, places: Mapping[str, Any], counts: Mapping[str, int], bounds: Box) -> Iterator[str]:
    """Bars, then dots, then labels, each where it covers least of what is there."""
    taken, labels = [], []
    for each in summary.policies:
        x, y = places[each.policy]
        low, high = _interval(counts[each.policy], each)
        top, bottom, at = y(high), y(low), y(counts[each.policy] / each.replays)
        mark = _mark(each.policy)
        yield f'<line class="bar {mark.split()[0]}" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>'
        yield _dot(x, at, mark)
        taken += [Box(x - 7, at - 7, x + 7, at + 7), Box(x - 2, top, x + 2, bottom)]
        labels.append((each.policy.removeprefix(f"{OWN}, "), x, at, mark.split()[0]))
    for words, x, at, mark in labels:
        box = min(_places(words, x, at), key=lambda box: _cost(box, taken, bounds))
        taken.append(box)
        end = _nearest(box, x, at)
        if math.dist(end, (x, at)) > FAR:
            yield f'<line class="leader {mark}" x1="{x:.1f}" y1="{at:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"/>'
        yield _text(box.left, box.bottom - 4, words, mark)


def _mark(policy: str) -> str:
    """The classes of a policy's dot."""
    if not policy.startswith(OWN):
        return "habit"
    return "own one" if policy.startswith(f"{OWN}, 1 ") else "own"


def _places(words: str, x: float, y: float) -> Iterator[Box]:
    """Where a label may be, the preferred place first."""
    width = LETTER * len(words)
    for up in (0, -18, 18, -34, 34, -50, 50, -66, 66):
        sides = (x + 10, x - 10 - width) if abs(up) < LINE else (x - width / 2, x + 4, x - 4 - width)
        for left in sides:
            yield Box(left, y + up - LINE / 2, left + width, y + up + LINE / 2)


def _nearest(box: Box, x: float, y: float) -> tuple[float, float]:
    """The point of a label that is nearest to its dot."""
    return min(max(x, box.left), box.right), min(max(y, box.top), box.bottom)


def _cost(box: Box, taken: Sequence[Box], bounds: Box) -> float:
    area = (box.right - box.left) * (box.bottom - box.top)
    return 10 * (area - box.overlap(bounds)) + sum(map(box.overlap, taken))


def _text(x: float, y: float, words: str, mark: str = "", anchor: str = "start") -> str:
    return f'<text class="{mark}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _rule(x1: float, x2: float, y1: float, y2: float, mark: str = "rule") -> str:
    return f'<line class="{mark}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _dot(x: float, y: float, mark: str) -> str:
    """A circle for this package, empty for one search, a diamond for habits: they differ in print, too."""
    if mark != "habit":
        return f'<circle class="{mark}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
    return f'<path class="habit" d="M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z"/>'


def main(arguments: Sequence[str]) -> None:
    if arguments:
        results = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
        SUMMARY.write_text(Summary.of(results).as_json(), encoding="utf-8")
    PICTURE.write_text(draw(Summary.read()), encoding="utf-8")
    print(f"{SUMMARY.name}, {PICTURE}")


if __name__ == "__main__":
    main(sys.argv[1:])
