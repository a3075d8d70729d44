"""Reads a file or a text into a StudySpec and reports all problems at once."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePath
from typing import Any, TypeAlias

from pydantic import ValidationError

from ralr_tune.errors import StudyFileError, UsageError
from ralr_tune.invocation import command
from ralr_tune.secrecy import masked_url
from ralr_tune.studyfile import models, problems, registry
from ralr_tune.studyfile.checks import contradictions, missing
from ralr_tune.studyfile.contradictions import Contradiction
from ralr_tune.studyfile.imports import Import
from ralr_tune.studyfile.kind import Kind
from ralr_tune.studyfile.problems import KeyPath
from ralr_tune.studyfile.study import StudySpec
from ralr_tune.studyfile.unintended import unintended
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


@dataclass(frozen=True)
class Reading:
    """A study file as far as it can be read."""

    source: str
    lines: tuple[str, ...]
    """Every problem of the file, without its name; empty if it is valid."""
    spec: StudySpec | None
    """The study; if there are problems, without the wrong keys. None if too little is left."""
    left_out: frozenset[KeyPath] = frozenset()
    """The wrong keys: what depends on them is unknown."""

    def valid(self) -> StudySpec:
        """The study. Raises StudyFileError with every problem."""
        if self.lines:
            raise refusal(self.source, list(self.lines))
        assert self.spec is not None
        return self.spec


def load_study_file(path: str | Path, *, imports: bool = True) -> StudySpec:
    """Read and check a study file. Nothing in it is executed, except a kind of task that it names by an import path.

    Raises StudyFileError with every problem at once, one line each: file, key path, value, what is allowed; UsageError,
    without `imports`, for a kind named by an import path, and for what is no path.
    """
    return read_study_file(path, imports=imports).valid()


def read_study_file(path: str | Path, *, imports: bool = True) -> Reading:
    """A study file with its problems, for a caller that has more to check. Raises what `load_study_file` raises for a
    file that holds no tables of a study at all."""
    if not is_path(path):
        raise UsageError(f"path = {path!r}; allowed: the path of a study file")
    if Path(path).suffix.lower() in (".json", ".yaml", ".yml"):
        line = f"study files are TOML; `{command('train', str(path))}` takes an exported configuration in any form"
        raise refusal(str(path), [line])
    return _read(read_text(Path(path).expanduser()), str(path), _all_checks, imports)


def is_path(value: object) -> bool:
    """Whether a value can be meant as the path of a file or folder: a text that is not empty, or a Path."""
    return isinstance(value, PurePath) or (isinstance(value, str) and bool(value.strip()))


def parse_study(
    text: str, source: str = "study file", *, imports: bool = True, fingerprint: str | None = None
) -> StudySpec:
    """A study from its TOML text. Raises what `load_study_file` raises; reads no other file.

    `fingerprint`: the one with which the text is stored; defaults are then those of the release that stored it.
    """
    spec = _read(text, source, contradictions, imports).valid()
    return spec if fingerprint is None else spec.as_stored(fingerprint)


def _all_checks(spec: StudySpec) -> Iterable[Contradiction]:
    return chain(contradictions(spec), unintended(spec), missing(spec))


def _read(text: str, source: str, check: Check, imports: bool) -> Reading:
    raw = read_toml(text, source)
    if "provenance" in raw and not {"study", "arms", "search"} & raw.keys():
        raise refusal(source, [f"is an exported configuration, no study; `{command('train', source)}` trains it"])
    kind = kind_of(raw, source, imports)
    if isinstance(kind, str):
        return Reading(source, tuple(_problems_without_kind(kind, raw, check)), None)
    model = models.study_file(kind)
    try:
        file = model.model_validate(raw)
    except ValidationError as error:
        rest = _rest(problems.faults(error, raw, _substitutes(kind)), raw, kind)
        return Reading(
            source, (*problems.lines(error, model, raw), *rest.contradictions(check)), rest.spec, rest.left_out
        )
    spec = StudySpec(file, _without_password(text, file.storage.url, source), kind)
    return Reading(source, tuple(contradiction.line for contradiction in check(spec)), spec)


def kind_of(raw: Mapping[str, Any], source: str, imports: bool) -> Kind | str:
    """The kind that [task] names, or an error line if it is missing, wrong or cannot be imported.

    Raises UsageError if importing is not allowed.
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
    except (KeyError, UsageError) as error:
        unknown = f"task.kind = {problems.shown(name)}: {one_of(registry.names(), name)}"
        return unknown if isinstance(error, KeyError) else str(error)


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
    return [*before, line, *lines[len(before) :], *_rest(wrong, raw, kind).contradictions(check)]


@dataclass(frozen=True)
class _Rest:
    """What is left of a file without its wrong keys."""

    spec: StudySpec | None
    left_out: frozenset[KeyPath]

    def contradictions(self, check: Check) -> list[str]:
        """Contradictions of the remaining keys, so that one read reports all problems."""
        if self.spec is None:
            return []
        return [each.line for each in check(self.spec) if not each.depends_on(self.left_out)]


def _rest(wrong: set[KeyPath], raw: dict[str, Any], kind: Kind) -> _Rest:
    left_out: set[KeyPath] = set()
    for _ in range(_MAX_PASSES):
        left_out |= wrong
        raw = problems.without_faults(wrong, raw, _substitutes(kind))
        kind = kind if ("task",) not in wrong else registry.find(raw["task"]["kind"])
        try:
            file = models.study_file(kind).model_validate(raw)
        except ValidationError as deeper:
            wrong = problems.faults(deeper, raw, _substitutes(kind))
        else:
            return _Rest(StudySpec(file, "", kind), frozenset(left_out))
    return _Rest(None, frozenset(left_out))  # too many faults to check further


def _substitutes(kind: Kind) -> Mapping[KeyPath, Any]:
    return {**_SUBSTITUTES, **{("task", key): value for key, value in kind.substitutes.items()}}
