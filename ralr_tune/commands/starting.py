"""The earlier study of `search.start_from`: found and read before anything is created, and once when it is taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ralr_tune.analysis.starting import start_sentences
from ralr_tune.commands.locate import existing
from ralr_tune.errors import StorageError, UsageError
from ralr_tune.nearest import nearest
from ralr_tune.records import StudyRecord, WarmStart
from ralr_tune.search.warm_start import begun_with, warm_start
from ralr_tune.store import studies
from ralr_tune.store.address import parse_address, sqlite_url
from ralr_tune.store.database import Storage
from ralr_tune.store.location import DATABASE
from ralr_tune.store.reading import read_study
from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.contradictions import Problem
from ralr_tune.studyfile.problems import shown


def taken(storage: Storage, spec: StudySpec) -> WarmStart | None:
    """What the study starts from: as when it began, otherwise from the earlier study as it is now.

    None without `search.start_from`. Raises UsageError if there is no such study, or if nothing of it fits. Callers
    hold the lock of the study.
    """
    if spec.search.start_from is None:
        return None
    return begun_with(storage, spec) or warm_start(spec, _earlier(spec, storage.url))


def start_problems(spec: StudySpec, url: str) -> Iterator[Problem]:
    """Why the study cannot start from the earlier one. A storage that does not answer is no problem of the file."""
    try:
        start_lines(spec, url)
    except UsageError as error:
        yield Problem(str(error), (("search", "start_from"), ("arms",), ("training",), ("task",)))


def start_lines(spec: StudySpec, url: str) -> list[str]:
    """What the study takes from the earlier one, what not, and what differs; raises UsageError as `taken` does."""
    if spec.search.start_from is None:
        return []
    try:
        start = _begun_at(spec, url) or warm_start(spec, _earlier(spec, url))
    except StorageError as error:
        return [f"search.start_from = {shown(spec.search.start_from)}: not checked: {error}"]
    return list(start_sentences(start, spec.search.blocks))


def _begun_at(spec: StudySpec, url: str) -> WarmStart | None:
    with existing(url, force=True) as opened:
        if opened is None or spec.name not in studies.names(opened):
            return None
        return begun_with(opened, spec)


def _earlier(spec: StudySpec, url: str) -> StudyRecord:
    """The earlier study in the study's own storage, otherwise in runs/STUDY/study.db, where `run` puts it."""
    name, known = str(spec.search.start_from), list[str]()
    usual = sqlite_url((Path("runs") / name / DATABASE).absolute())
    for place in dict.fromkeys([url, usual]):
        with existing(place, force=True) as opened:
            known += studies.names(opened) if opened is not None else ()
            if opened is not None and name in known:
                return read_study(opened, name, curves=False)
    in_folders = (file.parent.name for file in sorted(Path("runs").glob(f"*/{DATABASE}")))
    others = [each for each in dict.fromkeys([*known, *in_folders]) if each != spec.name]
    close = nearest(name, others)
    hint = f"did you mean {shown(close[0])}?" if close else f"stored: {', '.join(others) or 'no other study'}"
    where = f"neither in {parse_address(url).masked} nor in runs/{name}"
    raise UsageError(f"search.start_from = {shown(name)}: no such study, {where}; {hint}")
