"""The [task] table of kind "function"."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from ralr_tune.child.section import ProgramSection, Words
from ralr_tune.studyfile.imports import check_import_path
from ralr_tune.studyfile.values import problem


def _target(value: str) -> str:
    try:
        return check_import_path(value)
    except ValueError as error:
        raise problem(str(error)) from None


class FunctionSection(ProgramSection):
    """[task] kind = "function": a Python function of yours trains, in a process of its own."""

    target: Annotated[str, AfterValidator(_target)]
    """The function, `package.module:name`; it is called with a `ralr_tune.Trial`."""
    files: Words = ()
    """Files that belong to the function, as names and patterns, besides its module and the modules of yours that it
    imports: changed ones are refused or begin a new generation."""
    reuse: bool = True
    """Whether one process trains trial after trial; false starts a new one for each."""

    def patterns(self) -> tuple[str, ...]:
        return self.files
