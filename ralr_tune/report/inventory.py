"""The table of a study's data: samples by class and split, what was skipped and why, copies, what was verified."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from io import StringIO

from rich.console import Console
from rich.table import Table as Grid

from ralr_tune.analysis.notes import copies_sentences
from ralr_tune.records import Inventory, Skipped
from ralr_tune.report.markup import Table
from ralr_tune.studyfile.problems import cut

MOST_ROWS = 20
"""Classes that a terminal shows; of more the smallest."""
FEW_ROWS = 12
MOST_KINDS = 8
"""Kinds of skipped entries that are named, and places of each."""
WIDTH = 160
LONGEST_NAME = 40


def inventory_table(inventory: Inventory) -> Table:
    """All classes, for the report."""
    rows = [_row(inventory, number) for number in range(len(inventory.classes))]
    return Table(f"{inventory.source}.", _head(inventory), [*rows, _all(inventory)])


def inventory_text(inventory: Inventory) -> str:
    """The table for a terminal, and what else is known, in lines."""
    shown = _shown(inventory)
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_footer=True)
    for place, (name, total) in enumerate(zip(_head(inventory), _all(inventory), strict=True)):
        grid.add_column(name, footer=total, justify="right" if place else "left", no_wrap=True)
    for number in shown:
        name, *cells = _row(inventory, number)
        grid.add_row(cut(name, LONGEST_NAME), *cells)
    classes = len(inventory.classes)
    smallest = (
        "" if len(shown) == classes else f"{_range(inventory)}; the {len(shown)} smallest (all are in the report)"
    )
    lines = [f"{inventory.source}: {classes} classes{smallest}", *_drawn(grid), *inventory_lines(inventory)]
    return "\n".join(["data", *(f"  {line}".rstrip() for line in lines)])


def _range(inventory: Inventory) -> str:
    """How many samples to train on the classes have."""
    counts = inventory.splits[0].counts
    return f" of {min(counts):,} to {max(counts):,} {inventory.splits[0].name} {inventory.unit}"


def inventory_lines(inventory: Inventory) -> list[str]:
    """What the table cannot show, a line each."""
    origins = "; ".join(f"{split.name}: {split.origin}" for split in inventory.splits if split.origin)
    return [
        *([origins] if origins else []),
        *_skipped_lines(inventory),
        *_copies_lines(inventory),
        *_verified_lines(inventory),
    ]


def _drawn(grid: Grid) -> list[str]:
    console = Console(file=StringIO(), width=WIDTH, markup=False, emoji=False, highlight=False, no_color=True)
    with console.capture() as captured:
        console.print(grid)
    return captured.get().splitlines()


def _head(inventory: Inventory) -> list[str]:
    return ["class", *(split.name for split in inventory.splits), *(["skipped"] if _skipped(inventory) else [])]


def _row(inventory: Inventory, number: int) -> list[str]:
    name, skipped = inventory.classes[number], _skipped(inventory)
    counts = [f"{split.counts[number]:,}" for split in inventory.splits]
    return [name, *counts, *([f"{skipped[name]:,}" if skipped[name] else ""] if skipped else [])]


def _all(inventory: Inventory) -> list[str]:
    skipped = _skipped(inventory)
    totals = [f"{split.total:,}" for split in inventory.splits]
    return ["all", *totals, *([f"{skipped.total():,}"] if skipped else [])]


def _skipped(inventory: Inventory) -> Counter[str]:
    """By class, without zeros; "" for what belongs to none."""
    found = Counter[str]()
    for each in inventory.skipped:
        found[each.group] += each.count
    return +found


def _shown(inventory: Inventory) -> Sequence[int]:
    """The classes that a terminal shows: all, or those with the fewest samples to train on."""
    every = range(len(inventory.classes))
    if len(every) <= MOST_ROWS:
        return every
    smallest = sorted(every, key=lambda number: [split.counts[number] for split in inventory.splits])
    return sorted(smallest[:FEW_ROWS])


def _skipped_lines(inventory: Inventory) -> Iterator[str]:
    """One for each reason: what is skipped for it, the most first."""
    reasons: dict[str, dict[str, list[Skipped]]] = {}
    for each in inventory.skipped:
        reasons.setdefault(each.why, {}).setdefault(each.what, []).append(each)
    for why, kinds in reasons.items():
        ranked = sorted(kinds.items(), key=lambda kind: -_count(kind[1]))
        more = f"; and {len(ranked) - MOST_KINDS} other kinds" if len(ranked) > MOST_KINDS else ""
        yield f"skipped, {why}: {'; '.join(_kind(what, found) for what, found in ranked[:MOST_KINDS])}{more}"


def _count(found: Sequence[Skipped]) -> int:
    return sum(each.count for each in found)


def _kind(what: str, found: Sequence[Skipped]) -> str:
    """How many, and where they lie, the most first."""
    places = Counter[str]()
    for each in found:
        places["/".join(part for part in (each.split, each.group) if part)] += each.count
    named = [f"{place} {count:,}" for place, count in places.most_common(MOST_KINDS) if place]
    where = ", ".join(named) + (f" and {len(places) - MOST_KINDS} more" if len(places) > MOST_KINDS else "")
    count = _count(found)
    return (f"{count:,} " if count else "") + what + (f" ({where})" if where else "")


def _copies_lines(inventory: Inventory) -> Iterator[str]:
    if inventory.duplicates is None:
        yield "copies across splits: not looked for (the contents are not stored one by one)"
    yield from (f"copies: {sentence}" for sentence in copies_sentences(inventory))


def _verified_lines(inventory: Inventory) -> Iterator[str]:
    size = inventory.size("test")
    if inventory.verified:
        count = f"all {size:,}" if inventory.verified == size else f"{inventory.verified:,} of {size:,}"
        yield f"verified: {count} test {inventory.unit} can be decoded and fit (no label was shown to a model)"
