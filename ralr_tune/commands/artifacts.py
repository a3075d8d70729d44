"""`--artifacts`: where the checkpoints of a study are kept. Recorded with the study, so that every worker finds it."""

from __future__ import annotations

import logging
import os
import secrets

from ralr_tune.errors import UsageError
from ralr_tune.objects.opening import check_store, create_store
from ralr_tune.objects.url import OPTION, StoreUrl, parse_store
from ralr_tune.search.artifacts import ArtifactStore
from ralr_tune.search.published import MARKER, check_marker, open_published
from ralr_tune.store import artifacts, studies
from ralr_tune.store.artifacts import StoredPlace
from ralr_tune.store.database import Storage
from ralr_tune.store.ledger import Ledger

log = logging.getLogger(__name__)

_TOKEN_BYTES = 6


def checked_store(given: str | os.PathLike[str] | None, *, remote: bool) -> StoreUrl | None:
    """The store that `--artifacts` means; it is written, read and left as it was. Raises UsageError."""
    if given is None:
        return None
    url = parse_store(os.fspath(given), remote=remote)
    took = check_store(url)
    log.info("artifacts are kept in %s, where a small object takes %.0f ms", url, 1000 * took)
    return url


def record_store(storage: Storage, ledger: Ledger, url: StoreUrl | None) -> StoredPlace | None:
    """Record the store of a study, and return the recorded one: without `url`, an earlier `run` may have given it.

    Raises UsageError if trials resume from another store, or if the recorded one cannot be used.
    """
    with studies.study_lock(storage, ledger.study):
        stored = artifacts.place_of(storage, ledger.study)
        if stored is not None and url is not None and stored.url != str(url):
            _refuse_if_used(storage, ledger, stored, url)
            stored = None
        if stored is None and url is not None:
            stored = StoredPlace(str(url), f"{ledger.study}-{secrets.token_hex(_TOKEN_BYTES)}")
            create_store(url, stored.folder, MARKER)
            artifacts.set_place(storage, ledger.study, stored)
        elif stored is not None:
            check_marker(stored)
    return stored


def tidy(storage: Storage, ledger: Ledger, local: ArtifactStore) -> None:
    """Remove what killed workers left of rows that are done, in the out folder and in the study's store."""
    for each in (local, open_published(storage, local)):
        if each is not None:
            each.tidy(lambda: ledger.rows(curves=False))


def _refuse_if_used(storage: Storage, ledger: Ledger, stored: StoredPlace, url: StoreUrl) -> None:
    used = artifacts.valid(storage, ledger.study)
    held = [row for row in ledger.rows(curves=False) if row.state == "held"]
    if used or held:
        raise UsageError(
            f"{OPTION} {url}: study {ledger.study} keeps its artifacts in {stored.url}, from where "
            f"{max(len(used), len(held))} of its trials resume; leave {OPTION} out, or give that one"
        )
