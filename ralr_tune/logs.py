"""Send the warnings of libraries to the log instead of the user's terminal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)


@contextmanager
def warnings_to_log() -> Iterator[None]:
    """Collect Python warnings inside the `with` block and log each at level INFO when it ends."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")  # once per code location: a warning in every step would flood the log
        try:
            yield
        finally:
            for warning in caught:
                logger.info("%s:%s: %s", warning.filename, warning.lineno, warning.message)
