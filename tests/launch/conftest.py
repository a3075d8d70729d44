from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def quick_databases(quick_tables: None) -> None:
    """All tests of this room open databases, none is about their tables."""
