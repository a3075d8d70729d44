"""Imports what the report needs while the workers train, so that the answer comes sooner. How long that took forecasts
how long the report will take: both are mostly Python code in one process.
"""

from __future__ import annotations

import sys
import time
from importlib import import_module

from ralr_tune.search.forecast import REPORT_S

MODULES = ("ralr_tune.commands.report", "sklearn.ensemble", "optuna_dashboard")
"""All that takes long to import at the end of a run."""
IMPORT_S = 3.8
"""Seconds that these imports take alongside two workers on two cores when the end takes REPORT_S (see LOG.md)."""
MAX_WAITING = 4.0
"""The imports count for at most this multiple of their CPU time: a wait for the disk does not come back at the end (our
choice; two workers on two cores alone make it 1.7)."""
MAX_REPORT_S = 30.0
"""Longest time that is expected between the last epoch and the answer (our choice)."""

_took_s: list[float] = []


def preload() -> None:
    """Import the report's modules, unless they are there already. It blocks for seconds; call it in the main thread."""
    if all(name in sys.modules for name in MODULES):
        return
    began, used = time.monotonic(), time.thread_time()
    for name in MODULES:
        import_module(name)
    used = time.thread_time() - used
    _took_s.append(min(time.monotonic() - began, MAX_WAITING * used))


def report_s() -> float:
    """Expected seconds between the last epoch and the answer, from what the imports took on this machine."""
    return min(MAX_REPORT_S, REPORT_S * _took_s[0] / IMPORT_S) if _took_s else REPORT_S
