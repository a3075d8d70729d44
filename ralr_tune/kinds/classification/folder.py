"""Class folders of images: PATH/train/CLASS/*.jpg with test/ and optionally val/ next to train/, or PATH/CLASS/*.jpg.

Splits are recognised by their usual names (see layout.py). A folder whose name is ambiguous is refused, not guessed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps

from ralr_tune.errors import DataError
from ralr_tune.images.files import Images, digest64, listed, short_reason
from ralr_tune.images.layout import (
    USUAL_NAMES,
    SplitName,
    is_hidden,
    mentioned_splits,
    mentions_split,
    names_a_split,
    split_of,
)
from ralr_tune.images.pictures import check_pixels, eight_bits, open_picture, stack
from ralr_tune.kinds.classification.samples import (
    MAX_CLASSES,
    Contents,
    Samples,
    Source,
    all_samples,
    with_test_split_from_train,
)
from ralr_tune.kinds.classification.stratify import Rows
from ralr_tune.kinds.classification.tree import HIDDEN, Walk, entries, hidden_as, listing, walk
from ralr_tune.records import Skipped
from ralr_tune.studyfile.problems import one_line

DECODING = "folder 2"
"""Must change whenever the same file is decoded to other pixels, so that cached images are decoded again."""

ALLOWED = "allowed: .jpg, .png, .webp, .tiff and every other format that Pillow decodes"


def read(path: str, *, size: int | None = None, max_pixels: int | None = None) -> Source:
    """The data set under `path`. The class list is train's; files below test/ are opened when its images are loaded.

    `max_pixels`: maximum of one image as decoded; with `size`, a JPEG may be decoded at a fraction of its size.
    Raises DataError if a folder is missing, empty or ambiguous, or if validation or test have a class that train does
    not have.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(f"data.path = {path!r}: no such folder (resolved to {root.absolute()})")
    splits, skipped = _layout(root)
    classes = _class_names(splits.get("train", root))
    tree = partial(_tree, root, classes, partial(_load, size=size, max_pixels=max_pixels))
    if not splits:
        whole = with_test_split_from_train(classes, tree(root), where=f"data.path = {path!r}")
        return replace(whole, skipped=(*whole.skipped, *skipped), every_class=(str(root), ALLOWED))
    test, validation = splits.get("test", root / "test"), splits.get("validation")
    _check_classes(test, classes)
    return Source(
        classes,
        train=tree(splits["train"], "train"),
        test=lambda: tree(test, "test"),
        validation=None if validation is None else tree(validation, "validation"),
        skipped=skipped,
        every_class=(str(splits["train"]), ALLOWED),
    )


# ---------------------------------------------------------------- splits and classes


def _layout(root: Path) -> tuple[dict[SplitName, Path], tuple[Skipped, ...]]:
    """Folders of the splits (none if the folders are classes), and what is skipped. Raises DataError if ambiguous."""
    names, skipped = _folders(root)
    by_split: dict[SplitName, list[str]] = {}
    for name in names:
        if split := split_of(name):
            by_split.setdefault(split, []).append(name)
    if "train" not in by_split or _is_class_named_train(root, names, by_split):
        _refuse_splits_as_classes(root, names)
        return {}, skipped
    if several := [found for found in by_split.values() if len(found) > 1]:
        raise DataError(f"{root}: {listed(several[0])} name the same split; rename or move all but one of them")
    known = {found[0] for found in by_split.values()}
    others = {name: walk(str(root / name)) for name in names if name not in known}
    if unclear := [name for name, found in others.items() if found.files and mentions_split(name)]:
        raise _unclear(root, unclear)
    no_splits = tuple(Skipped("", "", f"{name}/", "not a split", len(found.files)) for name, found in others.items())
    return {split: root / found[0] for split, found in by_split.items()}, (*skipped, *no_splits)


def _is_class_named_train(root: Path, names: Sequence[str], by_split: Mapping[SplitName, list[str]]) -> bool:
    """Whether "train" is a class (a vehicle): no other name is a split's, and all folders contain only images."""
    train, *more = by_split["train"]
    others = [name for name in names if name != train]
    only_split = not more and len(by_split) == 1 and bool(others) and not any(map(names_a_split, others))
    return only_split and all(_contains_only_images(root / name) for name in names)


def _contains_only_images(folder: Path) -> bool:
    return not _folders(folder)[0] and bool(walk(str(folder)).files)


def _refuse_splits_as_classes(root: Path, names: Sequence[str]) -> None:
    """Raises DataError if folders that look like splits would become classes.

    bullet_train, train_station and test_tube are classes: a split's word in a name counts only if all names denote
    splits, or if folders of different splits contain folders.
    """
    if names and all(map(names_a_split, names)):
        raise _unclear(root, names)
    nested = [name for name in names if mentions_split(name) and _folders(root / name)[0]]
    if len(mentioned_splits(nested)) > 1:
        raise _unclear(root, nested)


def _unclear(root: Path, names: Sequence[str]) -> DataError:
    look = "looks like a split" if len(names) == 1 else "look like splits"
    return DataError(
        f"{root}: {listed(names)} {look}, but it is not clear which; train/ and test/ are required, val/ is "
        f"optional (allowed names: {USUAL_NAMES}): rename the folders of the splits, and move the others elsewhere"
    )


def _folders(folder: Path) -> tuple[list[str], tuple[Skipped, ...]]:
    """Names of the subfolders, sorted, and what is skipped."""
    names, skipped = [], Counter[tuple[str, str]]()
    for entry in entries(str(folder)):
        if is_hidden(entry.name):
            skipped[hidden_as(entry), HIDDEN] += 1
        elif entry.is_dir():
            names.append(entry.name)
        else:
            skipped[os.path.splitext(entry.name)[1].lower() or "no ending", "in no class folder"] += 1
    return sorted(names), _skipped(skipped, "", "")


def _skipped(counts: Mapping[tuple[str, str], int], split: str, group: str) -> tuple[Skipped, ...]:
    return tuple(Skipped(split, group, what, reason, count) for (what, reason), count in counts.items())


def _class_names(folder: Path) -> tuple[str, ...]:
    names, _ = _folders(folder)
    if not 2 <= len(names) <= MAX_CLASSES:
        found = f"{len(names)} folders" if names else "none"
        raise DataError(
            f"{folder}: must contain one folder of images per class, for 2 to {MAX_CLASSES} classes; found {found}"
            f"{_deeper(folder, names)}"
        )
    return tuple(names)


def _deeper(folder: Path, names: Sequence[str]) -> str:
    """A hint if an archive was unpacked into a subfolder."""
    inside = _folders(folder / names[0])[0] if len(names) == 1 else []
    return f"; did you mean data.path = {str(folder / names[0])!r}, which contains {listed(inside)}?" if inside else ""


def _check_classes(folder: Path, classes: tuple[str, ...]) -> None:
    if not folder.is_dir():
        raise DataError(
            f"{folder}: missing; a folder with train/ also needs test/, with the same class folders (if you "
            "have only validation data, call it test/: a share of train is then held out for validation)"
        )
    if unknown := sorted(set(_folders(folder)[0]) - set(classes)):
        raise DataError(
            f"{folder}: has classes that train/ does not have: {listed(unknown)}; allowed: {listed(classes)}"
        )


# ---------------------------------------------------------------- the images of a split


def _tree(root: Path, classes: tuple[str, ...], decode: partial[Images], folder: Path, split: str = "") -> Samples:
    """The images below one folder of the data set `root`."""
    _check_classes(folder, classes)
    parts = [walk(str(folder / name)) if (folder / name).is_dir() else Walk() for name in classes]
    files = [file for part in parts for file in part.files]
    if not files:
        raise DataError(f"{folder}: contains no images; {ALLOWED}")
    labels = np.repeat(np.arange(len(classes)), [len(part.files) for part in parts])
    known = listing(files, str(root))
    outside = [replace(each, split=split) for each in _folders(folder)[1]] if split else []
    inside = [each for name, part in zip(classes, parts, strict=True) for each in _skipped(part.skipped, split, name)]
    return all_samples(
        labels,
        partial(decode, folder, [path for path, _, _ in files], known.contents),
        stamp=f"{DECODING}|{PIL.__version__}|{decode.keywords['size']}|{known.stamp}",
        listing=known,
        origin=f"{folder}/",
        skipped=(*outside, *inside),
        in_threads=True,
    )


def _load(
    folder: Path, files: list[str], contents: Contents, rows: Rows, *, size: int | None, max_pixels: int | None
) -> Images:
    pictures = _pictures(files, contents, rows, size, max_pixels)
    return stack(pictures, count=len(rows), mode="RGB", size=size, where=str(folder))


def _pictures(
    files: list[str], contents: Contents, rows: Rows, size: int | None, max_pixels: int | None
) -> Iterator[Image.Image]:
    """The images of these rows; the bytes that are decoded are also those that are hashed."""
    for row in rows:
        file = files[row]
        try:
            content = Path(file).read_bytes()
            contents.add(row, digest64(content))
            with open_picture(BytesIO(content)) as picture:
                if size is not None:
                    picture.draft("RGB", (2 * size, 2 * size))  # a large JPEG is decoded at a fraction of its size
                check_pixels(picture, one_line(file), max_pixels)
                form = picture.format  # the transposed copy has no format
                yield eight_bits(ImageOps.exif_transpose(picture), one_line(file), form).convert("RGB")
        except DataError:
            raise
        except Exception as error:  # Pillow's decoders raise errors of many types for damaged bytes
            raise DataError(f"{one_line(file)}: not a readable image: {short_reason(error)}") from error
