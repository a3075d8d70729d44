"""What two states of data and code have in common, and how a difference is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ralr_tune.analysis.identity import differences, merged, mixed_versions
from ralr_tune.records import Identity, Inventory, SourceFile, SplitInventory


def inventory(*, classes: tuple[str, ...] = ("cat", "dog"), source: str = "folder pets", **splits: Any) -> Inventory:
    """Each split as counts, or as (counts, digest)."""
    given = {"train": ((4, 4), "a"), "test": ((2, 2), "b")} | splits
    rows = [SplitInventory(name, "", counts, digest=digest) for name, (counts, digest) in given.items()]
    return Inventory(source, classes, tuple(rows))


SAME = Identity(inventory(), (SourceFile("task.model", "module nets", ("text", "tree")),))


@pytest.mark.parametrize(
    ("now", "line"),
    [
        (inventory(classes=("cat", "cow", "dog"), train=((4, 4, 4), "x")), "2 classes before, 3 now: cow added"),
        (inventory(classes=("ant", "dog")), "2 classes before, 2 now: ant added, cat removed"),
        (
            inventory(classes=("dog", "cat")),
            "the classes have another order: dog, cat instead of cat, dog",
        ),
        (inventory(train=((4, 1), "a")), "train: 8 images before, 5 now (dog 4 -> 1)"),
        (inventory(test=((2, 2), "c")), "test: the contents or the order of its 4 images changed"),
        (inventory(validation=((1, 1), None)), "validation images: some now"),
    ],
)
def test_each_difference_of_the_data_is_one_line(now: Inventory, line: str) -> None:
    assert differences(SAME, replace(SAME, data=now)) == [line]


def test_a_vanished_split_and_many_classes_are_said_briefly() -> None:
    assert differences(replace(SAME, data=inventory(validation=((1, 1), None))), SAME) == [
        "validation images: none now"
    ]
    names = tuple(f"c{number}" for number in range(9))
    many = inventory(classes=names, train=((1,) * 9, None), test=((1,) * 9, None))
    fewer = inventory(classes=names, train=((0,) * 9, None), test=((1,) * 9, None))
    (line,) = differences(Identity(many), Identity(fewer))
    assert line.endswith("(c0 1 -> 0, c1 1 -> 0, c2 1 -> 0, c3 1 -> 0, c4 1 -> 0 and 4 more)")


def test_what_is_not_known_is_not_compared() -> None:
    for other in (
        Identity(),
        replace(SAME, files=()),
        replace(SAME, data=inventory(train=((4, 4), None), test=((2, 2), None))),
        replace(SAME, files=(SourceFile("task.model", "module nets"),)),
        replace(SAME, data=inventory(source="folder elsewhere/pets")),
    ):
        assert differences(SAME, other) == differences(other, SAME) == []


@pytest.mark.parametrize(
    ("files", "lines"),
    [
        ([("module nets", ("text 2", "tree"))], []),  # comments changed
        ([("module nets", ("text",))], []),  # another version of Python
        ([("module nets", ("text 2", "tree 2"))], ["module nets (task.model) changed"]),
        (
            [("module nets", ("text",)), ("module nets.blocks", ("x",))],
            ["module nets.blocks (task.model) is new"],
        ),
        ([("module other", ("text",))], ["module nets (task.model) is not used any more",
                                         "module other (task.model) is new"]),
    ],
)  # fmt: skip
def test_code_differs_if_no_digest_is_shared(files: list[tuple[str, tuple[str, ...]]], lines: list[str]) -> None:
    now = replace(SAME, files=tuple(SourceFile("task.model", *file) for file in files))
    assert differences(SAME, now) == lines


def test_merging_fills_what_was_unknown_and_keeps_the_rest() -> None:
    early = Identity(inventory(train=((4, 4), None)), (SourceFile("task.pretrained", "weights w.pth"),), late=3)
    late = Identity(inventory(source="elsewhere"), (SourceFile("task.pretrained", "weights w.pth", ("d",)),))
    both = merged(early, late)
    assert both.data == inventory()
    assert (both.files, both.late) == (late.files, 3)
    assert merged(both, late) == both
    assert merged(Identity(), late) == late
    assert merged(both, Identity()) == both


def test_mixed_versions_are_found() -> None:
    ran: list[dict[str, str]] = [{"torch": "2.11", "numpy": "2"}, {"torch": "2.14", "numpy": "2"}]
    first = merged(Identity(versions=(ran[0],)), Identity(versions=(ran[0],)))
    assert mixed_versions(first) == mixed_versions(None) == {}
    both = merged(first, Identity(versions=(ran[1],)))
    assert mixed_versions(both) == {"torch": ["2.11", "2.14"]}
    assert merged(both, Identity(versions=(ran[0],))) == both
