"""The style of figures: one small template, a fixed colour for each arm, axes, and escaped text."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable
from typing import Any, NamedTuple

import plotly.graph_objects as go

from ralr_tune.metric import Metric, Unit

INK, RULE, GREY, FAINT = "#1d2733", "#d9dee4", "#7a838c", "rgba(128, 128, 128, 0.25)"
"""FAINT is an area's colour: too weak without an outline in GREY."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

# The first four of Okabe and Ito, "Color Universal Design" (2008), distinguishable with any kind of colour vision; two
# darker ones replace their orange and sky blue, whose contrast on white is below 3. Symbols help in print.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#A87400", "#8A63D2")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "star", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")

TITLE_WIDTH = 84  # characters of a line, in an image
LINE_PX = 19  # of a title
TITLE_TOP_PX = 18  # from the top edge to the first line's baseline

_AXIS: dict[str, Any] = {
    "gridcolor": RULE,
    "linecolor": RULE,
    "zeroline": False,
    "ticks": "outside",
    "tickcolor": RULE,
    "automargin": True,
    "title": {"standoff": 8, "font": {"size": 13}},
}

# Plotly's own template adds 6.6 kB to each figure, which optuna-dashboard would store with every panel.
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 13, "color": INK},
        "title": {
            "font": {"size": 15},
            "subtitle": {"font": {"size": 12}},
            "x": 0.016,
            "xref": "container",
            "xanchor": "left",
            "yref": "container",
            "yanchor": "top",
        },
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "hoverlabel": {"align": "left", "font": {"family": FONT}},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        "margin": {"l": 12, "r": 24, "b": 12},
        "hovermode": "closest",
    }
)


class ArmStyle(NamedTuple):
    """The colour, symbol and dash of one arm, the same in every figure of a report."""

    colour: str
    symbol: str
    dash: str

    @property
    def tint(self) -> str:
        """The colour of an area behind lines."""
        red, green, blue = (int(self.colour[place : place + 2], 16) for place in (1, 3, 5))
        return f"rgba({red}, {green}, {blue}, 0.16)"


def arm_styles(arms: Iterable[str]) -> dict[str, ArmStyle]:
    """A style for each arm in the order of the study file; beyond six, colours repeat with other symbols and dashes."""
    return {arm: _style(index, index + index // len(PALETTE)) for index, arm in enumerate(arms)}


def _style(index: int, varied: int) -> ArmStyle:
    return ArmStyle(PALETTE[index % len(PALETTE)], SYMBOLS[varied % len(SYMBOLS)], DASHES[varied % len(DASHES)])


def figure(
    finding: str, question: str = "", *, x: dict[str, Any], y: dict[str, Any], height: int = 380, legend: bool = True
) -> go.Figure:
    """An empty figure with this template; its title is the finding, its subtitle the question, both plain text."""
    layout = titled(finding, question, height, legend=legend) | {"xaxis": x, "yaxis": y}
    return go.Figure(layout={"template": TEMPLATE} | layout)


def titled(finding: str, question: str, height: int, *, legend: bool = True) -> dict[str, Any]:
    """The title and the room for it; a long one is broken into lines, which plotly would place above the top edge."""
    lines = [safe(line) for line in textwrap.wrap(finding, TITLE_WIDTH, break_long_words=False)]
    top = (106 if legend else 78) + LINE_PX * (len(lines) - 1)
    title = {"text": "<br>".join(lines), "y": 1 - TITLE_TOP_PX / height} | (
        {"subtitle": {"text": safe(question)}} if question else {}
    )
    return {"title": title, "margin_t": top, "height": height} | ({} if legend else {"showlegend": False})


def safe(text: object) -> str:
    """Text from a study as a label: plotly shows `<...>` and `&...;` as markup, and takes `$...$` for a formula."""
    return html.escape(writable(text), quote=False).replace("$", "&#36;")


def templated(text: object) -> str:
    """The same inside a template for hover texts, which has placeholders of its own: `%{...}`."""
    return safe(text).replace("%{", "%&#123;")


def writable(text: object) -> str:
    """Text without unpaired surrogates: JSON can express them, but no UTF-8 file can hold them."""
    return str(text).encode(errors="replace").decode()


def sentence(text: str) -> str:
    """With a capital first letter, unless the first word has capitals of its own (mAP)."""
    first = text.partition(" ")[0]
    return text if first != first.lower() else text[:1].upper() + text[1:]


def score_axis(metric: Metric, *, where: str = "") -> dict[str, Any]:
    """The axis of the metric; its numbers are stored values times the unit's factor."""
    title = safe(sentence(f"{where} {metric.words}".strip()))
    return {"title": {"text": title}, "ticksuffix": metric.format.value_suffix}


def hover_score(unit: Unit, place: str = "y") -> str:
    """A placeholder of hover templates for a score: two decimals for percentages, otherwise four digits."""
    return f"%{{{place}:.2f}}{unit.value_suffix}" if unit.value_suffix else f"%{{{place}:.4g}}"


def number_axis(title: str, span: tuple[float, float], *, log: bool, most: int = 12) -> dict[str, Any]:
    """An axis over span, (lowest, highest), with a little padding.

    A logarithmic one is ticked at round numbers, or only at powers of ten if there are more than `most`.
    """
    low, high = (math.log10(end) for end in span) if log else span
    padding = 0.04 * ((high - low) or 1.0)
    axis: dict[str, Any] = {"title": {"text": safe(title)}, "range": [low - padding, high + padding]}
    if not log:
        return axis
    ticks = log_ticks(*span) or list(span)
    if len(ticks) > most:
        ticks = [tick for tick in ticks if f"{tick:e}".startswith("1.000000e")] or ticks
    return axis | {"type": "log", "tickmode": "array", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers within [low, high] > 0: only decades when the range is wide, otherwise also 2 and 5."""
    decades = range(math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9) + 1)
    steps = (1,) if math.log10(high / low) > 2.5 else (1, 2, 5)
    ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
    return [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
