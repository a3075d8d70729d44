"""What differs between a stored study file and the one at hand, and whether one study can hold the trials of both.

Taken up is what leaves every earlier trial a trial of the new file: wider ranges, another budget, more blocks, further
arms. Refused, with the reason, is what would put trials side by side that cannot be compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ralr_tune.studyfile.problems import KeyPath, dotted, shown
from ralr_tune.studyfile.study import StudySpec
from ralr_tune.studyfile.values import Choice, Frozen, Range


@dataclass(frozen=True)
class Verdict:
    """What becomes of a change, and why."""

    applied: bool
    reason: str


@dataclass(frozen=True)
class Change:
    """One key that differs. None stands for what is not there."""

    key: str
    before: Any
    after: Any
    verdict: Verdict

    @property
    def applied(self) -> bool:
        """Whether the study goes on with it."""
        return self.verdict.applied

    def __str__(self) -> str:
        return f"{self.key}: {_formatted(self.before)} -> {_formatted(self.after)}: {self.verdict.reason}"


def changes(before: StudySpec, after: StudySpec, *, judged: bool = True) -> list[Change]:
    """Every key whose meaning differs; comments, the order of tables and `storage.url` do not count.

    `before` is the stored file; `judged` says whether winners have been judged by now. Each change is judged by itself;
    one that is refused refuses the file.
    """
    here = after.storage.model_copy(update={"lease_s": before.storage.lease_s})  # where it lies is no part of it
    found = _differences((), before.meaning.model_copy(update={"storage": here}), after.meaning)
    fixed = _FIXED_ONCE_JUDGED if judged and "auto" in (before.confirm.seeds, after.confirm.seeds) else {}
    return [
        Change(dotted(path), old, new, fixed.get(path) or _verdict(path, old, new, before, after))
        for path, old, new in found
    ]


def _differences(path: KeyPath, old: Any, new: Any) -> Iterator[tuple[KeyPath, Any, Any]]:
    if _is_table(old) and _is_table(new):
        olds, news = _keys(old), _keys(new)
        for key in dict.fromkeys([*olds, *news]):
            yield from _differences((*path, key), olds.get(key), news.get(key))
    elif old != new:
        yield path, old, new


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, Frozen) and not isinstance(value, Range | Choice))


def _keys(table: Any) -> dict[str, Any]:
    return table if isinstance(table, dict) else {key: getattr(table, key) for key in type(table).model_fields}


def _formatted(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Range | Choice):
        return str(value)
    return "a table" if _is_table(value) else shown(value)


# ---------------------------------------------------------------- what becomes of a change

_APPLIED: dict[KeyPath, str] = {
    ("search", "trials"): "the budget of every arm and block; trials that were begun stay",
    ("search", "audit"): "how many pruned trials are trained on; audits that are done stay",
    ("confirm", "top"): "how many configurations are confirmed; runs that were begun stay",
    ("confirm", "seeds"): "on how many seeds; runs that were begun stay",
    ("confirm", "most_seeds"): "how far seeds are added; nothing was judged yet",
    ("confirm", "margin"): "which differences the report calls equivalent",
    ("confirm", "confidence"): "how wide the report's intervals are",
    ("storage", "lease_s"): "how long a silent worker keeps its trial",
}
"""Keys that change how much is done and what is said of it, not what a trial is."""

_REFUSED: dict[KeyPath, str] = {
    ("study", "seed"): "the training seeds and the validation split of all trials come from it",
    ("study", "baseline"): "it is the question: every arm is compared with it",
    ("study", "metric"): "all trials were judged by the other one",
    ("study",): "it is the question that all trials were run for",
    ("task",): "the trials learned something else",
    ("search", "start"): "these were the first trials of every arm; others would come late in some arms, or never",
    ("search", "sampler"): "each search would be partly the one's and partly the other's",
    ("search", "sampler_options"): "each search would be partly the one's and partly the other's",
    ("search", "pruner"): "earlier trials were ended by the other one's rule",
    ("search", "pruner_options"): "earlier trials were ended by the other one's rule",
    ("search", "prune_on"): "earlier trials were ended by the other one's rule",
    ("training",): "the trials so far were trained with the other",
    ("schedule",): "the trials so far were trained with the other",
    ("arms",): "the arm's trials so far were trained with the other",
}
"""Why not, by key or, for all keys of a table, by the table; the longest path that fits says it."""

UNKNOWN_KEY = "nothing says that the trials so far would be the same with it"
"""Of a key that nobody has thought about."""


_FIXED_ONCE_JUDGED: dict[KeyPath, Verdict] = {
    ("confirm", key): Verdict(False, "the looks and their correction are fixed once winners are judged")
    for key in ("seeds", "most_seeds", "margin", "confidence")
}
"""What decides, under `confirm.seeds = "auto"`, when one looks and when a verdict stands."""


def _verdict(path: KeyPath, old: Any, new: Any, before: StudySpec, after: StudySpec) -> Verdict:
    if path in _APPLIED:
        return Verdict(True, _APPLIED[path])
    if path == ("search", "blocks"):
        return _blocks_verdict(old, new)
    if path[:1] == ("arms",) and len(path) == 2:
        return _arm_verdict(old, before, after)
    if path[:1] in {("training",), ("schedule",), ("task",), ("arms",)} and _is_searched(old, new):
        return _domain_verdict(path, old, new, after)
    if path[:1] == ("task",) and before.kind is after.kind:
        return _most_specific(path[1:], after.kind.changes) or Verdict(False, _REFUSED["task",])
    return _most_specific(path, {key: (False, reason) for key, reason in _REFUSED.items()}) or Verdict(
        False, UNKNOWN_KEY
    )


def _most_specific(path: KeyPath, said: Mapping[KeyPath, tuple[bool, str]]) -> Verdict | None:
    """What is said of a key or, for all keys of a table, of the table: the longest path that fits."""
    fits = (path[:length] for length in range(len(path), -1, -1))
    return next((Verdict(*said[each]) for each in fits if each in said), None)


def _blocks_verdict(old: int, new: int) -> Verdict:
    if new > old:
        return Verdict(True, "further searches of every arm")
    return Verdict(False, "the blocks that were planned are part of the answer")


def _arm_verdict(old: Any, before: StudySpec, after: StudySpec) -> Verdict:
    """A new arm has a sampler history of its own, and trial by trial the seeds of the others: it is not too late."""
    if old is not None:
        return Verdict(False, "an arm does not leave once it was planned: its trials are part of the answer")
    if after.search.sampler == "qmc" and before.columns() != after.columns():
        return Verdict(False, "with it the quasi-random design, one for all arms, would be another one")
    return Verdict(True, "a new arm, with the whole budget and the seeds of the others")


def _is_searched(old: Any, new: Any) -> bool:
    return isinstance(old, Range | Choice) or isinstance(new, Range | Choice)


def _domain_verdict(path: KeyPath, old: Any, new: Any, after: StudySpec) -> Verdict:
    if isinstance(old, Range) and isinstance(new, Range):
        return _range_verdict(path, old, new, after)
    if isinstance(old, Choice) and isinstance(new, Choice):
        return Verdict(False, "Optuna keeps one list of choices for each parameter of a study")
    return Verdict(False, "a parameter is searched in one way from the first trial to the last")


def _range_verdict(path: KeyPath, old: Range[Any], new: Range[Any], after: StudySpec) -> Verdict:
    (low, high, step), (new_low, new_high, new_step) = old.numbers(), new.numbers()
    if old.log != new.log:
        return Verdict(False, "Optuna keeps one scale for each parameter of a study, logarithmic or not")
    if step != new_step:
        return Verdict(False, "earlier trials would lie beside the grid")
    if new_low > low or new_high < high:
        return Verdict(False, "narrower: earlier trials may lie outside of it")
    if step is not None and not math.isclose((low - new_low) / step, round((low - new_low) / step), abs_tol=1e-9):
        return Verdict(False, "earlier trials would lie beside the grid")
    return _wider_verdict(path, after)


def _wider_verdict(path: KeyPath, after: StudySpec) -> Verdict:
    """A wider range, unless the study's sampler or pruner cannot follow."""
    search = after.search
    if search.sampler == "tpe" and search.sampler_options.get("group"):
        return Verdict(False, "TPE with group = true never leaves the range of the first trials")
    if path[-1] == "epochs" and search.pruner == "hyperband" and "max_resource" not in search.pruner_options:
        return Verdict(False, "hyperband's brackets follow from the longest run, and earlier trials are in others")
    return Verdict(True, "wider; trials from now on use it")
