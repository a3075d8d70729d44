"""What `check` says about a function without training it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from ralr_tune.child.kind import content_of, source_paths
from ralr_tune.kinds.function.section import FunctionSection
from ralr_tune.kinds.function.server import server_command, target_import
from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.code import module_files
from ralr_tune.studyfile.contradictions import Contradiction, Problem
from ralr_tune.studyfile.problems import shown

_APPLIES_SCHEDULE = re.compile(rb"\.(schedule|amplify|multiplier|rate|factor)\b|ralr_tune\.integrations")


def missing_module(section: FunctionSection) -> Iterator[Contradiction]:
    """A module that cannot be found."""
    named = target_import(section.target)
    if named.folder() is None:
        line = f"task.target = {shown(section.target)}: no module {named.module} in {Path.cwd()} or among the installed"
        yield Contradiction(line, (("task", "target"),))


def problems(spec: StudySpec, *, imports: bool) -> Iterable[Problem]:
    """A schedule that the function does not apply; with `imports`, a function that cannot be imported."""
    section = spec.task
    assert isinstance(section, FunctionSection)
    yield from _unapplied_schedule(spec, section)
    if imports:
        tried = subprocess.run(
            server_command(section.target, check=True), capture_output=True, text=True, check=False, errors="replace"
        )
        if tried.returncode:
            lines = [line for line in tried.stderr.splitlines() if line.strip()] or ["its process printed nothing"]
            yield Problem(lines[-1].removeprefix("error: "), (("task", "target"),))


def _unapplied_schedule(spec: StudySpec, section: FunctionSection) -> Iterator[Problem]:
    """All arms would then train the same."""
    amplified = any(arm.amplify is not None or arm.noise is not None for arm in spec.arms.values())
    constant = all(spec.schedule(arm).name == "constant" for arm in spec.arms)
    paths = [*module_files(target_import(section.target)).values(), *(path for _, path in source_paths(section))]
    if (constant and not amplified) or any(_APPLIES_SCHEDULE.search(content_of(path)) for path in paths):
        return
    line = (
        f"task.target = {shown(section.target)}: its code does not apply the schedule, so all arms would train the "
        "same; call `trial.schedule(optimizer)`, or `trial.amplify(optimizer, scheduler)`, or use "
        "`trial.multiplier(epoch)`"
    )
    yield Problem(line, (("task", "target"), ("schedule",), ("arms",)))
