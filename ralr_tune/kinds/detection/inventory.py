"""The inventory of a data set: boxes and images by class and split, what was left out, copies, verified test images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from ralr_tune.errors import DataError
from ralr_tune.images.files import digest64, listed, stamp
from ralr_tune.kinds.detection.annotated import Cleaned, Part, Picture, Source
from ralr_tune.kinds.detection.loading import PictureLoader
from ralr_tune.kinds.detection.splits import hold_out
from ralr_tune.machine.cores import available_cores
from ralr_tune.machine.locks import exclusive
from ralr_tune.records import Duplicates, Inventory, Skipped, SplitInventory
from ralr_tune.studyfile.problems import one_line
from ralr_tune.tasks.inventory import load, save

FORMAT = "detection inventory 1"
MAX_EXAMPLES = 3
"""Pairs of copies that are listed by name."""

Parts = Mapping[str, Part]


def take_inventory(
    source: Source,
    loader: PictureLoader,
    *,
    name: str,
    validation: float,
    seed: int,
    cache: Path | None = None,
    sample: int | None = None,
    contents: bool = False,
) -> Inventory:
    """The inventory, with the test images decoded: all of them, or `sample` of them, evenly spread.

    `name`: kind and place of the data. `validation`, `seed`: the study's. `cache`: a folder that remembers inventories
    by the names, sizes and modification times of all files. `contents`: with digests of all splits. Raises DataError.
    """
    parts = dict(_parts(source, validation, seed))
    known = _stamp(source, parts) if cache is not None and sample is None else None
    if known is None or cache is None:
        return _completed(_build(source, loader, name, parts, sample), parts, contents)
    with exclusive(cache.parent, ".inventory.lock"):
        stored = load(cache, known)
        found = _completed(stored or _build(source, loader, name, parts, sample), parts, contents)
        if found != stored:
            save(found, cache, known)
    return found


def _parts(source: Source, validation: float, seed: int) -> Iterator[tuple[str, Part]]:
    """The splits as trials use them: train does not include what is held out of it for validation."""
    if source.validation is None:
        held_out, rest = hold_out(source.train, validation, seed)
        yield "train", rest
        yield "validation", replace(held_out, cleaned={})  # counted once, for train
    else:
        yield "train", source.train
        yield "validation", source.validation
    yield "test", source.test()


def _stamp(source: Source, parts: Parts) -> str | None:
    total = hashlib.sha256("|".join([FORMAT, *source.classes]).encode(errors="backslashreplace"))
    for name, part in parts.items():
        if (files := _listing(part)) is None:
            return None
        total.update(f"|{name}|{files}|{_objects_digest(part.pictures)}".encode())
    return total.hexdigest()


def _listing(part: Part) -> str | None:
    return stamp([*part.annotations, *(picture.file for picture in part.pictures)])


def _objects_digest(pictures: Sequence[Picture]) -> str:
    total = hashlib.sha256()
    for picture in pictures:
        objects = picture.objects
        total.update(f"{picture.width}x{picture.height}|{len(objects)}|".encode())
        for array in (objects.corners, objects.labels, objects.crowd, objects.difficult):
            total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def _completed(found: Inventory, parts: Parts, contents: bool) -> Inventory:
    """With a digest of every split, if `contents`."""
    if not contents:
        return found
    splits = [each if each.digest else replace(each, digest=_digest(parts[each.name])) for each in found.splits]
    return replace(found, splits=tuple(splits))


def _digest(part: Part) -> str:
    """A hash of the bytes and the objects of all images, in their order. Raises DataError."""
    total = hashlib.sha256(_objects_digest(part.pictures).encode())
    for picture in part.pictures:
        total.update(_content(picture).to_bytes(8, "little"))
    return total.hexdigest()


def _content(picture: Picture) -> int:
    try:
        return digest64(Path(picture.file).read_bytes())
    except OSError as error:
        raise DataError(f"{one_line(picture.file)}: cannot be read: {error.strerror or error}") from error


def _build(source: Source, loader: PictureLoader, name: str, parts: Parts, sample: int | None) -> Inventory:
    return Inventory(
        source=one_line(name),
        classes=tuple(map(one_line, source.classes)),
        splits=tuple(_split(split, part, len(source.classes)) for split, part in parts.items()),
        skipped=tuple(_left_out(parts)),
        duplicates=None if sample is not None else _duplicates(parts),
        verified=_verify(parts["test"], loader, sample),
        notes=tuple(_notes(source.classes, parts)),
    )


def _split(split: str, part: Part, classes: int) -> SplitInventory:
    holders = np.zeros(classes, dtype=np.int64)
    for picture in part.pictures:
        holders[np.unique(picture.objects.labels[~picture.objects.crowd])] += 1
    return SplitInventory(
        split,
        one_line(part.origin),
        tuple(part.boxes(classes).tolist()),
        _listing(part),
        holders=tuple(holders.tolist()),
        samples=len(part),
    )


REASONS = {"empty": "no area", "outside": "outside of their image"}


def _left_out(parts: Parts) -> Iterator[Skipped]:
    for split, part in parts.items():
        for name, found in part.cleaned.items():
            for key, why in REASONS.items():
                if count := getattr(found, key):
                    yield Skipped(split, one_line(name), "boxes", why, count)


def _notes(classes: Sequence[str], parts: Parts) -> Iterator[str]:
    counts: Mapping[str, Callable[[Part], int]] = {
        "boxes that reach beyond their image, clipped to it": _clipped,
        "crowds, not trained on": lambda part: sum(int(p.objects.crowd.sum()) for p in part.pictures),
        "difficult objects, not evaluated": lambda part: sum(int(p.objects.difficult.sum()) for p in part.pictures),
        "images without objects": lambda part: sum(not len(p.objects) for p in part.pictures),
    }
    for text, count in counts.items():
        found = {split: count(part) for split, part in parts.items()}
        if any(found.values()):
            yield f"{text}: {', '.join(f'{split} {number:,}' for split, number in found.items() if number)}"
    for split, part in parts.items():
        missing = [name for name, boxes in zip(classes, part.boxes(len(classes)), strict=True) if not boxes]
        if missing:
            yield f"classes without an object in {split}, which no mean includes: {listed(missing)}"


def _clipped(part: Part) -> int:
    return sum(part.cleaned.values(), Cleaned()).clipped


def _verify(test: Part, loader: PictureLoader, sample: int | None) -> int:
    """The number of decoded images. Raises DataError, naming all of them that cannot be decoded."""
    count = len(test) if sample is None else min(sample, len(test))
    chosen = [test.pictures[place] for place in np.linspace(0, len(test) - 1, count).astype(int)]
    check_decoded(chosen, loader)
    return count


def check_decoded(pictures: Sequence[Picture], loader: PictureLoader) -> None:
    """Raises DataError, naming all images that cannot be decoded or have another size than annotated."""

    def problem(picture: Picture) -> str | None:
        try:
            loader.load(picture)
        except DataError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(available_cores()) as pool:
        wrong = [each for each in pool.map(problem, pictures) if each is not None]
    if wrong:
        more = f" (and {len(wrong) - 1} more: {listed(wrong[1:])})" if len(wrong) > 1 else ""
        raise DataError(f"{wrong[0]}{more}")


def _duplicates(parts: Parts) -> tuple[Duplicates, ...]:
    """Exact copies of images across splits: sizes of files are compared first, then hashes."""
    sizes = {split: {p.file: os.stat(p.file).st_size for p in part.pictures} for split, part in parts.items()}
    found = []
    for one, other in combinations(parts, 2):
        shared = set(sizes[one].values()) & set(sizes[other].values())
        first = {_content(p): p.file for p in parts[one].pictures if sizes[one][p.file] in shared}
        pairs = [
            (p.file, first[key])
            for p in parts[other].pictures
            if sizes[other][p.file] in shared and (key := _content(p)) in first
        ]
        if pairs:
            examples = tuple((one_line(copy), one_line(same)) for copy, same in pairs[:MAX_EXAMPLES])
            found.append(Duplicates(other, one, len(pairs), examples))
    return tuple(found)
