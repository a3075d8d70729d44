"""Reads a file or a text into a StudySpec and reports all problems at once."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path, PurePath
from typing import Any, TypeAlias

from pydantic import ValidationError

from ralr_tune.errors import StudyFileError, UsageError
from ralr_tune.invocation import command
from ralr_tune.secrecy import masked_url
from ralr_tune.studyfile import models, problems, registry
from ralr_tune.studyfile.contradictions import Contradiction, contradictions, missing_files
from ralr_tune.studyfile.imports import Import
from ralr_tune.studyfile.kind import Kind
from ralr_tune.studyfile.problems import KeyPath
from ralr_tune.studyfile.study import StudySpec
from ralr_tune.studyfile.values import one_of

Check: TypeAlias = Callable[[StudySpec], Iterable[Contradiction]]

MAX_BYTES = 1_000_000
"""A larger file is refused: it is not a study file."""

_STUDY = {"name": "unnamed", "baseline": "unnamed"}
_TRAINING = {"epochs": 1, "batch_size": 1, "lr": 1.0}
SUBSTITUTE_TASK = {"kind": "simulated"}
"""[task] for a file with an unknown kind: the simulated kind has no required keys."""

_SUBSTITUTES: dict[KeyPath, Any] = {
    ("study",): _STUDY,
    **{("study", key): value for key, value in _STUDY.items()},
    ("task",): SUBSTITUTE_TASK,
    ("training",): _TRAINING,
    **{("training", key): value for key, value in _TRAINING.items()},
    ("arms",): {"unnamed": {}},
    ("search",): {"trials": 1},
    ("search", "trials"): 1,
}
"""Valid values that replace wrong or missing required keys, so that the other keys can still be checked. Problems that
depend on such a value are not reported."""

_MAX_PROBLEMS = 100
"""Maximum number of problems that are reported for one file."""

_MAX_LINE_LENGTH = 2000
"""Maximum length of a reported problem, in characters."""

_MAX_PASSES = 6
"""Removing a wrong key can make its table invalid in turn; each pass removes keys one level further up."""


def load_study_file(path: str | Path, *, imports: bool = True) -> StudySpec:
    """Read and check a study file. Nothing in it is executed, except a kind of task that it names by an import path.

    Raises StudyFileError with every problem at once, one line each: file, key path, value, what is allowed; UsageError,
    without `imports`, for a kind named by an import path, and for what is no path.
    """
    if not is_path(path):
        raise UsageError(f"path = {path!r}; allowed: the path of a study file")
    if Path(path).suffix.lower() in (".json", ".yaml", ".yml"):
        line = f"study files are TOML; `{command('train', str(path))}` takes an exported configuration in any form"
        raise refusal(str(path), [line])
    return _parse(read_text(Path(path).expanduser()), str(path), _with_files, imports)


def is_path(value: object) -> bool:
    """Whether a value can be meant as the path of a file or folder: a text that is not empty, or a Path."""
    return isinstance(value, PurePath) or (isinstance(value, str) and bool(value.strip()))


def parse_study(text: str, source: str = "study file", *, imports: bool = True) -> StudySpec:
    """A study from its TOML text. Raises what `load_study_file` raises; reads no other file."""
    return _parse(text, source, contradictions, imports)


def _with_files(spec: StudySpec) -> Iterable[Contradiction]:
    return chain(contradictions(spec), missing_files(spec))


def _parse(text: str, source: str, check: Check, imports: bool) -> StudySpec:
    raw = read_toml(text, source)
    if "provenance" in raw and not {"study", "arms", "search"} & raw.keys():
        raise refusal(source, [f"is an exported configuration, no study; `{command('train', source)}` trains it"])
    kind = kind_of(raw, source, imports)
    if isinstance(kind, str):
        raise refusal(source, _problems_without_kind(kind, raw, check))
    model = models.study_file(kind)
    try:
        file = model.model_validate(raw)
        spec = StudySpec(file, _without_password(text, file.storage.url, source), kind)
        found = [contradiction.line for contradiction in check(spec)]
    except ValidationError as error:
        wrong = problems.faults(error, raw, _SUBSTITUTES)
        found = [*problems.lines(error, model, raw), *_remaining_contradictions(wrong, raw, kind, check)]
    if found:
        raise refusal(source, found)
    return spec


def kind_of(raw: Mapping[str, Any], source: str, imports: bool) -> Kind | str:
    """The kind that [task] names, or an error line if it is missing or wrong.

    Raises StudyFileError if the kind's code cannot be imported, UsageError if importing is not allowed.
    """
    task = raw.get("task")
    name = task.get("kind") if isinstance(task, dict) else None
    if task is None:
        return "task is missing"
    if not isinstance(task, dict):
        return f"task = {problems.shown(task)}: must be a table"
    if name is None:
        return f"task.kind is missing; allowed: {', '.join(registry.names())}"
    if not isinstance(name, str):
        return f"task.kind = {problems.shown(name)}: must be a string in quotes"
    if registry.is_import_path(name) and not imports:
        raise UsageError(f"{source}: {Import('task.kind', name)}; --no-imports forbids that")
    try:
        return registry.find(name)
    except KeyError:
        return f"task.kind = {problems.shown(name)}: {one_of(registry.names(), name)}"
    except UsageError as error:
        raise refusal(source, [str(error)]) from error


def _without_password(text: str, url: str | None, source: str) -> str:
    """The text without the password of its storage URL: the text is stored with the study and shown in its report."""
    if url is None or masked_url(url) == url:
        return text
    if url not in text:
        raise refusal(source, ["storage.url: contains a password and TOML escapes; write the URL without escapes"])
    return text.replace(url, masked_url(url))


def read_text(path: Path) -> str:
    """The text of a TOML file. Raises StudyFileError if it is missing, unreadable, too large or not UTF-8."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)  # bounded: the path may be an endless device
        if len(content) > MAX_BYTES:
            raise refusal(str(path), [f"too large: at most {MAX_BYTES} bytes"])
        return content.decode("utf-8-sig")  # some editors write a byte order mark
    except FileNotFoundError:
        raise refusal(str(path), ["no such file"]) from None
    except IsADirectoryError:
        raise refusal(str(path), ["cannot be read as UTF-8 text: it is a folder; give a file in it"]) from None
    except (OSError, ValueError) as error:  # ValueError: UnicodeDecodeError, or a NUL in the path
        raise refusal(str(path), [f"cannot be read as UTF-8 text: {error}"]) from None


def read_toml(text: str, source: str) -> dict[str, Any]:
    """The tables of a text. Raises StudyFileError if it is not TOML, or has values that no key may have."""
    if len(text) > MAX_BYTES:  # a text from a database
        raise refusal(source, [f"too large: at most {MAX_BYTES} characters"])
    if long_key := problems.long_key(text):
        raise refusal(source, [long_key])
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: TOMLDecodeError, or integers too long for Python
        raise refusal(source, [f"not valid TOML: {error or 'nested too deeply'}"]) from None
    unreadable = problems.unreadable(raw)
    if unreadable:
        raise refusal(source, unreadable)
    return raw


def refusal(source: str, found: list[str]) -> StudyFileError:
    """An error with all problems of one file, without duplicates, one line each; at most _MAX_PROBLEMS."""
    lines = list(dict.fromkeys(found))
    if len(lines) > _MAX_PROBLEMS:
        lines[_MAX_PROBLEMS:] = [f"and {len(lines) - _MAX_PROBLEMS} more problems"]
    return StudyFileError([problems.one_line(f"{source}: {problems.cut(line, _MAX_LINE_LENGTH)}") for line in lines])


def _problems_without_kind(line: str, raw: dict[str, Any], check: Check) -> list[str]:
    """All problems of a file with an unknown kind of task (reported by `line`), in the order of the file.

    Everything outside of [task] is checked with the substitute kind.
    """
    wrong: set[KeyPath] = {("task",)}
    rest = problems.without_faults(wrong, raw, _SUBSTITUTES)
    kind = registry.find(rest["task"]["kind"])
    model = models.study_file(kind)
    lines: list[str] = []
    try:
        model.model_validate(rest)
    except ValidationError as error:
        lines = problems.lines(error, model, rest)
        wrong |= problems.faults(error, rest, _SUBSTITUTES)
    before = [each for each in lines if each.startswith("study")]
    return [*before, line, *lines[len(before) :], *_remaining_contradictions(wrong, raw, kind, check)]


def _remaining_contradictions(wrong: set[KeyPath], raw: dict[str, Any], kind: Kind, check: Check) -> list[str]:
    """Contradictions that remain after the wrong keys are removed, so that one read reports all problems."""
    left_out: set[KeyPath] = set()
    for _ in range(_MAX_PASSES):
        left_out |= wrong
        raw = problems.without_faults(wrong, raw, _SUBSTITUTES)
        kind = kind if ("task",) not in wrong else registry.find(raw["task"]["kind"])
        try:
            spec = StudySpec(models.study_file(kind).model_validate(raw), "", kind)
        except ValidationError as deeper:
            wrong = problems.faults(deeper, raw, _SUBSTITUTES)
        else:
            return [each.line for each in check(spec) if not each.depends_on(left_out)]
    return []  # too many faults to check further
