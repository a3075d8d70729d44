"""The differences between a stored study file and the current one, and whether one study can hold the trials of both.

A change is applied if every earlier trial is still a valid trial of the new file: wider ranges, another budget, more
blocks, new arms. It is refused, with the reason, if the study would then contain trials that cannot be compared.
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
    """Whether a change is applied or refused, and why."""

    applied: bool
    reason: str


@dataclass(frozen=True)
class Change:
    """One key that differs. None: the key is not there."""

    key: str
    before: Any
    after: Any
    verdict: Verdict

    @property
    def applied(self) -> bool:
        """Whether the study continues with the new value."""
        return self.verdict.applied

    @property
    def difference(self) -> str:
        """The key with both values."""
        return f"{self.key}: {_formatted(self.before)} -> {_formatted(self.after)}"

    def __str__(self) -> str:
        return f"{self.difference}: {self.verdict.reason}"


def changes(before: StudySpec, after: StudySpec, *, judged: bool = True) -> list[Change]:
    """Every key whose meaning differs; comments, the order of tables and `storage.url` are ignored.

    `before` is the stored file. `judged`: whether runs that judge winners have begun. Each change gets its own verdict;
    one refused change refuses the file.
    """
    storage = after.storage.model_copy(update={"lease_s": before.storage.lease_s})  # the URL is not part of the study
    found = _differences((), before.meaning.model_copy(update={"storage": storage}), after.meaning)
    fixed = _FIXED_ONCE_JUDGED if judged and "auto" in (before.confirm.seeds, after.confirm.seeds) else {}
    return [
        Change(dotted(path), old, new, fixed.get(path) or _verdict(path, old, new, before, after))
        for path, old, new in found
    ]


def _differences(path: KeyPath, old: Any, new: Any) -> Iterator[tuple[KeyPath, Any, Any]]:
    if _is_table(old) and _is_table(new):
        old_keys, new_keys = _keys(old), _keys(new)
        for key in dict.fromkeys([*old_keys, *new_keys]):
            yield from _differences((*path, key), old_keys.get(key), new_keys.get(key))
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


# ---------------------------------------------------------------- applied or refused

_APPLIED: dict[KeyPath, str] = {
    ("study", "cost_per_hour"): "what the report says that the study cost",
    ("search", "budget"): "what trials and seeds are chosen from",
    ("search", "audit"): "how many pruned trials are trained to the end; finished audits are kept",
    ("confirm", "top"): "how many configurations are confirmed; runs that have begun are kept",
    ("confirm", "seeds"): "on how many seeds; runs that have begun are kept",
    ("confirm", "most_seeds"): "how many seeds may be added; no winner has been judged yet",
    ("confirm", "margin"): "which differences the report calls equivalent",
    ("confirm", "confidence"): "how wide the report's intervals are",
    ("storage", "lease_s"): "how long a worker keeps its trial without renewing the lease",
}
"""Keys that change how much is run and how it is reported, not what a trial is."""

_REFUSED: dict[KeyPath, str] = {
    ("study", "seed"): "the training seeds and the validation split of all trials are derived from it",
    ("study", "baseline"): "it defines the question: every arm is compared with it",
    ("study", "metric"): "all earlier trials were judged by the old metric",
    ("study",): "it defines the question that all earlier trials were run for",
    ("task",): "earlier trials trained on another task",
    ("search", "start"): "these were the first trials of every arm; new ones would run late in some arms, or never",
    ("search", "divided"): "earlier trials were proposed, and winners judged, in another way",
    ("search", "start_from"): "its configurations were the first trials of every arm",
    ("search", "sampler"): "each search would mix the trials of two samplers",
    ("search", "sampler_options"): "each search would mix the trials of two samplers",
    ("search", "pruner"): "earlier trials were pruned by another rule",
    ("search", "pruner_options"): "earlier trials were pruned by another rule",
    ("search", "prune_on"): "earlier trials were pruned by another rule",
    ("search", "prune_metric"): "earlier trials were pruned by another rule",
    ("training",): "earlier trials were trained with the old value",
    ("schedule",): "earlier trials were trained with the old value",
    ("arms",): "the arm's earlier trials were trained with the old value",
}
"""Reasons by key or, for all keys of a table, by table; the longest matching path applies."""

UNKNOWN_KEY = "nothing guarantees that earlier trials would be the same with it"
"""The reason for a key without an entry in these tables."""


_FIXED_ONCE_JUDGED: dict[KeyPath, Verdict] = {
    ("confirm", key): Verdict(False, "the interim analyses and their correction are fixed once winners are judged")
    for key in ("seeds", "most_seeds", "margin", "confidence")
}
"""Keys that determine, with `confirm.seeds = "auto"`, when interim analyses happen and when they stop."""


def _verdict(path: KeyPath, old: Any, new: Any, before: StudySpec, after: StudySpec) -> Verdict:
    if path in (("search", "trials"), ("search", "blocks")):
        return _size_verdict(path[1], old, new, after)
    if path in _APPLIED:
        return Verdict(True, _APPLIED[path])
    if path[:1] == ("arms",) and len(path) == 2:
        return _arm_verdict(old, before, after)
    if path[:1] in {("training",), ("schedule",), ("task",), ("arms",)} and _is_searched(old, new):
        return _domain_verdict(path, old, new, after)
    if path[:1] == ("task",) and before.kind is after.kind:
        return _most_specific(path[1:], after.kind.changes) or Verdict(False, _REFUSED["task",])
    return _most_specific(path, {key: (False, reason) for key, reason in _REFUSED.items()}) or Verdict(
        False, UNKNOWN_KEY
    )


def _most_specific(path: KeyPath, verdicts: Mapping[KeyPath, tuple[bool, str]]) -> Verdict | None:
    """The verdict for a key or, for all keys of a table, for the table: the longest matching path."""
    prefixes = (path[:length] for length in range(len(path), -1, -1))
    return next((Verdict(*verdicts[each]) for each in prefixes if each in verdicts), None)


def _size_verdict(key: str, old: int, new: int, after: StudySpec) -> Verdict:
    """Of `search.trials` (of one block) or `search.blocks`."""
    if key == "trials":
        if new < old and after.search.divided:
            return Verdict(False, "with divided, blocks that have begun would keep more trials than the others")
        return Verdict(True, "the budget of every arm and block; trials that have begun are kept")
    if new > old:
        return Verdict(True, "more searches of every arm")
    return Verdict(False, "planned blocks are part of the result and cannot be removed")


def _arm_verdict(old: Any, before: StudySpec, after: StudySpec) -> Verdict:
    """A new arm is fine: it has its own sampler history, and its trials use the same seeds as those of other arms."""
    if old is not None:
        return Verdict(False, "a planned arm cannot be removed: its trials are part of the result")
    if after.search.sampler == "qmc" and before.columns() != after.columns():
        return Verdict(False, "it would change the quasi-random design that all arms share")
    return Verdict(True, "a new arm, with the full budget and the seeds of the other arms")


def _is_searched(old: Any, new: Any) -> bool:
    return isinstance(old, Range | Choice) or isinstance(new, Range | Choice)


def _domain_verdict(path: KeyPath, old: Any, new: Any, after: StudySpec) -> Verdict:
    if isinstance(old, Range) and isinstance(new, Range):
        return _range_verdict(path, old, new, after)
    if isinstance(old, Choice) and isinstance(new, Choice):
        return Verdict(False, "Optuna allows one list of choices per parameter of a study")
    return Verdict(False, "a parameter must be fixed, a range or a choice for all trials of a study")


def _range_verdict(path: KeyPath, old: Range[Any], new: Range[Any], after: StudySpec) -> Verdict:
    (low, high, step), (new_low, new_high, new_step) = old.numbers(), new.numbers()
    if old.log != new.log:
        return Verdict(False, "Optuna allows one scale per parameter of a study, logarithmic or linear")
    if step != new_step:
        return Verdict(False, "earlier trials would lie off the new grid")
    if new_low > low or new_high < high:
        return Verdict(False, "narrower: earlier trials may lie outside the new range")
    if step is not None and not math.isclose((low - new_low) / step, round((low - new_low) / step), abs_tol=1e-9):
        return Verdict(False, "earlier trials would lie off the new grid")
    return _wider_verdict(path, after)


def _wider_verdict(path: KeyPath, after: StudySpec) -> Verdict:
    """A wider range, unless the study's sampler or pruner cannot follow."""
    search = after.search
    if search.sampler == "tpe" and search.sampler_options.get("group"):
        return Verdict(False, "TPE with group = true never samples outside the range of the first trials")
    if path[-1] == "epochs" and search.pruner == "hyperband" and "max_resource" not in search.pruner_options:
        return Verdict(
            False, "hyperband derives its brackets from the longest run; earlier trials are in other brackets"
        )
    return Verdict(True, "wider; new trials use it")
