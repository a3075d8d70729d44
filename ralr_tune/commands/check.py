"""`check` and `studies`: validate and list study files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import reduce
from itertools import takewhile
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter, create_model

from ralr_tune.commands.locate import find_file, locate, opened, study_files
from ralr_tune.commands.problems import SAMPLE, problems, refuse
from ralr_tune.errors import StudyFileError, UsageError
from ralr_tune.invocation import command
from ralr_tune.records import Inventory
from ralr_tune.search.budget import budget_sentence, split_at_once
from ralr_tune.store.location import storage_url
from ralr_tune.studyfile import StudySpec, load_study_file, models, parse_study, registry
from ralr_tune.studyfile.contradictions import Problem
from ralr_tune.studyfile.imports import imports_of, refuse_imports
from ralr_tune.studyfile.reading import Reading, read_study_file
from ralr_tune.studyfile.sections import StudyFile

if TYPE_CHECKING:
    from ralr_tune.launch.devices import Place


def load(study: str, *, imports: bool = True, storage: str | None = None, out: Path | None = None) -> StudySpec:
    """The study file with a name or path; if there is none, the file that is stored under that name.

    Raises UsageError for an unknown name and, if `imports` is False, for a file that names code to import;
    StudyFileError for mistakes in a file; StorageError if the storage cannot be reached.
    """
    spec = _find_spec(study, storage, out, imports)
    if not imports:
        refuse_imports(imports_of(spec))
    return spec


def _find_spec(study: str, storage: str | None, out: Path | None, imports: bool) -> StudySpec:
    location = locate(study, storage=storage, out=out, imports=imports)
    if location.spec is not None:
        return location.spec
    from ralr_tune.store.studies import stored

    with opened(location) as database:
        return parse_study(stored(database, location.name).text, source=f"{study} (as stored)", imports=imports)


def check_study(
    study: str, *, imports: bool = True, fast: bool = False, storage: str | None = None, out: Path | None = None
) -> str:
    """One line that describes the study and its data, and one for each import that it names.

    Also tries the sampler, the pruner, every network and some of the data; with `fast`, neither network nor data.
    Raises what `load` raises, with every problem at once, and DataError.
    """
    spec = checked(study, imports=imports, fast=fast, storage=storage, out=out)
    if spec.needs_split:
        spec = split_at_once(spec) if fast else split_here(spec, _url(spec, storage, out))
    further = () if fast else (*start_notes(spec, storage, out), *spec.kind.notes(spec.task))
    return "\n".join([_summary(study, spec, fast), *_notes(spec), *further])


def split_here(spec: StudySpec, url: str, place: Place | None = None) -> StudySpec:
    """The study with the split of its budget: as it is stored, or as `run` would choose it with workers on this
    machine (at `place`, or on its first device). Raises what `with_split` raises."""
    if not spec.needs_split:
        return spec
    from ralr_tune.commands.budget import with_split, with_stored_split
    from ralr_tune.commands.timing import seconds_per_epoch
    from ralr_tune.launch.devices import places

    spec = with_stored_split(spec, url, force=True)
    return with_split(spec, lambda: seconds_per_epoch(spec, place or places("auto", None)[0]))


def checked(
    study: str, *, imports: bool = True, fast: bool = False, storage: str | None = None, out: Path | None = None
) -> StudySpec:
    """The study of a name or path, with nothing wrong in its file, its network and its data.

    Raises what `load` raises and DataError, with every problem at once.
    """
    reading = _read(study, imports, storage, out)
    spec = reading.spec
    found = [] if spec is None else problems(spec, imports=imports, fast=fast, left_out=reading.left_out)
    if spec is not None and spec.search.start_from is not None and not fast:
        found += _start_problems(spec, storage, out, reading)
    refuse(found, reading)
    return reading.valid()


def _start_problems(spec: StudySpec, storage: str | None, out: Path | None, reading: Reading) -> list[Problem]:
    from ralr_tune.commands.starting import start_problems

    found = start_problems(spec, _url(spec, storage, out))
    return [each for each in found if not each.depends_on(reading.left_out)]


def start_notes(spec: StudySpec, storage: str | None, out: Path | None) -> list[str]:
    """What the study takes from the earlier one that it starts from."""
    if spec.search.start_from is None:
        return []
    from ralr_tune.commands.starting import start_lines

    return start_lines(spec, _url(spec, storage, out))


def _url(spec: StudySpec, storage: str | None, out: Path | None) -> str:
    return storage_url(storage, spec, out or Path("runs") / spec.name)


def _read(study: str, imports: bool, storage: str | None, out: Path | None) -> Reading:
    path = find_file(study)
    if path is not None:
        return read_study_file(path, imports=imports)
    return Reading(study, (), _find_spec(study, storage, out, imports))


def _summary(study: str, spec: StudySpec, fast: bool) -> str:
    from ralr_tune.search.tasks import data_inventory

    arms = ", ".join(f"{arm} ({len(spec.space(arm))} dimensions)" for arm in spec.arms)
    summary = f"{find_file(study) or study}: valid. Study {spec.name}: {arms}; {_amount(spec)}"
    if fast:
        return f"{summary}. Neither network nor data were tried"
    data = data_inventory(spec, sample=SAMPLE)
    if data is None and spec.kind.downloads(spec.task):
        return f"{summary}. The data are not here: `run` will download them, and they were not tried"
    return summary + (_data_summary(data) if data else "")


def _amount(spec: StudySpec) -> str:
    search = spec.search
    if spec.needs_split:
        return f"a budget of {spec.file.search.budget}, which was not split: that needs a timing"
    if search.divided:
        divided = f"divided among {search.blocks} blocks of {search.trials}"
        return f"{search.trials * search.blocks} trials per arm, {divided}"
    return budget_sentence(spec) or f"{search.trials} trials per arm"


def _notes(spec: StudySpec) -> Iterator[str]:
    yield from map(str, imports_of(spec))
    yield from few_pairs_notes(spec)
    yield from divided_notes(spec)
    if all(arm.amplify is None and arm.noise is None for arm in spec.arms.values()):
        yield "No arm amplifies its learning rates: this study compares schedules without RALR"


def few_pairs_notes(spec: StudySpec) -> Iterator[str]:
    """That a study will hardly end with a verdict: an interval from so few pairs is wide, and its width a guess."""
    from ralr_tune.analysis.power import ENOUGH_PAIRS

    # each block of a divided search has seeds of its own, so that no two recipes are compared
    of_recipes = [] if spec.search.divided else [("confirm.seeds", spec.confirm.max_seeds)]
    of_schedules = [("search.blocks", spec.search.blocks)] if spec.search.blocks > 1 else []
    for key, pairs in of_recipes + of_schedules:
        if not spec.needs_split and pairs < ENOUGH_PAIRS:
            yield f"{key} = {pairs}: fewer than {ENOUGH_PAIRS} rarely give a verdict, and cannot show what they missed"


ENOUGH_TRIALS = 6
"""In a block of a divided search: with 3, 11% of verdicts on recorded curves claimed a difference of equal schedules,
with 6 it was 4 to 6% (LOG.md, 2026-11-30)."""


def divided_notes(spec: StudySpec) -> Iterator[str]:
    """What a divided search answers, and what it does not."""
    if spec.search.divided:
        yield (
            f"search.divided: the verdict on the schedules is about searches of {spec.search.trials} trials; each "
            "block is judged on its own seeds, so recipes of two blocks are not compared with each other"
        )
        if spec.search.trials < ENOUGH_TRIALS:
            yield (
                f"search.trials = {spec.file.search.trials}: {spec.search.trials} in each of {spec.search.blocks} "
                f"blocks; of fewer than {ENOUGH_TRIALS}, many find no good recipe, and the verdict says little else"
            )


def _data_summary(data: Inventory) -> str:
    """The data in a few words; `plan` shows the whole table."""
    sizes = ", ".join(f"{split.total:,} {split.name}" for split in data.splits)
    skipped = sum(each.count for each in data.skipped)
    return (
        f". Data {data.source}: {data.class_count}; {sizes} {data.unit}, {data.verified:,} of the test "
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
    """One line per study file: its name, its first sentence, and whether something is wrong with it or missing."""
    found = study_files()
    width = max(map(len, found), default=0)
    for name, path in found.items():
        parts = [_first_sentence(path)]
        try:
            load_study_file(path, imports=False)
        except StudyFileError as error:
            count = f"{len(error.problems)} problem{'s' if len(error.problems) > 1 else ''}"
            parts.append(f"({count}, see `{command('check', name)}`)")
        except UsageError:
            parts.append(f"(its task kind is imported code, see `{command('check', name)}`)")
        yield f"{name:<{width}}  {' '.join(filter(None, parts))}"


def _first_sentence(path: Path) -> str:
    """Of the comment that a study file begins with; it may be no text at all."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            lines = takewhile(lambda line: line.startswith("#"), file.read(4000).splitlines())
    except OSError:
        return ""
    comment = " ".join(line.strip("# ") for line in lines)
    sentence = re.match(r".+?[.?!](?=\s+[A-Z]|$)", comment)  # "et al. 2016" ends none
    return sentence[0] if sentence else comment
