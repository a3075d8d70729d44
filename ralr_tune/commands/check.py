"""`check` and `studies`: study files, looked at and listed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, create_model

from ralr_tune.commands.locate import find_file, locate, opened, study_files
from ralr_tune.errors import StudyFileError, UsageError
from ralr_tune.invocation import command
from ralr_tune.studyfile import StudySpec, load_study_file, models, parse_study, registry
from ralr_tune.studyfile.imports import imports as imported
from ralr_tune.studyfile.imports import refuse_imports
from ralr_tune.studyfile.sections import StudyFile


def load(study: str, *, imports: bool = True, storage: str | None = None, out: Path | None = None) -> StudySpec:
    """The study file behind a name or path; where there is none, the file that the storage keeps under that name.

    Raises UsageError for an unknown name and, without `imports`, for a file that names code to import; StudyFileError
    for a file's mistakes, StorageError without a storage.
    """
    spec = _found(study, storage, out, imports)
    if not imports:
        refuse_imports(spec.kind, spec.task)
    return spec


def _found(study: str, storage: str | None, out: Path | None, imports: bool) -> StudySpec:
    where = locate(study, storage=storage, out=out, imports=imports)
    if where.spec is not None:
        return where.spec
    from ralr_tune.store.studies import stored

    with opened(where) as database:
        return parse_study(stored(database, where.name).text, source=f"{study} (as stored)", imports=imports)


def check_study(study: str, *, imports: bool = True, storage: str | None = None, out: Path | None = None) -> str:
    """What the study is, in one line, and one more for code that it names; Optuna's options are tried, too."""
    from ralr_tune.search.samplers import make_pruner, make_sampler

    spec = load(study, imports=imports, storage=storage, out=out)
    make_pruner(spec)
    make_sampler(spec, next(iter(spec.arms)), 1, 0)
    arms = ", ".join(f"{arm} ({len(spec.space(arm))} dimensions)" for arm in spec.arms)
    says = f"{find_file(study) or study}: valid. Study {spec.name}: {arms}; {spec.search.trials} trials an arm"
    return "\n".join([says, *map(str, imported(spec.kind, spec.task))])


def study_schema() -> dict[str, Any]:
    """The JSON schema of study files, for editors that complete and check TOML."""
    either: Any = reduce(or_, map(_file_of, registry.names()))
    return TypeAdapter(either).json_schema()


def _file_of(kind: str) -> type[StudyFile]:
    """The model of a study file whose [task] says that it is of this kind."""
    found = registry.find(kind)
    said: Any = (Literal[kind], ...)
    section: Any = (create_model(found.section.__name__, __base__=found.section, kind=said), ...)
    return create_model("StudyFile", __base__=models.study_file(found), task=section)


def list_studies() -> Iterator[str]:
    """A line for each study file found: name, file, and its first comment or what is wrong with it."""
    for path in study_files():
        try:
            text = load_study_file(path, imports=False).text
            says = text.lstrip().splitlines()[0].lstrip("# ") if text.lstrip().startswith("#") else ""
        except StudyFileError as error:
            says = f"({len(error.problems)} problems, see `{command('check', path.stem)}`)"
        except UsageError:
            says = f"(its kind of task is code to import, see `{command('check', path.stem)}`)"
        yield f"{path.stem:<24} {says}"
