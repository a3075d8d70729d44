"""Reads annotations in the COCO format: one JSON file for many images.

Layouts that are recognised at `data.path`:

    annotations/instances_train2017.json, instances_val2017.json, train2017/, val2017/     as published
    train/_annotations.coco.json, valid/, test/, each with its images                      as tools export it
    one JSON file and images in any folders                                                split here, by a seed

Source: cocodataset.org, "Data format".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from ralr_tune.errors import DataError
from ralr_tune.images.files import listed, short_reason
from ralr_tune.kinds.detection.annotated import Faults, Source
from ralr_tune.kinds.detection.cleaning import SURE, RawObject, RawPicture
from ralr_tune.kinds.detection.files import PictureFinder, opened_folder, picture_size, split_in, walk_files
from ralr_tune.kinds.detection.splits import Splits, make_source

BoxFormat = Literal["xywh", "xyxy"]

TABLES = ("images", "annotations", "categories")


def read_coco(path: str, *, box_format: BoxFormat = "xywh") -> Source:
    """The data set below `path`. `box_format`: COCO's own is corner and size; some tools write two corners.

    Raises DataError, naming files and boxes.
    """
    root = opened_folder(path)
    finder, reader = PictureFinder(root), _Reader(box_format)

    def part_of(split: str, files: Sequence[Path]) -> list[RawPicture]:
        return [picture for file in files for picture in reader.read(file, finder, split)]

    return make_source(Splits(_files_by_split(root), part_of, reader.class_names), where=str(root))


def _files_by_split(root: Path) -> Mapping[str, Sequence[Path]]:
    files = [path for path in walk_files(root) if path.suffix.lower() == ".json"]
    if any("instances" in path.stem.lower() for path in files):  # next to captions and key points
        files = [path for path in files if "instances" in path.stem.lower()]
    if not files:
        raise DataError(f"{root}: contains no .json file with annotations")
    if len(files) == 1:
        return {"train": files}
    found: dict[str, list[Path]] = {}
    for path in files:
        if (split := split_in(path, root)) is not None:
            found.setdefault(split, []).append(path)
    several = [split for split, paths in found.items() if len(paths) > 1]
    if "train" not in found or several:
        reason = f"several for {listed(several)}" if several else "none is for train"
        names = listed([path.relative_to(root).as_posix() for path in files])
        raise DataError(
            f"{root}: {len(files)} .json files, {reason}: {names}; must be one a split, named like "
            "instances_train2017.json or in a folder like train/"
        )
    return found


class _Reader:
    """Reads the files of one data set; the first one that is read is that of the training data."""

    def __init__(self, box_format: BoxFormat) -> None:
        self._format = box_format
        self._categories: dict[int, str] | None = None

    def class_names(self, raw: Sequence[RawPicture]) -> tuple[str, ...]:
        """The categories that the training data use, by their ids: tools add ones without objects."""
        used = {each.name for picture in raw for each in picture.objects}
        assert self._categories is not None
        return tuple(name for _, name in sorted(self._categories.items()) if name in used)

    def read(self, file: Path, finder: PictureFinder, split: str) -> list[RawPicture]:
        content = _content(file)
        categories = _categories(file, content["categories"])
        if self._categories is None:
            self._categories = categories
        faults = Faults()
        images = _images(file, content["images"], faults)
        raws: list[tuple[int, RawObject]] = []
        for number, each in enumerate(content["annotations"], 1):
            found = _annotation(each, number, images, categories, self._format)
            if isinstance(found, str):
                faults.add(str(file), found)
            else:
                raws.append(found)
        faults.check()
        pictures = _pictures(file, images, raws, finder, split)
        if self._format == "xywh":
            _check_format(file, pictures)
        return pictures


def _content(file: Path) -> Mapping[str, list[Any]]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: not a readable JSON file: {short_reason(error)}") from error
    wrong = [key for key in TABLES if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if wrong:
        raise DataError(f"{file}: {listed(wrong)} missing; must be lists, as in COCO's instances files")
    return cast(Mapping[str, list[Any]], content)


def _categories(file: Path, entries: Sequence[Any]) -> dict[int, str]:
    faults, found = Faults(), dict[int, str]()
    for number, entry in enumerate(entries, 1):
        ident, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if type(ident) is not int or not isinstance(name, str) or not name:
            faults.add(str(file), f"category {number}: needs a whole number as id and a name")
        elif ident in found or name in found.values():
            faults.add(str(file), f"category {number}: id {ident} or name {name!r} occurs twice")
        else:
            found[ident] = name
    faults.check()
    return found


def _images(file: Path, entries: Sequence[Any], faults: Faults) -> dict[int, Mapping[str, Any]]:
    found: dict[int, Mapping[str, Any]] = {}
    for number, entry in enumerate(entries, 1):
        valid = isinstance(entry, dict) and type(entry.get("id")) is int and isinstance(entry.get("file_name"), str)
        if not valid:
            faults.add(str(file), f"image {number}: needs a whole number as id and a file_name")
        elif entry["id"] in found:
            faults.add(str(file), f"image {number}: id {entry['id']} occurs twice")
        else:
            found[entry["id"]] = entry
    return found


def _annotation(
    entry: Any, number: int, images: Mapping[int, Any], categories: Mapping[int, str], form: BoxFormat
) -> tuple[int, RawObject] | str:
    """(image id, object), or what is wrong with it."""
    if not isinstance(entry, dict):
        return f"annotation {number}: must be a table"
    where = f"annotation {entry.get('id', number)}"
    image: Any = entry.get("image_id")
    category: Any = entry.get("category_id")
    area: Any = entry.get("area")
    box = entry.get("bbox")
    if image not in images:
        return f"{where}: image_id {image!r} is not among the images"
    where = f"{where} ({images[image]['file_name']})"
    if category not in categories:
        return f"{where}: category_id {category!r} is unknown; allowed: {listed([str(each) for each in categories])}"
    if not isinstance(box, list) or len(box) != 4 or not all(_is_finite(value) for value in box):
        return f"{where}: bbox = {json.dumps(box)}: must be four numbers"
    one, two, three, four = map(float, box)
    corners = (one, two, one + three, two + four) if form == "xywh" else (one, two, three, four)
    size = float(area) if _is_finite(area) else 0.0
    name, crowd = categories[category], entry.get("iscrowd") in (1, True)
    return image, RawObject(name, corners, crowd=crowd, area=size, where=where)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _pictures(
    file: Path,
    images: Mapping[int, Mapping[str, Any]],
    objects: Sequence[tuple[int, RawObject]],
    finder: PictureFinder,
    split: str,
) -> list[RawPicture]:
    faults, found = Faults(), []
    by_image: dict[int, list[RawObject]] = {ident: [] for ident in images}
    for ident, each in objects:
        by_image[ident].append(each)
    for ident, entry in images.items():
        picture = finder.find(entry["file_name"], split=split, near=file.parent)
        if isinstance(picture, str):
            faults.add(str(file), picture)
            continue
        width, height = entry.get("width"), entry.get("height")
        if type(width) is not int or type(height) is not int or width < 1 or height < 1:
            width, height = picture_size(str(picture))
        found.append(RawPicture(str(picture), width, height, by_image[ident], str(file)))
    faults.check()
    return found


def _check_format(file: Path, pictures: Sequence[RawPicture]) -> None:
    """Raises DataError if the boxes are two corners instead of a corner and a size.

    Then most of them end outside of their image, and all of them make sense as corners.
    """
    boxes = [(each.corners, picture) for picture in pictures for each in picture.objects]
    beyond = sum(x2 > picture.width + 1 or y2 > picture.height + 1 for (_, _, x2, y2), picture in boxes)
    corners = all(
        x2 - 2 * x1 > 0 and x2 - x1 <= picture.width + 1 and y2 - 2 * y1 > 0 and y2 - y1 <= picture.height + 1
        for (x1, y1, x2, y2), picture in boxes
    )
    if len(boxes) >= SURE and beyond > len(boxes) / 4 and corners:
        first = next(each for picture in pictures for each in picture.objects)
        raise DataError(
            f"{file}: {first.where}: bbox: {beyond:,} of {len(boxes):,} boxes end outside of their image as "
            '[x, y, width, height], none as two corners; set data.box_format = "xyxy"'
        )
