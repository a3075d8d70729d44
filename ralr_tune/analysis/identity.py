"""Whether two states of a study's data and code are the same, and what differs. Pure.

What is not known yet on one side is not compared: contents are hashed while they are first decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ralr_tune.records import Identity, Inventory, SourceFile, SplitInventory

MAX_NAMED = 5
"""Classes that a line names."""


def differences(before: Identity, now: Identity) -> list[str]:
    """One line for each difference; none if both may be the same state."""
    data = [] if before.data is None or now.data is None else list(_data_differences(before.data, now.data))
    return [*data, *_file_differences(before.files, now.files)]


def merged(before: Identity, now: Identity) -> Identity:
    """`before` with what was not known yet; `now` must not differ."""
    files = {(file.key, file.name): file for file in now.files}
    known = [file if file.digests else files.get((file.key, file.name), file) for file in before.files]
    versions = dict.fromkeys(map(_frozen, (*before.versions, *now.versions)))
    return replace(
        before,
        data=now.data if before.data is None else _merged_data(before.data, now.data),
        files=tuple(known) if before.files else now.files,
        versions=tuple(map(dict, versions)),
    )


def mixed_versions(identity: Identity | None) -> dict[str, list[str]]:
    """What the study's trials ran with in more than one version: versions by package, in the order of their workers."""
    found: dict[str, dict[str, None]] = {}
    for versions in identity.versions if identity else ():
        for package, version in versions.items():
            found.setdefault(package, {})[version] = None
    return {package: list(versions) for package, versions in found.items() if len(versions) > 1}


def _frozen(versions: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(versions.items()))


# ---------------------------------------------------------------- data


def _data_differences(before: Inventory, now: Inventory) -> Iterator[str]:
    if before.classes != now.classes:
        yield _class_difference(before.classes, now.classes)
        return  # counts by class cannot be compared
    splits, splits_now = ({split.name: split for split in each.splits} for each in (before, now))
    for name in dict.fromkeys([*splits, *splits_now]):
        if name not in splits or name not in splits_now:
            yield f"{name} {now.unit}: {'none' if name not in splits_now else 'some'} now"
        elif splits[name].counts != splits_now[name].counts:
            yield _count_difference(splits[name], splits_now[name], now)
        elif _differ(splits[name].digest, splits_now[name].digest):
            yield f"{name}: the contents or the order of its {splits[name].total:,} {now.unit} changed"


def _class_difference(before: tuple[str, ...], now: tuple[str, ...]) -> str:
    added, removed = ([name for name in one if name not in set(other)] for one, other in ((now, before), (before, now)))
    if not added and not removed:
        return f"the classes have another order: {_named(now)} instead of {_named(before)}"
    parts = [f"{_named(added)} added"] * bool(added) + [f"{_named(removed)} removed"] * bool(removed)
    return f"{len(before)} classes before, {len(now)} now: {', '.join(parts)}"


def _count_difference(before: SplitInventory, now: SplitInventory, inventory: Inventory) -> str:
    changed = [
        f"{name} {old:,} -> {new:,}"
        for name, old, new in zip(inventory.classes, before.counts, now.counts, strict=True)
        if old != new
    ]
    return f"{now.name}: {before.total:,} {inventory.unit} before, {now.total:,} now ({_named(changed)})"


def _named(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def _differ(before: str | None, now: str | None) -> bool:
    return before is not None and now is not None and before != now


def _merged_data(before: Inventory, now: Inventory | None) -> Inventory:
    if now is None:
        return before
    digests = {split.name: split.digest for split in now.splits}
    splits = tuple(replace(split, digest=split.digest or digests.get(split.name)) for split in before.splits)
    return replace(before, splits=splits)


# ---------------------------------------------------------------- code and weights


def _file_differences(before: tuple[SourceFile, ...], now: tuple[SourceFile, ...]) -> Iterator[str]:
    """None if one side has no files at all: they were not read there."""
    if not before or not now:
        return
    files, files_now = ({(file.key, file.name): file for file in each} for each in (before, now))
    for key in dict.fromkeys([*files, *files_now]):
        if key not in files_now:
            yield f"{_label(files[key])} is not used any more"
        elif key not in files:
            yield f"{_label(files_now[key])} is new"
        elif not _same(files[key], files_now[key]):
            yield f"{_label(files[key])} changed"


def _label(file: SourceFile) -> str:
    return f"{file.name} ({file.key})"


def _same(before: SourceFile, now: SourceFile) -> bool:
    return not before.digests or not now.digests or bool(set(before.digests) & set(now.digests))
