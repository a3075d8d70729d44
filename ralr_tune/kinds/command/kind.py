"""The command kind of task: any program, which the worker starts for each trial."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ralr_tune.child.kind import ProgramKind, ProgramTask
from ralr_tune.child.plan import Start
from ralr_tune.child.single import SinglePrograms
from ralr_tune.kinds.command import checks
from ralr_tune.kinds.command.placeholders import command_line
from ralr_tune.kinds.command.section import CommandSection
from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.contradictions import Contradiction, Problem
from ralr_tune.studyfile.imports import Import
from ralr_tune.studyfile.kind import TaskSummary

if TYPE_CHECKING:
    from ralr_tune.studyfile.exported import Exported


class CommandKind(ProgramKind):
    """Any program, in a new process for each trial."""

    name = "command"
    section = CommandSection
    substitutes = {
        "command": ["true"],
        "files": ["*"],
        "metric": {"name": "value", "direction": "maximize"},
    }

    def programs(self, task: ProgramTask, values: Mapping[str, Any]) -> SinglePrograms:
        section: CommandSection = task.section
        return SinglePrograms(lambda start: _words(section, values, start), section.variables)

    def imports(self, section: CommandSection) -> tuple[Import, ...]:
        return (Import("task.command", " ".join(section.command), is_program=True),)

    def contradictions(self, spec: StudySpec) -> Iterator[Contradiction]:
        yield from checks.contradictions(spec)

    def missing(self, section: Any) -> Iterator[Contradiction]:
        yield from checks.missing_program(section)
        yield from super().missing(section)

    def problems(self, spec: StudySpec, *, imports: bool = True, sample: int) -> Iterable[Problem]:
        return checks.unread_schedule(spec)

    def script(self, exported: Exported) -> str:
        from ralr_tune.child.script import DEVICE, FOLDER, command_script, script_values

        values = script_values(exported)
        known = {**values["params"], **values, "epochs": exported.training.epochs, "device": DEVICE}
        section = exported.task
        assert isinstance(section, CommandSection)
        return command_script(exported, _words(section, known, Start("test", 1, Path(FOLDER), None)))

    def examine(self, section: CommandSection) -> TaskSummary:
        return TaskSummary(f"the program {section.command[0]} reads its own data")


def _words(section: CommandSection, values: Mapping[str, Any], start: Start) -> list[str]:
    """The command line of one start."""
    words = [*section.command, *(section.resume if start.checkpoint else ())]
    words += section.test if start.stage == "test" else ()
    checkpoint = start.checkpoint and str(start.checkpoint)
    of_start = {**vars(start), "folder": str(start.folder), "checkpoint": checkpoint}
    return command_line(words, {**values, **of_start}, in_shell=section.shell)


KIND = CommandKind()
