"""Parallel text as read: layouts, compression, Unicode, and what is refused, with line numbers."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard
from pydantic import ValidationError

from ralr_tune.errors import DataError
from ralr_tune.kinds.translation.corpus import Corpus, read_all, read_corpus, take_inventory
from ralr_tune.kinds.translation.files import SPLITS, SplitName, read_pairs
from ralr_tune.kinds.translation.section import TranslationSection
from tests.kinds.translation.conftest import MakeText, pairs, tables, write_sides


def section(folder: Path, data: dict[str, Any] | None = None, **more: Any) -> TranslationSection:
    task = tables(folder)["task"] | more
    return TranslationSection.model_validate(task | {"data": task["data"] | (data or {})})


def corpus_of(found: TranslationSection, split: SplitName, seed: int) -> Corpus:
    return read_corpus(found.data, found.languages, split, seed=seed)


def read_all_of(found: TranslationSection) -> dict[SplitName, Corpus]:
    return read_all(found.data, found.languages, seed=0)


def in_folders(folder: Path, name: str = "validation") -> TranslationSection:
    for place, split in enumerate(("train", name, "test")):
        write_sides(folder / split, "part", pairs(10, place))
    return TranslationSection.model_validate(
        tables(folder)["task"] | {"data": {"source": "folder", "path": str(folder)}}
    )


def in_columns(folder: Path, *, header: bool = False, columns: Sequence[int] | None = (3, 2)) -> TranslationSection:
    folder.mkdir(exist_ok=True)
    for place, split in enumerate(SPLITS):
        lines = [f"{place}\t{target}\t{source}" for source, target in pairs(10, place)]
        (folder / f"{split}.tsv").write_text("\n".join([*(["id\tb\ta"] if header else []), *lines]))
    data: dict[str, Any] = {"source": "tsv", "path": str(folder), "columns": columns, "header": header}
    data |= {"train": ["train.tsv"], "validation": "validation.tsv", "test": "test.tsv"}
    return TranslationSection.model_validate(tables(folder)["task"] | {"data": data})


@pytest.mark.parametrize("made", [in_folders, in_columns, lambda folder: in_columns(folder, header=True),
                                  lambda folder: in_folders(folder, "dev")])  # fmt: skip
def test_all_layouts_give_the_same_pairs(tmp_path: Path, made: Callable[[Path], TranslationSection]) -> None:
    found = made(tmp_path)
    for place, split in enumerate(SPLITS):
        read = read_pairs(found.data, split, found.languages)
        assert list(zip(read.sources, read.targets, strict=True)) == pairs(10, place)


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".zst", zstandard.compress)])
def test_packed_files_are_found_under_the_same_name(make_text: MakeText, suffix: str, pack: Any) -> None:
    folder = make_text()
    for path in list(folder.iterdir()):
        Path(f"{path}{suffix}").write_bytes(pack(path.read_bytes()))
        path.unlink()
    read = read_pairs(section(folder).data, "train", ("xx", "yy"))
    assert list(zip(read.sources, read.targets, strict=True)) == pairs(60, 0)


def test_only_line_feeds_end_a_line_and_unicode_is_composed(make_text: MakeText) -> None:
    folder = make_text()
    one = "\ufeffa\u2028b\x85c\r\nde\u0301f\nno end of line"
    (folder / "val.xx").write_bytes(one.encode())
    (folder / "val.yy").write_bytes(b"1\n2\n3\n")
    assert list(read_pairs(section(folder).data, "validation", ("xx", "yy")).sources) == [
        "a\u2028b\x85c", "déf", "no end of line",
    ]  # fmt: skip
    raw = section(folder, {"unicode": "none"})
    assert read_pairs(raw.data, "validation", ("xx", "yy")).sources[1] == "de\u0301f"


def english(count: int) -> list[tuple[str, str]]:
    return [
        (f"the man is in the house with a dog {n}", f"der Mann ist mit dem Hund in dem Haus {n}") for n in range(count)
    ]


def packed(suffix: str, pack: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Packs the training sources and loses the end of the file."""

    def damage(folder: Path) -> None:
        (folder / f"train.xx{suffix}").write_bytes(pack((folder / "train.xx").read_bytes())[:-20])
        (folder / "train.xx").unlink()

    return damage


def with_carriage_returns(folder: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r"))


def swapped_everywhere(folder: Path) -> None:
    for name, count in (("train", 20), ("val", 5), ("test", 5)):
        write_sides(folder, name, english(count))
    for path in folder.iterdir():
        path.rename(path.with_suffix({".xx": ".de", ".yy": ".en"}[path.suffix]))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "misaligned": (
        lambda folder: (folder / "train.yy").write_text("one line\n"),
        r"train\.xx has 60 lines, .*train\.yy has 1: line n of one must be the translation",
    ),
    "one line too few": (
        lambda folder: (folder / "train.yy").write_text("ja\n" * 59),
        r"train\.xx has 60 lines, .*train\.yy has 59: line n of one",
    ),
    "one empty file": (
        lambda folder: (folder / "test.xx").write_text(""),
        r"test\.xx has 0 lines, .*test\.yy has 12: line n of one",
    ),
    "no pairs": (lambda folder: write_sides(folder, "val", []), r"the validation split has no pairs"),
    "empty sides": (
        lambda folder: write_sides(folder, "val", [*pairs(3, 5), ("", "x"), *pairs(1, 6), ("", "y")]),
        r"lines 4, 6: the source side of validation is empty there",
    ),
    "one side empty": (
        lambda folder: (folder / "train.xx").write_text("\n" * 60),
        r"of 60 training pairs none is left: an empty side \(60\)",
    ),
    "not UTF-8": (
        lambda folder: (folder / "test.xx").write_bytes(b"fine\nd\xff\n"),
        r"test\.xx, line 2: not UTF-8 \(byte 2\)",
    ),
    "UTF-16": (
        lambda folder: (folder / "test.xx").write_text("one\n" * 12, encoding="utf-16"),
        r"test\.xx: is UTF-16; must be UTF-8",
    ),
    "carriage returns": (with_carriage_returns, r"train\.xx: its lines end with carriage returns; must end with line"),
    "not gzip": (
        lambda folder: (folder / "train.xx").rename(folder / "train.xx.gz"),
        r"train\.xx\.gz: cannot be read: incomplete or damaged \(Not a gzipped file",
    ),
    "half a gzip": (
        packed(".gz", gzip.compress),
        r"train\.xx\.gz: cannot be read: incomplete or damaged \(.* ended before",
    ),
    "half a zstd": (
        packed(".zst", zstandard.compress),
        r"train\.xx\.zst: cannot be read: incomplete or damaged \(ends within a frame\)",
    ),
    "missing": (
        lambda folder: (folder / "test.yy").unlink(),
        r"data\.test: .*test\.yy: no such file, also not with \.gz or \.zst; there are test\.xx$",
    ),
    "equal sides": (
        lambda folder: write_sides(folder, "train", [(source, source) for source, _ in pairs(20, 1)]),
        r"20 of 20 train pairs have two equal sides",
    ),
    "swapped split": (
        lambda folder: write_sides(folder, "test", [(target, source) for source, target in pairs(20, 1)]),
        r"the two sides of test are swapped",
    ),
}
"""What is done to the text, and the message."""


@pytest.mark.parametrize("case", BROKEN)
def test_broken_text_is_refused_in_one_line(make_text: MakeText, case: str) -> None:
    folder, (damage, message) = make_text(), BROKEN[case]
    damage(folder)
    with pytest.raises(DataError, match=message) as refused:
        read_all_of(section(folder))
    assert "\n" not in str(refused.value)


def test_text_that_contradicts_the_study_is_refused(make_text: MakeText) -> None:
    folder = make_text()
    with pytest.raises(DataError, match=r"train\.en: no such file, .*; there are train\.xx, train\.yy$"):
        read_all_of(section(folder, languages=["en", "de"]))
    with pytest.raises(DataError, match=r"of 60 training pairs none is left: a side of more than 3 characters \(60\)"):
        read_all_of(section(folder, {"max_length": 3}))
    swapped_everywhere(folder)
    with pytest.raises(DataError, match=r"source side of train reads like en and the target side like de; swap task"):
        read_all_of(section(folder, languages=["de", "en"]))


@pytest.mark.parametrize(
    ("columns", "text", "message"),
    [
        ([3, 2], "1\ta\tb\n2\ta\n3\n", r"test\.tsv, lines 2, 3: not as many columns as line 1, which has 3"),
        ([3, 2], "1\ta\tb\n2\ta\tb\tb\n", r"test\.tsv, line 2: not as many columns as line 1"),
        ([1, 4], "1\ta\tb\n", r"test\.tsv, line 1: 3 columns; data\.columns = \[1, 4\]"),
        (None, "1\ta\tb\n", r"test\.tsv, line 1: 3 columns, not 2; give data\.columns"),
        (None, "a,b\n", r"test\.tsv, line 1: no tab"),
    ],
)
def test_tabs_too_many_or_too_few_are_refused_with_their_lines(
    tmp_path: Path, columns: list[int] | None, text: str, message: str
) -> None:
    found = in_columns(tmp_path, columns=columns)
    (tmp_path / "test.tsv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_pairs(found.data, "test", found.languages)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": ["train", "train"]}, "'train' is there twice"),
        ({"source": "tsv", "columns": [1, 1]}, "both are 1; must be two different ones"),
        ({"test": None}, "test"),
    ],
)
def test_contradictions_in_the_data_table_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        section(tmp_path, change)


def test_compressed_text_without_its_library_names_the_command(
    make_text: MakeText, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_text()
    (folder / "val.xx").rename(folder / "val.xx.zst")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(DataError, match=r"val\.xx\.zst: needs the package zstandard; type: .*ralr-tune\[translation\]"):
        read_pairs(section(folder).data, "validation", ("xx", "yy"))


def test_several_frames_of_a_compressed_file_are_joined(make_text: MakeText) -> None:
    folder = make_text(held_out=2)
    (folder / "val.xx").unlink()
    (folder / "val.xx.zst").write_bytes(zstandard.compress(b"one\n") + zstandard.compress(b"two\n"))
    assert list(read_pairs(section(folder).data, "validation", ("xx", "yy")).sources) == ["one", "two"]


def test_right_languages_are_accepted() -> None:
    from ralr_tune.kinds.translation.languages import looks_swapped

    sources, targets = zip(*english(20), strict=True)
    assert not looks_swapped(sources, targets, ("en", "de"))
    assert looks_swapped(targets, sources, ("en", "de"))
    assert not looks_swapped(targets, sources, ("en", "tlh"))


def test_skipped_training_pairs_and_copies_are_counted(make_text: MakeText) -> None:
    folder = make_text()
    write_sides(folder, "train", [("", "x"), *pairs(20, 0), ("long " * 30, "y")])
    write_sides(folder, "test", [pairs(20, 0)[3], *pairs(5, 9)])
    found = section(folder, {"max_length": 60})
    inventory = take_inventory(found, read_all_of(found))
    assert [(each.what, each.why, each.count) for each in inventory.skipped] == [
        ("pairs (line 1)", "an empty side", 1),
        ("pairs (line 22)", "a side of more than 60 characters", 1),
    ]
    assert [split.total for split in inventory.splits] == [20, 12, 6]
    assert inventory.duplicates is not None
    copies = next(each for each in inventory.duplicates if (each.split, each.of) == ("test", "train"))
    assert copies.count == 1
    assert copies.examples[0][0].startswith("test pair 1, ")
    assert copies.examples[0][1] == "train pair 4"


def test_the_limit_draws_a_seeded_subset_of_training_pairs_only(make_text: MakeText) -> None:
    folder = make_text()
    some = {limit: corpus_of(section(folder, {"limit": limit}), "train", 3).pairs for limit in (10, 20)}
    assert [len(each) for each in some.values()] == [10, 20]
    assert set(some[10].sources) <= set(some[20].sources)
    assert corpus_of(section(folder, {"limit": 10}), "train", 4).pairs.sources != some[10].sources
    assert len(corpus_of(section(folder, {"limit": 10}), "test", 3).pairs) == 12
