"""`check` and `studies`: study files, looked at and listed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ralr_tune.commands.locate import find_file, study_files, unknown
from ralr_tune.errors import StudyFileError, UsageError
from ralr_tune.spec import StudySpec, load_study_file
from ralr_tune.spec.sections import StudyFile


def load(study: str) -> StudySpec:
    """The study file behind a name or path. Raises UsageError for an unknown name, StudyFileError for its mistakes."""
    path = find_file(study)
    if path is None:
        raise UsageError(unknown(study))
    return load_study_file(path)


def check_study(study: str) -> str:
    """One line that says what the study is; Optuna's options are tried too."""
    from ralr_tune.search.samplers import make_pruner, make_sampler

    spec = load(study)
    make_pruner(spec)
    make_sampler(spec, next(iter(spec.arms)), 1, 0)
    arms = ", ".join(f"{arm} ({len(spec.space(arm))} dimensions)" for arm in spec.arms)
    return f"{find_file(study)}: valid. Study {spec.name}: {arms}; {spec.search.trials} trials an arm"


def study_schema() -> dict[str, Any]:
    """The JSON schema of study files, for editors that complete and check TOML."""
    return StudyFile.model_json_schema()


def list_studies() -> Iterator[str]:
    """A line for each study file found: name, file, and its first comment or what is wrong with it."""
    for path in study_files():
        try:
            text = load_study_file(path).text
            says = text.lstrip().splitlines()[0].lstrip("# ") if text.lstrip().startswith("#") else ""
        except StudyFileError as error:
            says = f"({len(error.problems)} problems, see `check {path.stem}`)"
        yield f"{path.stem:<24} {says}"
