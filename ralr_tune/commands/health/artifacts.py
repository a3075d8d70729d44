"""The store of a study's artifacts, if it has one: whether this machine can write and read it, and how fast."""

from __future__ import annotations

from collections.abc import Iterator

from ralr_tune.commands.health.check import Check, make_check
from ralr_tune.commands.locate import StudyLocation, opened
from ralr_tune.errors import RalrTuneError, UsageError
from ralr_tune.objects.opening import check_store
from ralr_tune.objects.url import parse_store
from ralr_tune.search.published import check_marker
from ralr_tune.store import artifacts

MAX_S = 1.0
"""A small object is written and read in less than this; every epoch waits for a larger one."""


def artifact_checks(location: StudyLocation) -> Iterator[Check]:
    """One check if the study was run with --artifacts; none otherwise, or if its database does not answer."""
    try:
        with opened(location) as database:
            place = artifacts.place_of(database, location.name)
    except RalrTuneError:  # the check of the database says so
        return
    if place is None:
        return
    try:
        took = check_store(parse_store(place.url))
        check_marker(place)
    except UsageError as error:
        yield Check("artifacts", "problem", str(error), "workers here cannot start; those that train wait for it")
        return
    found = f"{place.url}/{place.folder}: a small object is written and read in {1000 * took:.0f} ms"
    yield make_check(
        "artifacts", found, warning="use a store that is closer: every epoch waits" if took > MAX_S else ""
    )
