"""Where migrations begin: the tables ralr_tune_schema, ralr_tune_studies and ralr_tune_ledger of release 0.1."""

from __future__ import annotations

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Does nothing: a database of release 0.1 already has these tables."""
