"""The study file: the user's input, checked when it is read.

`values` defines the forms of a value (fixed, range, choice), `sections` the file's tables, `configuration` one point of
an arm's space, `study` the meaning of the file. `problems` formats validation errors of single keys, `checks`
finds keys that do not fit together, `reading` reports both at once, `changes` compares two files. Whatever depends on
the kind of task comes from the kind (kind.py); `models` builds the models with it.
"""

from __future__ import annotations

from ralr_tune.studyfile.configuration import AmplifyConfig, Configuration
from ralr_tune.studyfile.reading import load_study_file, parse_study
from ralr_tune.studyfile.study import StudySpec

__all__ = ["AmplifyConfig", "Configuration", "StudySpec", "load_study_file", "parse_study"]
