from __future__ import annotations

import pytest

from ralr_tune.report.words import duration, size


@pytest.mark.parametrize(
    ("count", "says"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (3.2 * 2**20, "3.2 MiB"),
        (5e12, "4.5 TiB"),
        (2e15, "1819.0 TiB"),
    ],
)
def test_bytes_in_words(count: float, says: str) -> None:
    assert size(count) == says


@pytest.mark.parametrize(("seconds", "says"), [(0.4, "0 s"), (200, "3 min 20 s"), (18_600, "5 h 10 min")])
def test_seconds_in_words(seconds: float, says: str) -> None:
    assert duration(seconds) == says
