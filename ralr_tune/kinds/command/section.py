"""The [task] table of kind "command"."""

from __future__ import annotations

from ralr_tune.child.section import ProgramSection, SomeWords, Words


class CommandSection(ProgramSection):
    """[task] kind = "command": any program trains; it gets its parameters in its command line or from a file."""

    command: SomeWords
    """The program and its arguments, with placeholders such as `{lr}`, relative to the folder in which `run` starts."""
    resume: Words = ()
    """Arguments to append if there is a checkpoint."""
    test: Words = ()
    """Arguments to append when only the test metric is wanted."""
    files: SomeWords
    """The program's own files, as names and patterns: changed ones are refused or begin a new generation."""
    shell: bool = False
    """Whether /bin/sh runs the words of the command, joined by spaces."""

    def patterns(self) -> tuple[str, ...]:
        return self.files
