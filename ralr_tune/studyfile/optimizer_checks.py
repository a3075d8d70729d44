"""Contradictions between the optimizers of a study and their options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ralr_tune.studyfile.contradictions import Contradiction, corners, path_in_table, path_of_key, training_paths
from ralr_tune.studyfile.optimizer_keys import OF_IMPORTED, OPTIMIZERS
from ralr_tune.studyfile.optimizers import DECOUPLED, is_decoupled
from ralr_tune.studyfile.parameters import TABLES, possible, users_of
from ralr_tune.studyfile.problems import KeyPath, dotted, shown
from ralr_tune.studyfile.study import StudySpec
from ralr_tune.studyfile.values import one_of

_DECAY_KEYS = ("weight_decay_schedule", "weight_decay_end", "weight_decay_follows", "decoupled_weight_decay")


def _check_optimizer_options(spec: StudySpec) -> Iterator[Contradiction]:
    for arm in spec.arms:
        training, names = spec.training(arm), spec.optimizers(arm)
        for key in training:
            if not list(users_of(key, names)):
                yield _foreign(path_of_key(spec, arm, key), training[key], names, arm)
        for name, table in spec.optimizer_tables(arm).items():
            for key in table:
                if name in names and not list(users_of(key, (name,))):
                    yield _foreign(path_in_table(spec, arm, name, key), table[key], (name,), arm)


def _foreign(path: KeyPath, value: Any, names: Sequence[str], arm: str) -> Contradiction:
    """The problem of an option that none of the optimizers has."""
    shown_value = shown(value) if isinstance(value, dict) else value
    if path[-1] == OF_IMPORTED:
        why = f"only for an optimizer by import path, not for {' or '.join(names)} (arm {arm})"
        return Contradiction(f"{dotted(path)} = {shown_value}: {why}", training_paths(arm, "optimizer"))
    allowed = sorted(frozenset().union(*(OPTIMIZERS.get(name, {OF_IMPORTED}) for name in names)))
    owners = ", ".join(name for name, options in OPTIMIZERS.items() if path[-1] in options)
    why = f"not an option of {' or '.join(names)} but of {owners} (arm {arm})"
    line = f"{dotted(path)} = {shown_value}: {why}; allowed: {', '.join(allowed) or 'none'}"
    return Contradiction(line, training_paths(arm, "optimizer"))


def _check_optimizer_tables(spec: StudySpec) -> Iterator[Contradiction]:
    """A table must belong to an optimizer of the arm, and each key of [training] must still have a use."""
    for arm in spec.arms:
        names, tables = spec.optimizers(arm), spec.optimizer_tables(arm)
        paths = training_paths(arm, "optimizer", "optimizers")
        for name in tables:
            # a shared table may be for the optimizer of another arm
            if not any(name in spec.optimizers(other) for other in spec.arms):
                where = dotted(("training", "optimizers", name))
                yield Contradiction(f"{where}: no arm has this optimizer; {one_of(names, name)}", paths)
        for key, value in spec.training(arm).items():
            users = list(users_of(key, names))
            if users and all(key in tables.get(name, {}) for name in users):
                which = " or ".join(users)
                line = f"{dotted(path_of_key(spec, arm, key))} = {value}: no trial of arm {arm} would use it"
                line = f"{line}: {which} has its own in {dotted(('training', 'optimizers', users[0]))}; remove that one"
                yield Contradiction(line, paths)


def _check_optimizers_of_programs(spec: StudySpec) -> Iterator[Contradiction]:
    for name in spec.imported_optimizers if not spec.kind.needs_torch else ():
        line = f"training.optimizer = {shown(name)}: a task of kind {spec.kind.name} does not train with it"
        yield Contradiction(f"{line}; allowed: {', '.join(OPTIMIZERS)}", (("training", "optimizer"), ("task", "kind")))


def _check_nesterov(spec: StudySpec) -> Iterator[Contradiction]:
    """torch.optim.SGD refuses it as well, but only when a trial starts."""
    keys = ("optimizer", "momentum", "dampening", "nesterov")
    searched = (*keys, *(f"{TABLES}.sgd.{key}" for key in keys))
    for arm in spec.arms:
        for corner in corners(spec.space(arm), searched):
            training = spec.configuration(arm, corner).training
            options = training.options if training.optimizer == "sgd" else {}
            if options.get("nesterov") and (not options.get("momentum") or options.get("dampening")):
                where = dotted(path_of_key(spec, arm, "nesterov"))
                line = f"{where} = true: needs a momentum above 0 and no dampening (arm {arm})"
                yield Contradiction(line, training_paths(arm, *keys))
                break


def _check_weight_decay(spec: StudySpec) -> Iterator[Contradiction]:
    """Keys of the weight decay's course that have no effect."""
    for arm in spec.arms:
        training = spec.training(arm)
        shapes = possible(training.get("weight_decay_schedule", "constant"))
        ends = [training.get(key, 0.0) for key in ("weight_decay", "weight_decay_end")]
        wrong: dict[str, str] = {}
        if "weight_decay_end" in training and set(shapes) == {"constant"}:
            wrong["weight_decay_end"] = 'needs weight_decay_schedule = "linear" or "cosine"'
        if set(shapes) != {"constant"} and ends == [0, 0]:
            wrong["weight_decay_schedule"] = "needs a weight_decay or weight_decay_end above 0"
        if "base" in possible(training.get("weight_decay_follows", "rate")) and not _may_decouple(spec, arm):
            allowed = f"{', '.join(sorted(DECOUPLED))}; nadam or radam with decoupled_weight_decay = true"
            wrong["weight_decay_follows"] = f"needs an optimizer with decoupled weight decay: {allowed}"
        for key, needed in wrong.items():
            line = (
                f"{dotted(path_of_key(spec, arm, key))} = {shown(training[key])}: has no effect; {needed} (arm {arm})"
            )
            yield Contradiction(line, training_paths(arm, "optimizer", "weight_decay", *_DECAY_KEYS))


def _may_decouple(spec: StudySpec, arm: str) -> bool:
    """Whether a trial may have decoupled weight decay."""
    training, tables = spec.training(arm), spec.optimizer_tables(arm)
    for name in spec.optimizers(arm):
        chosen = (training | tables.get(name, {})).get("decoupled_weight_decay", False)
        if any(is_decoupled(name, {"decoupled_weight_decay": each}) for each in possible(chosen)):
            return True
    return False


OPTIMIZER_CHECKS = (
    _check_optimizer_options,
    _check_optimizer_tables,
    _check_optimizers_of_programs,
    _check_nesterov,
    _check_weight_decay,
)
