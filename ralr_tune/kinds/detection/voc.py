"""Reads annotations in the Pascal VOC format: one XML file an image.

Layouts that are recognised, at `data.path` or in its only subfolder VOCdevkit/VOCyear:

    Annotations/*.xml, JPEGImages/, ImageSets/Main/{train,val,test,trainval}.txt     as in the challenge
    train/, valid/, test/ with XML files and images                                  as tools export it
    XML files and images in any folders, without splits                              split here, by a seed

Source: Everingham et al., "The PASCAL Visual Object Classes Challenge 2007 Development Kit", section 6.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from ralr_tune.errors import DataError
from ralr_tune.images.files import listed, short_reason
from ralr_tune.images.layout import split_of
from ralr_tune.kinds.detection.annotated import Faults, Source
from ralr_tune.kinds.detection.cleaning import RawObject, RawPicture, class_names
from ralr_tune.kinds.detection.files import PictureFinder, opened_folder, picture_size, walk_files
from ralr_tune.kinds.detection.splits import Splits, make_source

CORNERS = ("xmin", "ymin", "xmax", "ymax")

LISTS = {"train": "train", "val": "validation", "test": "test"}
"""Files of ImageSets/Main by split. trainval is their union, and train if only that and test exist."""


def read_voc(path: str, *, one_based: bool = True) -> Source:
    """The data set below `path`. `one_based`: the first pixel is 1, and a box includes its last pixel, as in VOC.

    Raises DataError, naming files and boxes.
    """
    root = _year_folder(opened_folder(path))
    found = _listed_files(root) if (root / "ImageSets" / "Main").is_dir() else _files_by_folder(root)
    finder = PictureFinder(root)

    def part_of(split: str, files: Sequence[Path]) -> list[RawPicture]:
        faults = Faults()
        raw = [each for file in files if (each := _read_annotation(file, finder, split, one_based, faults)) is not None]
        faults.check()
        return raw

    return make_source(Splits(found, part_of, class_names), where=str(root))


def _year_folder(root: Path) -> Path:
    """The folder with Annotations/: this one, VOCdevkit/VOCyear or VOCyear."""
    if (root / "Annotations").is_dir():
        return root
    years = [
        each for each in sorted([*root.glob("VOC*"), *root.glob("VOCdevkit/*")]) if (each / "Annotations").is_dir()
    ]
    if len(years) > 1:
        raise DataError(f"{root}: several data sets: {listed([str(each) for each in years])}; give one as data.path")
    return years[0] if years else root


def _listed_files(root: Path) -> Mapping[str, Sequence[Path]]:
    """The annotation files of each split, by the lists of ImageSets/Main."""
    folder = root / "ImageSets" / "Main"
    found = {split: folder / f"{name}.txt" for name, split in LISTS.items() if (folder / f"{name}.txt").is_file()}
    if "train" not in found and (folder / "trainval.txt").is_file():
        found["train"] = folder / "trainval.txt"
    if "train" not in found:
        raise DataError(f"{folder}: needs train.txt or trainval.txt, with the names of the images")
    return {split: [root / "Annotations" / f"{name}.xml" for name in _names_in(file)] for split, file in found.items()}


def _names_in(file: Path) -> Iterator[str]:
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        if words := line.split():
            yield words[0]


def _files_by_folder(root: Path) -> Mapping[str, Sequence[Path]]:
    """The annotation files of each split, by the folders of `root`; all as "train" if they denote none."""
    named = {split: each for each in sorted(root.iterdir()) if each.is_dir() and (split := split_of(each.name))}
    if "train" in named:
        return {split: _xml_files(folder) for split, folder in named.items()}
    return {"train": _xml_files(root)}


def _xml_files(folder: Path) -> list[Path]:
    """Raises DataError if there are none, or if images have no annotation."""
    files = [path for path in walk_files(folder) if path.suffix.lower() == ".xml"]
    if not files:
        raise DataError(f"{folder}: contains no annotations; must contain one .xml file for each image")
    annotated = {path.stem for path in files}
    faults = Faults()
    for picture in PictureFinder(folder).paths():
        if picture.stem not in annotated:
            faults.add(str(picture), "no annotation; an image without objects needs an .xml file without <object>")
    faults.check()
    return files


def _read_annotation(
    file: Path, finder: PictureFinder, split: str, one_based: bool, faults: Faults
) -> RawPicture | None:
    try:
        root = ElementTree.parse(file).getroot()
    except FileNotFoundError:
        faults.add(str(file), "missing annotation")
        return None
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        faults.add(str(file), f"not a readable XML file: {short_reason(error)}")
        return None
    name = (root.findtext("filename") or "").strip()
    picture = finder.find(name or file.stem, split=split, near=file.parent)
    if isinstance(picture, str):
        by_stem = finder.find(file.stem, split=split, near=file.parent)  # <filename> is often left from another tool
        picture = picture if isinstance(by_stem, str) else by_stem
    if isinstance(picture, str):
        faults.add(str(file), picture)
        return None
    objects = [_object(each, number, one_based) for number, each in enumerate(root.iter("object"), 1)]
    for each in objects:
        if isinstance(each, str):
            faults.add(str(file), each)
    good = [each for each in objects if isinstance(each, RawObject)]
    width, height = _size(root) or picture_size(str(picture))
    return RawPicture(str(picture), width, height, good, str(file))


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    """(width, height) as annotated; None if that is missing or 0, which some tools write."""
    found = [_number(root.findtext(f"size/{side}")) for side in ("width", "height")]
    width, height = (None if each is None else round(each) for each in found)
    return (width, height) if width and height and width > 0 and height > 0 else None


def _object(element: ElementTree.Element, number: int, one_based: bool) -> RawObject | str:
    """One object, or what is wrong with it."""
    where = f"box {number}"
    name = (element.findtext("name") or "").strip()
    if not name:
        return f"{where}: has no class (<name>)"
    texts = [element.findtext(f"bndbox/{corner}") for corner in CORNERS]
    numbers = [_number(text) for text in texts]
    if any(each is None for each in numbers):
        given = ", ".join(f"{corner} = {text}" for corner, text in zip(CORNERS, texts, strict=True))
        return f"{where}: {given}: must be four numbers"
    x1, y1, x2, y2 = (each for each in numbers if each is not None)
    # two equal ends would be a box of one pixel: a slip of the mouse; numbers up to 1 are shares, which are refused
    if one_based and x2 > x1 and y2 > y1 and max(x2, y2) > 1:
        x1, y1 = x1 - 1, y1 - 1
    difficult = (element.findtext("difficult") or "").strip() == "1"
    return RawObject(name, (x1, y1, x2, y2), difficult=difficult, where=where)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
