"""The outlook of a study in words and tables, for `plan`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ralr_tune.analysis.chances import AGREEMENT, WINNERS
from ralr_tune.metric import Metric
from ralr_tune.search.outlook import DIFFERENCES, OTHER_BLOCKS, Answer, Outlook

_QUESTIONS = {"configuration": "two configurations", "arm": "the schedules themselves"}
_SHORT = {"configuration": "configurations", "arm": "schedules"}


def outlook_lines(found: Outlook, metric: Metric) -> Iterator[str]:
    """What `plan` prints: what the study sees, how likely its verdicts are, and other splits."""
    yield f"  what it can see; one standard deviation between seeds (sd) {_source(found, metric)}:"
    for answer in found.own:
        yield f"    {_QUESTIONS[answer.what]}, {_samples(answer)}: {_seen(found, answer, metric)}"
    yield f"    {_range(found, metric)}"
    for answer in found.own:
        yield f"  verdicts on {_QUESTIONS[answer.what]} at a true difference of"
        yield from _table(_verdict_rows(answer))
    yield "  the same epochs in other splits (more trials find better configurations, which this does not count)"
    yield from _table(_split_rows(found))
    if not found.compares_schedules:
        several = f"search.blocks = {OTHER_BLOCKS[0]} of as many trials"
        yield f"    the schedules themselves: {several} would compare them, for at most {found.epochs_of_blocks} epochs"
    yield f"    simulated, with an error of at most {100 * found.error:.1f} points; {_assumed(found)}"


def _source(found: Outlook, metric: Metric) -> str:
    if found.measured:
        return f"is {metric.format.size(found.noise.seeds, 2)}, as its judged seeds show"
    if found.known_unit:
        return f"is assumed to be the margin, {metric.format.size(found.noise.seeds, 2)}"
    return "is not known"


def _samples(answer: Answer) -> str:
    seeds = f"up to {answer.seeds} seeds" if answer.adaptive else f"{answer.seeds} seeds"
    return f"{answer.blocks} blocks, {seeds}" if answer.what == "arm" else seeds


def _seen(found: Outlook, answer: Answer, metric: Metric) -> str:
    if answer.visible is None:
        return "no difference is ever claimed"
    deviations = f"{answer.visible / found.noise.seeds:.1f} sd"
    if found.known_unit:
        deviations = f"{metric.format.size(answer.visible, 2)} ({deviations})"
    return f"claims a true difference of {deviations} in 4 of 5 studies"


def _range(found: Outlook, metric: Metric) -> str:
    half, twice = found.visible_range
    if not found.known_unit or half is None or twice is None:
        return "in the metric's own unit once seeds have been judged"
    sizes = " and ".join(metric.format.size(each, 2) for each in (half, twice))
    return f"with half and with twice that sd: {sizes}"


def _verdict_rows(answer: Answer) -> Iterator[Sequence[str]]:
    yield ["", *(f"{each:g} sd" if each else "0" for each in DIFFERENCES)]
    for verdict in ("right", "none", "wrong", "equivalent"):
        shares = [_percent(getattr(chances, verdict)) for chances in answer.chances]
        yield [_VERDICTS[verdict], *(["–", *shares[1:]] if verdict == "right" else shares)]
    if answer.adaptive and answer.what == "configuration":
        yield ["seeds needed", *(f"{chances.seeds:.0f}" for chances in answer.chances)]


_VERDICTS = {"right": "right claim", "none": "no verdict", "wrong": "wrong claim", "equivalent": "equivalent"}


def _split_rows(found: Outlook) -> Iterator[Sequence[str]]:
    claims = [f"right at {each:g} sd" for each in DIFFERENCES if each]
    yield ["trials", "blocks", "seeds", "epochs", "compares", "sees", *claims]
    for answer in found.answers:
        sees = "nothing" if answer.visible is None else f"{answer.visible / found.noise.seeds:.1f} sd"
        right = [_percent(chances.right) for chances in answer.chances if chances.difference]
        yield [
            f"{answer.trials}{' (this)' if answer.own else ''}",
            str(answer.blocks),
            f"up to {answer.seeds}" if answer.adaptive else str(answer.seeds),
            f"{answer.expected_epochs:.0f} to {answer.epochs}",
            _SHORT[answer.what],
            sees,
            *right,
        ]


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _table(rows: Iterator[Sequence[str]]) -> Iterator[str]:
    found = list(rows)
    widths = [max(map(len, column)) for column in zip(*found, strict=True)]
    for row in found:
        cells = (
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "    " + "  ".join(cells)


def _assumed(found: Outlook) -> str:
    parts = [] if found.measured else ["a seed has no common effect on two configurations"]
    if found.compares_schedules:
        parts.append(f"winners vary by {WINNERS:g} sd between blocks")
    if any(answer.adaptive for answer in found.own):
        parts.append(f"validation and test differences correlate by {AGREEMENT:g}")
    return f"assumed: {', '.join(parts)}" if parts else "nothing else is assumed"
