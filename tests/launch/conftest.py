from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def quick_databases(quick_tables: None) -> None:
    """All tests here open databases; none tests how their tables are created."""
