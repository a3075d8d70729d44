"""From a file or a text to a StudySpec, with every mistake told at once."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError

from ralr_tune.errors import StudyFileError
from ralr_tune.secrecy import masked_url
from ralr_tune.studyfile import problems
from ralr_tune.studyfile.contradictions import Contradiction, contradictions, missing_files
from ralr_tune.studyfile.problems import KeyPath
from ralr_tune.studyfile.sections import StudyFile
from ralr_tune.studyfile.study import StudySpec

Check: TypeAlias = Callable[[StudySpec], Iterable[Contradiction]]

MAX_BYTES = 1_000_000
"""A study file larger than this is refused: it is something else."""

_STUDY = {"name": "unnamed", "baseline": "unnamed"}
_TRAINING = {"epochs": 1, "batch_size": 1, "lr": 1.0}
_STAND_INS: dict[KeyPath, Any] = {
    ("study",): _STUDY,
    **{("study", key): value for key, value in _STUDY.items()},
    ("task",): {"kind": "simulated"},
    ("training",): _TRAINING,
    **{("training", key): value for key, value in _TRAINING.items()},
    ("arms",): {"unnamed": {}},
    ("search",): {"trials": 1},
    ("search", "trials"): 1,
}
"""What is required, with values for looking past a mistake in it; nothing is said of what rests on such a value."""

_TOLD = 100
"""Most problems of one file that are told."""

_LINE = 2000
"""Longest one, in characters."""

_LOOKS = 6
"""A table that lost a wrong key may then lack it; each look takes away one level more."""


def load_study_file(path: str | Path) -> StudySpec:
    """Read and check a study file.

    Raises StudyFileError with every problem at once, one line each: file, key path, value, what is allowed.
    """
    return _parse(read_text(Path(path)), str(path), lambda spec: chain(contradictions(spec), missing_files(spec)))


def parse_study(text: str, source: str = "study file") -> StudySpec:
    """A study from its TOML text. Raises StudyFileError as `load_study_file` does; looks at no other file."""
    return _parse(text, source, contradictions)


def _parse(text: str, source: str, check: Check) -> StudySpec:
    raw = read_toml(text, source)
    try:
        file = StudyFile.model_validate(raw)
        spec = StudySpec(file, _kept(text, file.storage.url, source))
        found = [contradiction.line for contradiction in check(spec)]
    except ValidationError as error:
        found = [*problems.lines(error, StudyFile, raw), *_contradictions_of_the_rest(error, raw, check)]
    if found:
        raise refusal(source, found)
    return spec


def _kept(text: str, url: str | None, source: str) -> str:
    """The text without the password of its storage URL: it is stored with the study, and shown in its report."""
    if url is None or masked_url(url) == url:
        return text
    if url not in text:
        raise refusal(source, ["storage.url: holds a password; write the URL without TOML escapes"])
    return text.replace(url, masked_url(url))


def read_text(path: Path) -> str:
    """The text of a file that is to be TOML. Raises StudyFileError when it cannot be, by its size or its bytes."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)  # never the whole of something endless
        if len(content) > MAX_BYTES:
            raise refusal(str(path), [f"too large: at most {MAX_BYTES} bytes"])
        return content.decode("utf-8-sig")  # some editors begin a file with a byte order mark
    except FileNotFoundError:
        raise refusal(str(path), ["no such file"]) from None
    except (OSError, ValueError) as error:  # ValueError: UnicodeDecodeError, and a NUL in the path
        raise refusal(str(path), [f"cannot be read as UTF-8 text: {error}"]) from None


def read_toml(text: str, source: str) -> dict[str, Any]:
    """The tables of a text. Raises StudyFileError when it is no TOML, or holds what no key may hold."""
    if len(text) > MAX_BYTES:  # one that came from a database
        raise refusal(source, [f"too large: at most {MAX_BYTES} characters"])
    if long_key := problems.long_key(text):
        raise refusal(source, [long_key])
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: TOMLDecodeError, and integers too long for Python
        raise refusal(source, [f"not valid TOML: {error or 'nested too deeply'}"]) from None
    unreadable = problems.unreadable(raw)
    if unreadable:
        raise refusal(source, unreadable)
    return raw


def refusal(source: str, found: list[str]) -> StudyFileError:
    """All problems of one file, each told once and in one line; of very many the first."""
    told = list(dict.fromkeys(found))
    if len(told) > _TOLD:
        told[_TOLD:] = [f"and {len(told) - _TOLD} problems more"]
    return StudyFileError([problems.one_line(f"{source}: {problems.cut(line, _LINE)}") for line in told])


def _contradictions_of_the_rest(error: ValidationError, raw: dict[str, Any], check: Check) -> list[str]:
    """What else is wrong once the wrong keys are thought away, so that one reading tells everything."""
    thought_away: set[KeyPath] = set()
    for _ in range(_LOOKS):
        wrong = problems.faults(error, raw, _STAND_INS)
        thought_away |= wrong
        raw = problems.without_faults(wrong, raw, _STAND_INS)
        try:
            spec = StudySpec(StudyFile.model_validate(raw), "")
        except ValidationError as deeper:
            error = deeper
        else:
            return [each.line for each in check(spec) if not each.rests_on(thought_away)]
    return []  # too much is wrong to see further
