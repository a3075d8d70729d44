"""`check` and `studies`: validate and list study files."""

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
from ralr_tune.records import Inventory
from ralr_tune.studyfile import StudySpec, load_study_file, models, parse_study, registry
from ralr_tune.studyfile.imports import imports as imported
from ralr_tune.studyfile.imports import refuse_imports
from ralr_tune.studyfile.sections import StudyFile

SAMPLE = 100
"""Test images that `check` decodes (our choice: a second or two); `doctor`, `plan` and `run` decode all."""


def load(study: str, *, imports: bool = True, storage: str | None = None, out: Path | None = None) -> StudySpec:
    """The study file with a name or path; if there is none, the file that is stored under that name.

    Raises UsageError for an unknown name and, if `imports` is False, for a file that names code to import;
    StudyFileError for mistakes in a file; StorageError if the storage cannot be reached.
    """
    spec = _find_spec(study, storage, out, imports)
    if not imports:
        refuse_imports(spec.kind, spec.task)
    return spec


def _find_spec(study: str, storage: str | None, out: Path | None, imports: bool) -> StudySpec:
    location = locate(study, storage=storage, out=out, imports=imports)
    if location.spec is not None:
        return location.spec
    from ralr_tune.store.studies import stored

    with opened(location) as database:
        return parse_study(stored(database, location.name).text, source=f"{study} (as stored)", imports=imports)


def check_study(study: str, *, imports: bool = True, storage: str | None = None, out: Path | None = None) -> str:
    """One line that describes the study and its data, and one for each import that it names.

    Also creates the pruner and a sampler and decodes some of the test data. Raises what `load` raises, and DataError.
    """
    from ralr_tune.search.samplers import make_pruner, make_sampler
    from ralr_tune.search.tasks import data_inventory

    spec = load(study, imports=imports, storage=storage, out=out)
    make_pruner(spec)
    make_sampler(spec, next(iter(spec.arms)), 1, 0)
    arms = ", ".join(f"{arm} ({len(spec.space(arm))} dimensions)" for arm in spec.arms)
    summary = f"{find_file(study) or study}: valid. Study {spec.name}: {arms}; {spec.search.trials} trials per arm"
    data = data_inventory(spec, sample=SAMPLE)
    return "\n".join([summary + (_data_summary(data) if data else ""), *map(str, imported(spec.kind, spec.task))])


def _data_summary(data: Inventory) -> str:
    """The data in a few words; `plan` shows the whole table."""
    sizes = ", ".join(f"{split.total:,} {split.name}" for split in data.splits)
    skipped = sum(each.count for each in data.skipped)
    return (
        f". Data {data.source}: {len(data.classes)} classes; {sizes} {data.unit}, {data.verified:,} of the test "
        f"{data.unit} decoded{f'; {skipped:,} skipped (`plan` shows which)' if skipped else ''}"
    )


def study_schema() -> dict[str, Any]:
    """The JSON schema of study files, for editors that complete and validate TOML."""
    union: Any = reduce(or_, map(_model_of, registry.names()))
    return TypeAdapter(union).json_schema()


def _model_of(kind: str) -> type[StudyFile]:
    """The model of a study file whose [task] has this kind."""
    found = registry.find(kind)
    kind_field: Any = (Literal[kind], ...)
    section: Any = (create_model(found.section.__name__, __base__=found.section, kind=kind_field), ...)
    return create_model("StudyFile", __base__=models.study_file(found), task=section)


def list_studies() -> Iterator[str]:
    """One line per study file: its name, and its first comment or what is wrong with it."""
    for path in study_files():
        try:
            text = load_study_file(path, imports=False).text
            summary = text.lstrip().splitlines()[0].lstrip("# ") if text.lstrip().startswith("#") else ""
        except StudyFileError as error:
            summary = f"({len(error.problems)} problems, see `{command('check', path.stem)}`)"
        except UsageError:
            summary = f"(its task kind is imported code, see `{command('check', path.stem)}`)"
        yield f"{path.stem:<24} {summary}"
