"""What `check` says about a command without running it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ralr_tune.child.kind import content_of, source_paths, values_by_step
from ralr_tune.child.section import OTHER_VALUES
from ralr_tune.kinds.command.placeholders import Malformed, Placeholder, placeholders
from ralr_tune.kinds.command.section import CommandSection
from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.contradictions import Contradiction, Problem, path_of_key
from ralr_tune.studyfile.problems import dotted, shown
from ralr_tune.studyfile.values import Choice, Range, one_of

_READERS = (
    b"RALR_TUNE_TRIAL", b"ralr_tune.client", b"ralr_tune import client", b"ralr_tune.trial", b"ralr_tune import trial",
)  # fmt: skip
"""What a program mentions that reads the schedule."""
_STEP_READERS = (b"steps_per_epoch", b"declare_steps", b"client steps", b'"steps"')
"""What it mentions if it asks for the schedule of every step."""
_COMMANDS = ("command", "resume", "test")


def missing_program(section: CommandSection) -> Iterator[Contradiction]:
    """A program that is not on this machine."""
    program = section.command[0]
    if not section.shell and "{" not in program and shutil.which(program) is None:
        line = f"task.command[0] = {shown(program)}: no such program in PATH or in {Path.cwd()}"
        yield Contradiction(line, (("task", "command"),))


def contradictions(spec: StudySpec) -> Iterator[Contradiction]:
    """Placeholders that no value fills, and values that no placeholder uses."""
    assert isinstance(spec.task, CommandSection)
    used = list(_used(spec.task))
    yield from (found for found in used if isinstance(found, Contradiction))
    known = [found for found in used if not isinstance(found, Contradiction)]
    yield from _unfilled(spec, known)
    for arm in spec.arms:
        yield from _unused(spec, {found.name for _, found in known}, arm)


def _own_values(spec: StudySpec, arm: str) -> dict[str, Any]:
    """Keys of [training] and own parameters of an arm, fixed or searched."""
    assert isinstance(spec.task, CommandSection)
    return {**spec.training(arm), **spec.task.params}


def _used(task: CommandSection) -> Iterator[tuple[str, Placeholder] | Contradiction]:
    """The placeholders of all words with their places, or what is wrong with a word."""
    for key in _COMMANDS:
        for index, word in enumerate(getattr(task, key)):
            where = f"task.{key}[{index}] = {shown(word)}"
            try:
                found = list(placeholders(word))
            except Malformed as error:
                yield Contradiction(f"{where}: {error}", (("task", key),))
                continue
            yield from ((where, each) for each in found)
            for each in found:
                if each.is_flag and not each.is_whole:
                    yield Contradiction(f"{where}: {{{each.name}:flag}} must be a word of its own", (("task", key),))


def _unfilled(spec: StudySpec, known: list[tuple[str, Placeholder]]) -> Iterator[Contradiction]:
    arms = {arm: _own_values(spec, arm) for arm in spec.arms}
    paths = (*(("task", key) for key in (*_COMMANDS, "params")), ("training",), ("arms",))
    for where, found in known:
        if found.name in OTHER_VALUES and not found.is_flag:
            continue
        without = [arm for arm, own in arms.items() if found.name not in own]
        if without:
            which = "" if len(without) == len(arms) else f" in arm {without[0]}"
            allowed = dict.fromkeys([*arms[without[0]], *OTHER_VALUES])
            line = f"{where}: no key of [training] or task.params is called {found.name}{which}"
            yield Contradiction(f"{line}; {one_of(allowed, found.name)}", paths)
        elif found.is_flag and not all(
            isinstance(value, bool) for own in arms.values() for value in _values(own[found.name])
        ):
            yield Contradiction(f"{where}: a flag must be true or false, or a choice of both", paths)


def _unused(spec: StudySpec, used: set[str], arm: str) -> Iterator[Contradiction]:
    """A program whose command line has some parameters gets all of them there: one left out is a mistake."""
    assert isinstance(spec.task, CommandSection)
    own = _own_values(spec, arm)
    if not used & own.keys():
        return
    layers = [spec.file.training, spec.arms[arm].training]
    given = {key for layer in layers if layer is not None for key in layer.model_fields_set} - {"epochs"}
    for name in own:
        if name in used or name not in {*given, *spec.task.params}:
            continue
        path = ("task", "params", name) if name in spec.task.params else path_of_key(spec, arm, name)
        line = f"{dotted(path)}: no placeholder {{{name}}} in task.command, so the program would not get it"
        yield Contradiction(line, (path, ("task", "command")))


def _values(value: Any) -> tuple[Any, ...]:
    return value.choices if isinstance(value, Choice) else (None,) if isinstance(value, Range) else (value,)


def unread_schedule(spec: StudySpec) -> Iterator[Problem]:
    """A schedule that the program cannot know: all arms would then train the same."""
    assert isinstance(spec.task, CommandSection)
    arms = [arm for arm, section in spec.arms.items() if section.amplify is not None or section.noise is not None]
    constant = all(spec.schedule(arm).name == "constant" for arm in spec.arms)
    files = shown(list(spec.task.files))
    if (not constant or arms) and not _mentions(spec.task, _READERS):
        line = (
            f"task.files = {files}: none of these files reads the schedule, so every arm would train with its base "
            "rate alone; multiply the rate by `ralr_tune.client.trial().multiplier(epoch)`, or by the values in the "
            "file that RALR_TUNE_TRIAL names, or use `ralr_tune.trial()`, and list the file that does it"
        )
        yield Problem(line, (("task", "files"), ("schedule",), ("arms",)))
    by_step = [path for arm in spec.arms for path in values_by_step(spec, arm)]
    if by_step and not _mentions(spec.task, _STEP_READERS):
        line = (
            f'{dotted(by_step[0])} = "step": none of the files in task.files = {files} asks for the schedule of every '
            'step; call `declare_steps` of `ralr_tune.client.trial()`, or use "epoch"'
        )
        yield Problem(line, (("task", "files"), *by_step))


def _mentions(task: CommandSection, words: tuple[bytes, ...]) -> bool:
    return any(word in content for _, path in source_paths(task) for content in [content_of(path)] for word in words)
