"""Where and how `run` runs a study: its options, and which values they may have."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

from ralr_tune.errors import UsageError
from ralr_tune.machine.home import expand_home
from ralr_tune.studyfile.reading import is_path
from ralr_tune.studyfile.values import one_of
from ralr_tune.tasks.slots import Slots, parse_slots


@dataclass(frozen=True)
class RunOptions:
    """Where and how to run a study."""

    storage: str | None = None
    """SQLAlchemy URL; None: RALR_TUNE_STORAGE, then the study file's, then OUT/study.db."""
    out: Path | None = None
    """Folder for report, logs and checkpoints; None: runs/STUDY."""
    artifacts: str | os.PathLike[str] | None = None
    """Where checkpoints are kept, so that workers on any machine resume them: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or
    a shared folder; None: as in the first run, otherwise in `out`."""
    trials: int | None = None
    """Search trials per arm and block; None: from the study file."""
    hours: float | None = None
    """Stop after this many hours; everything is saved, and the report covers the results so far."""
    confirm: bool = True
    """False: stop after the search and its audits."""
    imports: bool = True
    """False: refuse a file that imports custom code (such as its network), here and in every worker."""
    force: bool = False
    """Accept a SQLite file on a network file system, although its locks are unreliable there."""
    new_generation: bool = False
    """True: if data or code differ from those of the study's earlier trials, begin a new generation: the whole budget
    again, pooled with nothing. If they do not differ, the newest generation is resumed."""
    start_workers: bool = True
    """False: start no workers, and wait until workers started elsewhere have finished."""
    workers: int | None = None
    """Number of workers; None: one per GPU, or one per CPU core."""
    devices: str = "auto"
    """"auto", or a list such as "cuda:0,cuda:1" or "cpu"."""
    slots: Slots = 1
    """Trials that a worker trains at the same time as one network; "auto" times a few steps to choose the number."""
    launcher: str = "local"
    """How to start the workers: "local" (processes), "inprocess" (threads of this process, for tests and small
    notebooks), or the name of an entry point in the group `ralr_tune.launchers`."""
    launcher_options: Mapping[str, object] = field(default_factory=dict)
    """Further options of the launcher; each launcher declares its own."""
    mirror: Sequence[str] = ()
    """Trackers that show the study while it runs: "tensorboard", "mlflow=URI", "wandb=PROJECT"."""
    notify: Sequence[str] = ()
    """URLs and commands that are told once that the study has ended, has failed, or that its verdict stands."""

    def __post_init__(self) -> None:
        """Refuses values of a wrong type with a UsageError, and takes texts where a path or a list is meant."""
        for name, allowed in _ALLOWED.items():
            value = getattr(self, name)
            if not allowed.takes(value):
                raise UsageError(f"{name} = {value!r}; allowed: {allowed.words}")
        try:
            out = None if self.out is None else expand_home(self.out)
        except ValueError as error:
            raise UsageError(f"out = {self.out!r}: {error}") from None
        meant = {
            "out": out,
            "devices": self.devices if isinstance(self.devices, str) else ",".join(self.devices),
            "slots": parse_slots(str(self.slots)),
            "mirror": (self.mirror,) if isinstance(self.mirror, str) else tuple(self.mirror),
            "notify": (self.notify,) if isinstance(self.notify, str) else tuple(self.notify),
        }
        for name, value in meant.items():
            object.__setattr__(self, name, value)


class _Allowed(NamedTuple):
    """What a field of `RunOptions` may be."""

    takes: Callable[[Any], bool]
    words: str


def _is_none_or(kind: type, value: object) -> bool:
    return value is None or (isinstance(value, kind) and not isinstance(value, bool))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_devices(value: object) -> bool:
    return _is_text(value) or (isinstance(value, list | tuple) and bool(value) and all(map(_is_text, value)))


def _is_texts(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list | tuple) and all(isinstance(each, str) for each in value))


_COUNT = _Allowed(partial(_is_none_or, Integral), "a whole number, or None")
_YES_OR_NO = _Allowed(lambda value: isinstance(value, bool), "True or False")
_ALLOWED: Mapping[str, _Allowed] = {
    "storage": _Allowed(
        lambda value: value is None or _is_text(value), 'a database URL ("sqlite:///study.db"), or None'
    ),
    "out": _Allowed(lambda value: value is None or is_path(value), "the path of a folder, or None"),
    "artifacts": _Allowed(lambda value: value is None or is_path(value), "the URL or the folder of a store, or None"),
    "trials": _COUNT,
    "workers": _COUNT,
    "hours": _Allowed(partial(_is_none_or, Real), "a number of hours, or None"),
    "confirm": _YES_OR_NO,
    "imports": _YES_OR_NO,
    "force": _YES_OR_NO,
    "new_generation": _YES_OR_NO,
    "start_workers": _YES_OR_NO,
    "devices": _Allowed(_is_devices, 'a text such as "auto" or "cuda:0,cuda:1", or a list of devices'),
    "mirror": _Allowed(_is_texts, 'texts such as "tensorboard" or "mlflow=http://127.0.0.1:5000"'),
    "notify": _Allowed(_is_texts, "URLs and commands, as texts"),
    "launcher": _Allowed(_is_text, "the name of a launcher"),
    "launcher_options": _Allowed(lambda value: isinstance(value, Mapping), "a dict of the launcher's options"),
}


def with_fields(options: RunOptions | None, fields: Mapping[str, Any]) -> RunOptions:
    """The options with these fields in place of theirs. UsageError for what are none, TypeError for unknown names."""
    if not isinstance(options, RunOptions | None):
        raise UsageError(f"options = {options!r}; allowed: RunOptions, or None; or give its fields by name")
    for name in fields:
        if name not in RunOptions.__dataclass_fields__:
            known = one_of(RunOptions.__dataclass_fields__, name)
            raise TypeError(f"run() got an unexpected keyword argument {name!r}; {known}")
    return replace(options or RunOptions(), **fields)
