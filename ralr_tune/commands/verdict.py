"""The answer of a study as it stands, for those who watch from afar: nothing is written."""

from __future__ import annotations

from ralr_tune.analysis.card import Card, make_card
from ralr_tune.analysis.facts import study_facts
from ralr_tune.analysis.next_step import Typed
from ralr_tune.search.interim import plan_of
from ralr_tune.store.database import Storage
from ralr_tune.store.reading import read_study, stored_spec


def stored_card(storage: Storage, study: str) -> Card:
    """The verdict card of the newest generation; its next step names no commands. Raises StorageError."""
    record = read_study(storage, study)
    return make_card(study_facts(record, plan=plan_of(stored_spec(record))), Typed(run="", status=""))
