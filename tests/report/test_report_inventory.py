"""The table of a study's data, on a terminal and in the report."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ralr_tune.analysis.copies import copies_sentences
from ralr_tune.records import Duplicates, Inventory, Skipped, SplitInventory
from ralr_tune.report.inventory import inventory_lines, inventory_table, inventory_text

INVENTORY = Inventory(
    "folder pictures",
    ("ant", "猫"),
    (SplitInventory("train", "pictures/train", (1200, 2)), SplitInventory("test", "pictures/test", (0, 20))),
    (
        Skipped("train", "猫", ".heic", "not decoded", 18),
        Skipped("test", "猫", ".heic", "not decoded", 1),
        Skipped("", "", "notes/", "not a split", 0),
    ),
    (Duplicates("test", "train", 1, (("test/a.png", "train/b.png"),)),),
    verified=20,
)


def test_a_terminal_gets_aligned_columns_with_totals() -> None:
    assert inventory_text(INVENTORY).splitlines()[:6] == [
        "data",
        "  folder pictures: 2 classes",
        "  class  train  test  skipped",
        "  ant    1,200     0",
        "  猫         2    20       19",  # as wide as two letters
        "  all    1,202    20       19",
    ]


def test_a_notebook_gets_the_same_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """There, rich shows an output of its own and bold text, unless it is told not to."""
    before = inventory_text(INVENTORY)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert inventory_text(INVENTORY) == before


def test_lines_below_the_table() -> None:
    assert inventory_lines(INVENTORY) == [
        "train: pictures/train; test: pictures/test",
        "skipped, not decoded: 19 .heic (train/猫 18, test/猫 1)",
        "skipped, not a split: notes/",
        "copies: 1 of 20 test images is an exact copy of train images (test/a.png = train/b.png): test scores favour "
        "models that memorise them; delete all but one of each.",
        "verified: all 20 test images can be decoded and fit those of train (no model saw a label)",
    ]
    assert "copies across splits: not searched for" in inventory_text(replace(INVENTORY, duplicates=None))
    assert "verified: 5 of 20" in inventory_text(replace(INVENTORY, verified=5))


def test_a_few_copies_are_not_urgent() -> None:
    assert copies_sentences(INVENTORY, min_share=0.05)
    assert not copies_sentences(INVENTORY, min_share=0.06)
    assert not copies_sentences(None)


def test_of_many_classes_a_terminal_shows_the_smallest_and_the_report_all() -> None:
    names = tuple(f"class {number}" for number in range(1000))
    many = Inventory("arrays x", names, (SplitInventory("train", "", tuple(range(2000, 1000, -1))),))
    text = inventory_text(many).splitlines()
    assert text[1] == "  arrays x: 1000 classes of 1,001 to 2,000 train images; the 12 smallest (all are in the report)"
    assert [line.split()[:2] for line in text[3:15]] == [["class", str(number)] for number in range(988, 1000)]
    assert len(inventory_table(many).rows) == 1001
