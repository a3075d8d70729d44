"""Lets the tests of this room import `synthetic_study`, which stands with the tests of analysis."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))
