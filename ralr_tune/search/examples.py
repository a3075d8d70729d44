"""What a kind keeps of each arm's winner for the report: OUT/examples/KEY/ARM.json.

It is made once for each arm, of the first judged seed of the first block's winner, directly after its last epoch.
Judged runs train on the train split, so that validation data are new to the network; no test data are involved. The
file is an addition to the report: if it cannot be made, written or read, the log says so and the study continues.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from ralr_tune.errors import RalrTuneError
from ralr_tune.machine.files import opened, write
from ralr_tune.objects.opening import open_store, reached
from ralr_tune.objects.stores import Missing, StoreError
from ralr_tune.objects.url import parse_store
from ralr_tune.records import Row
from ralr_tune.search.session import Session
from ralr_tune.store import artifacts
from ralr_tune.store.database import Storage
from ralr_tune.tasks.trial import Trial

log = logging.getLogger(__name__)

MAX_BYTES = 16 * 2**20
"""Size of one arm's file (our choice): 40,000 short translations, or 100 small images."""


def keep_examples(session: Session, row: Row, trial: Trial) -> None:
    """Writes the arm's file if this judged run is the one that the report shows."""
    if not _is_shown(row):
        return
    path = _path(session.out, session.ledger.key, row.arm)
    try:
        content = session.spec.kind.examples(session.tasks.of(_searched(session, row)), trial)
        if content is None:
            return
        text = json.dumps({"seed": row.seed, "source": row.source, "content": content}).encode()
        if len(text) > MAX_BYTES:
            raise ValueError(f"{len(text):,} bytes; allowed: {MAX_BYTES:,}")
        write(path, text)
        if session.published is not None:
            session.published.background.write(_object(row), text)
    except Exception as error:  # also of a kind that is not this project's
        log.warning("%s: no examples for the report: %s: %s", path, type(error).__name__, error)


def fetch_examples(storage: Storage, study: str, out: Path, key: str, rows: Sequence[Row]) -> None:
    """Brings the files of the current winners that other machines wrote from the study's store, if it has one."""
    place = artifacts.place_of(storage, study)
    lacking = [
        row for row in rows if _is_shown(row) and row.state == "done" and _read(_path(out, key, row.arm), row) is None
    ]
    if place is None or not lacking:
        return
    try:
        store = open_store(parse_store(place.url), place.folder)
        for row in lacking:
            with suppress(Missing):  # this kind shows none
                write(_path(out, key, row.arm), reached(partial(store.get, _object(row))))
    except (StoreError, RalrTuneError) as error:
        log.warning("artifacts %s: no examples for the report: %s", place, error)


def load_examples(out: Path, key: str, rows: Iterable[Row]) -> dict[str, Mapping[str, Any]]:
    """By arm: what `Kind.examples` returned for the current winner; arms without a usable file are left out."""
    found = {row.arm: _read(_path(out, key, row.arm), row) for row in rows if _is_shown(row)}
    return {arm: content for arm, content in found.items() if content is not None}


def _is_shown(row: Row) -> bool:
    return (row.stage, row.role, row.block, row.ordinal) == ("judge", "best", 1, 0)


def _object(row: Row) -> str:
    return f"examples/row{row.id}.json"


def _searched(session: Session, row: Row) -> Mapping[str, Any]:
    return session.spec.configuration(row.arm, row.params).task


def _path(out: Path, key: str, arm: str) -> Path:
    return out / "examples" / key / f"{arm}.json"


def _read(path: Path, row: Row) -> Mapping[str, Any] | None:
    """The content of a file that belongs to this row: an earlier winner's file stays until it is replaced."""
    try:
        with opened(path, MAX_BYTES) as file:
            stored = json.loads(file.read(MAX_BYTES))
        if (stored["seed"], stored["source"]) != (row.seed, row.source):
            return None
        content: Mapping[str, Any] = stored["content"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning("%s cannot be used: %s", path, error)
        return None
    return content
