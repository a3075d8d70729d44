"""The study file: what a user asks, checked at the door.

`values` says what a key may hold (fixed, range, choice), `sections` draws the file's tables, `configuration` is one
point of an arm's space, `study` gives the file its meaning. `problems` turns everything that is wrong with a key into
lines, `contradictions` finds the keys that do not go together, `reading` tells both at once, `changes` compares two
files. What differs from one kind of task to the next comes from the kind (kind.py); `models` puts it in its place.
"""

from __future__ import annotations

from ralr_tune.studyfile.configuration import AmplifyConfig, Configuration
from ralr_tune.studyfile.reading import load_study_file, parse_study
from ralr_tune.studyfile.study import StudySpec

__all__ = ["AmplifyConfig", "Configuration", "StudySpec", "load_study_file", "parse_study"]
