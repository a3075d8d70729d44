"""Contradictions between two or more keys of a study file that are each valid on their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ralr_tune.schedules.curves import OPTIONS
from ralr_tune.studyfile.contradictions import Contradiction, corners, shared_paths, training_paths
from ralr_tune.studyfile.optimizer_checks import OPTIMIZER_CHECKS
from ralr_tune.studyfile.parameters import possible
from ralr_tune.studyfile.problems import KeyPath, dotted, shown
from ralr_tune.studyfile.recipes import UPPER_ENDS, RecipeValue, fixed_values, is_same, recipe_values, values_for
from ralr_tune.studyfile.sections import CURVE_OPTIONS, FROM_BUDGET, ScheduleSection, StudyFile
from ralr_tune.studyfile.study import StudySpec
from ralr_tune.studyfile.values import Range, one_of

_DEPENDENT_OPTIONS = ("milestones", "peak_at", "mode")
"""Curve options whose validity depends on other keys; all others can be checked alone."""

_LENGTHS = ("warmup", "step_size", "period", "peak_at")
"""Options of a base curve that are shares of the run or epochs."""


def contradictions(spec: StudySpec) -> Iterator[Contradiction]:
    """All contradictions, in the order of the file."""
    for check in _CHECKS:
        yield from check(spec)


def missing(spec: StudySpec) -> Iterator[Contradiction]:
    """What the study file names but does not exist on this machine."""
    yield from spec.kind.missing(spec.task)


def _check_baseline(spec: StudySpec) -> Iterator[Contradiction]:
    given = spec.study.baseline
    if given not in spec.arms:
        line = f"study.baseline = {shown(given)}: no such arm; {one_of(spec.arms, given)}"
        yield Contradiction(line, (("study", "baseline"), ("arms", given)))


def _check_metric(spec: StudySpec) -> Iterator[Contradiction]:
    given, offered = spec.study.metric, spec.kind.metrics_of(spec.task)
    if given and given not in offered:
        line = f"study.metric = {shown(given)}: {one_of(offered, given)}"
        yield Contradiction(line, (("study", "metric"), ("task", "kind")))


def _check_arm_names(spec: StudySpec) -> Iterator[Contradiction]:
    folded: dict[str, str] = {}
    for arm in spec.arms:
        # MySQL and some file systems ignore case
        if (other := folded.setdefault(arm.lower(), arm)) != arm:
            pair = f"{dotted(('arms', arm))}: differs from {dotted(('arms', other))}"
            yield Contradiction(f"{pair} only in upper and lower case; choose another name")


def _check_kind(spec: StudySpec) -> Iterator[Contradiction]:
    yield from spec.kind.contradictions(spec)


def _check_curve_options(spec: StudySpec) -> Iterator[Contradiction]:
    for path, section in _schedules(spec).items():
        names = possible(section.name)
        allowed = frozenset().union(*(OPTIONS[name] for name in names))
        for key in (key for key in ScheduleSection.model_fields if key in CURVE_OPTIONS - allowed):
            if (value := getattr(section, key)) is not None:
                line = f"{dotted([*path, key])} = {value}: not an option of {' or '.join(names)}; allowed: "
                yield Contradiction(line + (", ".join(sorted(allowed)) or "none"), ((*path, "name"),))


def _check_units(spec: StudySpec) -> Iterator[Contradiction]:
    """A length below 1 is a share of the run, otherwise epochs: no range may contain both. 0 is neither."""
    for path, section in _schedules(spec).items():
        for key in _LENGTHS:
            value = getattr(section, key)
            if isinstance(value, Range) and _is_mixed(*value.numbers()):
                where = f"{dotted([*path, key])} = {value}"
                line = f"{where}: below 1 is a share of the run, otherwise epochs; search one of them"
                yield Contradiction(line)


def _is_mixed(low: float, high: float, step: float | None) -> bool:
    return low < 1 <= high and not (low == 0 and step is not None and step >= 1)


def _schedules(spec: StudySpec) -> dict[KeyPath, ScheduleSection]:
    """Every table with a base curve, by path."""
    tables: dict[KeyPath, ScheduleSection] = {("schedule",): spec.file.schedule}
    for arm, section in spec.arms.items():
        if section.schedule is not None:
            tables[("arms", arm, "schedule")] = section.schedule
    return tables


def _check_curves(spec: StudySpec) -> Iterator[Contradiction]:
    """Checks a curve's options against the number of epochs and against each other."""
    for arm in spec.arms:
        where = dotted(("arms", arm, "schedule") if spec.arms[arm].schedule else ("schedule",))
        for corner in _curve_corners(spec, arm):
            try:
                spec.configuration(arm, corner).curve()
            except ValueError as error:
                paths = (("schedule",), ("arms", arm, "schedule"), *training_paths(arm, "epochs"))
                yield Contradiction(f"{where}.{error} (arm {arm})", paths)
                break


def _curve_corners(spec: StudySpec, arm: str) -> Iterator[dict[str, Any]]:
    for name in possible(spec.schedule(arm).name):
        own = (f"schedule.{key}" for key in _DEPENDENT_OPTIONS if key in OPTIONS[name])
        for corner in corners(spec.space(arm), ("epochs", "schedule.warmup", *own)):
            yield corner | {"schedule.name": name}


def _check_noise(spec: StudySpec) -> Iterator[Contradiction]:
    for arm in spec.arms:
        for corner in corners(spec.space(arm), ("noise.law", "noise.std")):
            try:
                spec.configuration(arm, corner).perturbation()
            except ValueError as error:
                yield Contradiction(f"{dotted(('arms', arm, 'noise'))}.{error}", (("arms", arm, "noise"),))
                break


def _check_start(spec: StudySpec) -> Iterator[Contradiction]:
    spaces = {arm: spec.space(arm) for arm in spec.arms}
    for index, recipe in enumerate(spec.search.start):
        values = list(recipe_values(recipe))
        fixed = {arm: fixed_values(spec, arm) for arm in spec.arms} if any(each.in_table for each in values) else {}
        in_arms = {arm: values_for(spec, arm, recipe) for arm in spec.arms}
        for place, value in enumerate(values):
            where = f"search.start[{index}].{value.key} = {shown(value.value)}"
            own = {arm: in_arms[arm][place] for arm in spec.arms}
            known = [(each, fixed[arm][each.name]) for arm, each in own.items() if each.name in fixed.get(arm, {})]
            if not any(each.name in spaces[arm] for arm, each in own.items()):
                yield from _not_searched(spec, where, value, known)
            for arm, each in own.items():
                domain = spaces[arm].get(each.name)
                if domain is not None and not domain.contains(each.value):
                    line = f"{where}: outside arm {arm}'s space: {_named(each, value, ' is ')}{domain}"
                    yield Contradiction(line, (*shared_paths(each.name), ("arms", arm)))


def _check_start_from(spec: StudySpec) -> Iterator[Contradiction]:
    search = spec.search
    if search.start_from is None:
        return
    where = f"search.start_from = {shown(search.start_from)}"
    if search.start_from == spec.name:
        yield Contradiction(f"{where}: is this study itself; give an earlier study", (("study", "name"),))
    if not spec.needs_split and len(search.start) >= search.trials:
        line = f"{where}: the {len(search.start)} configurations of search.start are all {search.trials} trials already"
        yield Contradiction(line, (("search", "start"), ("search", "trials")))


def _not_searched(
    spec: StudySpec, where: str, value: RecipeValue, known: Sequence[tuple[RecipeValue, Any]]
) -> Iterator[Contradiction]:
    """The problem of a recipe's value that no arm searches; in a table, it may be what arms train with (`known`)."""
    name = value.name
    searched = sorted({name for arm in spec.arms for name in spec.space(arm)})
    if value.in_table and known:
        own, trained = known[0]
        if not any(is_same(each.value, fixed) for each, fixed in known):
            line = f"this study does not search it, and trains with {_named(own, value, ' = ')}{shown(trained)}"
            yield Contradiction(f"{where}: {line}")
    elif name not in spec.parameters:
        yield Contradiction(f"{where}: no such parameter; {one_of(spec.parameters, name)}")
    elif name in UPPER_ENDS and not UPPER_ENDS.isdisjoint(searched):
        yield Contradiction(f"{where}: needs amplify.lower in the same recipe (upper = lower + width)", (("arms",),))
    else:
        line = f"{where}: not searched in any arm; {one_of(searched, name) if searched else 'nothing is'}"
        yield Contradiction(line, (*shared_paths(name), ("arms",)))


def _named(own: RecipeValue, given: RecipeValue, between: str) -> str:
    """The parameter's name, if the recipe gives it in another form than the arm."""
    return "" if own.name == given.name else f"{own.name}{between}"


def _check_divided(spec: StudySpec) -> Iterator[Contradiction]:
    """Parts of a search are searches of their own only if no trial depends on another one's result."""
    search = spec.file.search
    if not search.divided:
        return
    where = "search.divided = true"
    if search.budget is not None:
        yield Contradiction(f"{where}: not with search.budget; give trials and seeds", (("search", "budget"),))
    if search.sampler not in DIVISIBLE:
        line = f"{where}: {search.sampler} learns from its whole search, so its parts are not independent"
        yield Contradiction(f'{line}; use "qmc" or "random", or a search per block', (("search", "sampler"),))
    if search.blocks < 2:
        line = f"{where}: needs blocks, at least 2 (fewer than 4 rarely give a verdict on the schedules)"
        yield Contradiction(line, (("search", "blocks"),))
    elif search.trials % search.blocks:
        each = max(1, round(search.trials / search.blocks))
        line = f"{where}: {search.trials} trials cannot be divided among {search.blocks} blocks evenly"
        paths = (("search", "trials"), ("search", "blocks"))
        yield Contradiction(f"{line}; the nearest number is {each * search.blocks}", paths)
    if spec.confirm.seeds == "auto":
        line = f'{where}: confirm.seeds = "auto" adds seeds of two recipes, but blocks are compared; give a number'
        yield Contradiction(line, (("confirm", "seeds"),))


DIVISIBLE = ("qmc", "random")
"""Samplers whose search can be divided: their proposals do not depend on results."""


def _check_sampler_options(spec: StudySpec) -> Iterator[Contradiction]:
    options = spec.search.sampler_options
    if "seed" in options:
        where = f"search.sampler_options.seed = {shown(options['seed'])}"
        yield Contradiction(f"{where}: the sampler is seeded from study.seed; set that instead")


def _check_pruning(spec: StudySpec) -> Iterator[Contradiction]:
    search = spec.search
    if search.pruner == "none" and search.audit not in ("auto", 0):
        line = f"search.audit = {search.audit:g}: the pruner none stops no trials that could be audited; set 0"
        yield Contradiction(line, _PRUNER)
    if search.pruner == "none" and search.prune_on != "value":
        line = f'search.prune_on = {shown(search.prune_on)}: has no effect with the pruner none; use "value"'
        yield Contradiction(line, _PRUNER)
    if search.pruner == "none" and search.prune_metric is not None:
        line = f"search.prune_metric = {shown(search.prune_metric)}: has no effect with the pruner none; leave it out"
        yield Contradiction(line, _PRUNER)
    if search.pruner == "patient" and search.prune_on == "best":
        line = "the patient pruner waits for values to get worse, and a best value never does; use value or smoothed"
        yield Contradiction(f'search.prune_on = "best": {line}', _PRUNER)


_PRUNER = (("search", "pruner"),)


def _check_prune_metric(spec: StudySpec) -> Iterator[Contradiction]:
    given = spec.search.prune_metric
    offered = spec.kind.metrics_of(spec.task)
    if given is None or (spec.study.metric and spec.study.metric not in offered):
        return
    paths = (("search", "prune_metric"), ("study", "metric"), ("task",))
    where, found = f"search.prune_metric = {shown(given)}", spec.kind.epoch_metrics(spec.task, spec.metric)
    if given == spec.metric.name:
        yield Contradiction(f"{where}: is the study's metric, which the pruner sees anyway; leave it out", paths)
    elif not found:
        line = f"with the metric {spec.metric.name}, trials of this kind measure nothing else every epoch; leave it out"
        yield Contradiction(f"{where}: {line}", paths)
    elif given not in found:
        yield Contradiction(f"{where}: not measured every epoch; {one_of(found, given)}", paths)


def _check_most_seeds(spec: StudySpec) -> Iterator[Contradiction]:
    confirm = spec.confirm
    if confirm.seeds != "auto" and "most_seeds" in confirm.model_fields_set:
        line = f'confirm.most_seeds = {confirm.most_seeds}: only allowed with confirm.seeds = "auto"'
        yield Contradiction(f"{line}, but that is {confirm.seeds}", (("confirm", "seeds"), ("confirm", "most_seeds")))


def _check_budget(spec: StudySpec) -> Iterator[Contradiction]:
    search, split = spec.file.search, spec.file.split
    if search.budget is None:
        if split is not None:
            line = "split: only allowed with search.budget, which it was chosen from"
            yield Contradiction(line, (("search", "budget"),))
        elif search.trials == FROM_BUDGET:
            yield Contradiction("search.trials is missing; give it, or search.budget", (("search", "budget"),))
        return
    fixed = _fixed_by_user(spec.file)
    if len(fixed) == 2 and split is None:
        given = " and ".join(f"{dotted(path)} = {value}" for path, value in fixed.items())
        line = f"{given} are fixed, which leaves nothing to choose; leave out one of the three"
        yield Contradiction(f"search.budget = {shown(search.budget)}: {line}", (("search",), ("confirm",)))
    chosen = {} if split is None else {"trials": split.trials, "seeds": split.seeds, "most_seeds": split.seeds}
    for path, value in fixed.items():
        if split is not None and chosen[path[-1]] != value:
            where = dotted(("split", path[-1].removeprefix("most_")))
            line = f"{where} = {chosen[path[-1]]}: but {dotted(path)} = {value}; leave out [split]"
            yield Contradiction(line, (path, ("split",)))


def _fixed_by_user(file: StudyFile) -> dict[KeyPath, int]:
    """The two numbers that a budget is split into, as far as the file gives them."""
    found: dict[KeyPath, int] = {}
    if file.search.trials != FROM_BUDGET:
        found["search", "trials"] = file.search.trials
    key = "most_seeds" if file.confirm.seeds == "auto" else "seeds"
    if key in file.confirm.model_fields_set:
        found["confirm", key] = file.confirm.max_seeds
    return found


_CHECKS = (
    _check_baseline,
    _check_metric,
    _check_arm_names,
    *OPTIMIZER_CHECKS,
    _check_kind,
    _check_curve_options,
    _check_units,
    _check_curves,
    _check_noise,
    _check_start,
    _check_start_from,
    _check_divided,
    _check_budget,
    _check_sampler_options,
    _check_pruning,
    _check_prune_metric,
    _check_most_seeds,
)
