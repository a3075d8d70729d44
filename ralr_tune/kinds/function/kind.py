"""The function kind of task: a Python function, in a process that trains trial after trial."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ralr_tune.child.kind import ProgramKind, ProgramTask
from ralr_tune.child.served import ServedPrograms
from ralr_tune.kinds.function import checks
from ralr_tune.kinds.function.section import FunctionSection
from ralr_tune.kinds.function.server import server_command
from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.contradictions import Contradiction, Problem
from ralr_tune.studyfile.imports import Import
from ralr_tune.studyfile.kind import TaskSummary

if TYPE_CHECKING:
    from ralr_tune.studyfile.exported import Exported


class FunctionKind(ProgramKind):
    """A function of the user's."""

    name = "function"
    section = FunctionSection
    substitutes = {
        "target": "module:function",
        "metric": {"name": "value", "direction": "maximize"},
    }

    def share(self, section: FunctionSection) -> ServedPrograms:
        return ServedPrograms(server_command(section.target), variables=section.variables, reuse=section.reuse)

    def programs(self, task: ProgramTask, values: Mapping[str, Any]) -> ServedPrograms:
        shared: ServedPrograms = task.shared
        return shared

    def imports(self, section: FunctionSection) -> tuple[Import, ...]:
        return (Import("task.target", section.target),)

    def missing(self, section: Any) -> Iterator[Contradiction]:
        yield from checks.missing_module(section)
        yield from super().missing(section)

    def problems(self, spec: StudySpec, *, imports: bool = True, sample: int) -> Iterable[Problem]:
        return checks.problems(spec, imports=imports)

    def script(self, exported: Exported) -> str:
        from ralr_tune.child.script import function_script

        section = exported.task
        assert isinstance(section, FunctionSection)
        return function_script(exported, section.target)

    def examine(self, section: FunctionSection) -> TaskSummary:
        return TaskSummary(f"the function {section.target} reads its own data")


KIND = FunctionKind()
