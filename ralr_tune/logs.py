"""Warnings of libraries go to the log, not to the user's terminal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)


@contextmanager
def warnings_to_log() -> Iterator[None]:
    """Inside, Python warnings are collected; on leaving, each is logged at level INFO."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")  # once a place: a warning in every step would be a long list
        try:
            yield
        finally:
            for warning in caught:
                logger.info("%s:%s: %s", warning.filename, warning.lineno, warning.message)
