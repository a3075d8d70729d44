"""The table of a study's data: samples by class and split, skipped entries and reasons, copies, verified samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table as Grid

from ralr_tune.analysis.copies import copies_sentences
from ralr_tune.records import Inventory, Skipped
from ralr_tune.studyfile.problems import cut

if TYPE_CHECKING:
    from ralr_tune.report.markup import Table

MAX_ROWS = 20
"""Up to this many classes a terminal shows all of them; otherwise the `ROWS_IF_SHORTENED` smallest."""
ROWS_IF_SHORTENED = 12
MAX_KINDS = 8
"""Kinds of skipped entries that are listed, and folders of each."""
WIDTH = 160
MAX_NAME_LENGTH = 40


def inventory_table(inventory: Inventory) -> Table:
    """The table of all classes, for the report."""
    from ralr_tune.report.markup import Table  # with all figures: `run` shows the text alone, and starts sooner

    rows = [_row(inventory, number) for number in range(len(inventory.classes))]
    return Table(f"{inventory.source}.", _header(inventory), [*rows, _totals(inventory)])


def inventory_text(inventory: Inventory) -> str:
    """The table for a terminal, followed by `inventory_lines`."""
    shown = _shown(inventory)
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_footer=True)
    for column, (name, total) in enumerate(zip(_header(inventory), _totals(inventory), strict=True)):
        grid.add_column(name, footer=total, justify="right" if column else "left", no_wrap=True)
    for number in shown:
        name, *cells = _row(inventory, number)
        grid.add_row(cut(name, MAX_NAME_LENGTH), *cells)
    classes = len(inventory.classes)
    smallest = (
        "" if len(shown) == classes else f"{_range(inventory)}; the {len(shown)} smallest (all are in the report)"
    )
    lines = [f"{inventory.source}: {inventory.class_count}{smallest}", *_rendered(grid), *inventory_lines(inventory)]
    return "\n".join(["data", *(f"  {line}".rstrip() for line in lines)])


def _range(inventory: Inventory) -> str:
    """The smallest and the largest number of training samples of a class."""
    counts = inventory.splits[0].counts
    return f" of {min(counts):,} to {max(counts):,} {inventory.splits[0].name} {inventory.unit}"


def inventory_lines(inventory: Inventory) -> list[str]:
    """Facts that the table cannot show, one line each."""
    origins = "; ".join(f"{split.name}: {split.origin}" for split in inventory.splits if split.origin)
    return [
        *([origins] if origins else []),
        *inventory.notes,
        *_skipped_lines(inventory),
        *_copies_lines(inventory),
        *_verified_lines(inventory),
    ]


def _rendered(grid: Grid) -> list[str]:
    # plain text also in a notebook, where rich would add codes for bold text and show an output of its own
    console = Console(
        file=StringIO(), force_terminal=False, force_jupyter=False, no_color=True,
        width=WIDTH, markup=False, emoji=False, highlight=False,
    )  # fmt: skip
    with console.capture() as captured:
        console.print(grid)
    return captured.get().splitlines()


def _header(inventory: Inventory) -> list[str]:
    return ["class", *(split.name for split in inventory.splits), *(["skipped"] if _skipped(inventory) else [])]


def _row(inventory: Inventory, number: int) -> list[str]:
    name, skipped = inventory.classes[number], _skipped(inventory)
    counts = [
        _cell(split.counts[number], split.holders[number] if split.holders else None) for split in inventory.splits
    ]
    return [name, *counts, *([f"{skipped[name]:,}" if skipped[name] else ""] if skipped else [])]


def _totals(inventory: Inventory) -> list[str]:
    skipped = _skipped(inventory)
    totals = [_cell(sum(split.counts), split.samples) for split in inventory.splits]
    return ["all", *totals, *([f"{skipped.total():,}"] if skipped else [])]


def _cell(count: int, samples: int | None) -> str:
    """ "4,155 in 198": objects, and the samples that hold them; or samples alone."""
    return f"{count:,}" if samples is None else f"{count:,} in {samples:,}"


def _skipped(inventory: Inventory) -> Counter[str]:
    """Skipped entries by class, without zeros; "" for those of no class."""
    found = Counter[str]()
    for each in inventory.skipped:
        found[each.group] += each.count
    return +found


def _shown(inventory: Inventory) -> Sequence[int]:
    """The classes that a terminal shows: all, or those with the fewest training samples."""
    every = range(len(inventory.classes))
    if len(every) <= MAX_ROWS:
        return every
    smallest = sorted(every, key=lambda number: [split.counts[number] for split in inventory.splits])
    return sorted(smallest[:ROWS_IF_SHORTENED])


def _skipped_lines(inventory: Inventory) -> Iterator[str]:
    """One line for each reason, the most frequent kinds first."""
    reasons: dict[str, dict[str, list[Skipped]]] = {}
    for each in inventory.skipped:
        reasons.setdefault(each.why, {}).setdefault(each.what, []).append(each)
    for why, kinds in reasons.items():
        ranked = sorted(kinds.items(), key=lambda kind: -_count(kind[1]))
        more = f"; and {len(ranked) - MAX_KINDS} other kinds" if len(ranked) > MAX_KINDS else ""
        yield f"skipped, {why}: {'; '.join(_kind(what, found) for what, found in ranked[:MAX_KINDS])}{more}"


def _count(found: Sequence[Skipped]) -> int:
    return sum(each.count for each in found)


def _kind(what: str, found: Sequence[Skipped]) -> str:
    """Count and folders, the most frequent folders first."""
    folders = Counter[str]()
    for each in found:
        folders["/".join(part for part in (each.split, each.group) if part)] += each.count
    named = [f"{folder} {count:,}" for folder, count in folders.most_common(MAX_KINDS) if folder]
    where = ", ".join(named) + (f" and {len(folders) - MAX_KINDS} more" if len(folders) > MAX_KINDS else "")
    count = _count(found)
    return (f"{count:,} " if count else "") + what + (f" ({where})" if where else "")


def _copies_lines(inventory: Inventory) -> Iterator[str]:
    if inventory.duplicates is None:
        yield "copies across splits: not searched for (the samples are not stored separately)"
    yield from (f"copies: {sentence}" for sentence in copies_sentences(inventory))


def _verified_lines(inventory: Inventory) -> Iterator[str]:
    size = inventory.size("test")
    if inventory.verified:
        count = f"all {size:,}" if inventory.verified == size else f"{inventory.verified:,} of {size:,}"
        yield f"verified: {count} test {inventory.unit} can be decoded and fit those of train (no model saw a label)"
