from __future__ import annotations

from collections.abc import Callable

import pytest

from ralr_tune.studyfile import Configuration
from tests.training import trials


@pytest.fixture
def configure() -> Callable[..., Configuration]:
    return trials.configuration
