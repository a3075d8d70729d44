"""The tables of the file: which keys they have, in which form, within which bounds; nothing is converted silently."""

from __future__ import annotations

import inspect
import tomllib
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import torch
from torch import nn

from ralr_tune.commands.check import study_schema
from ralr_tune.kinds.classification.section import AUGMENTATIONS
from ralr_tune.schedules.curves import OPTIONS
from ralr_tune.studyfile.configuration import Configuration
from ralr_tune.studyfile.optimizer_keys import OPTIMIZER_OPTIONS, OPTIMIZERS
from ralr_tune.studyfile.optimizers import REFUSED
from ralr_tune.studyfile.sections import (
    CURVE_OPTIONS,
    ScheduleSection,
    TrainingKeys,
)
from ralr_tune.studyfile.values import Choice, Range
from tests.studyfile.design_file import DESIGN, complaints

MOMENTUM = "momentum = 0.9"
PROBABILITY = "probability = { low = 0.05, high = 0.6 }"


def test_the_file_of_the_design_is_a_study() -> None:
    spec = DESIGN.study()
    assert (spec.name, spec.study.metric, spec.study.baseline, spec.study.seed) == ("digits", "accuracy", "monotone", 0)
    assert list(spec.arms) == ["monotone", "ralr"]
    assert spec.task.kind == "classification"
    assert spec.task.data.source == "digits"
    assert (spec.task.model, spec.task.validation) == ("small_cnn", 0.2)
    assert (spec.search.trials, spec.search.sampler, spec.search.pruner, spec.search.blocks) == (24, "tpe", "median", 1)
    assert spec.search.start == ({"lr": 0.1},)
    assert (spec.confirm.top, spec.confirm.seeds, spec.confirm.margin, spec.confirm.confidence) == (2, 5, 0.005, 0.95)
    assert spec.confirm.max_seeds == 5
    assert (spec.storage.url, spec.storage.lease_s) == ("sqlite:///runs/digits/study.db", 30)


# ---------------------------------------------------------------- forms


@pytest.mark.parametrize(
    ("old", "key"),
    [(MOMENTUM, "momentum"), ("gamma = 0.1", "gamma"), (PROBABILITY, "probability")],
    ids=["training", "schedule", "arm"],
)
@pytest.mark.parametrize(
    ("form", "domain"),
    [
        ("0.3", None),
        ("{ low = 0.1, high = 0.3 }", Range),
        ("{ low = 0.1, high = 0.3, log = true }", Range),
        ("{ low = 0.1, high = 0.3, step = 0.1 }", Range),
        ("{ choices = [0.1, 0.3] }", Choice),
    ],
)
def test_every_form_in_every_table(old: str, key: str, form: str, domain: type | None) -> None:
    space = DESIGN.but(old, f"{key} = {form}").study().space("ralr")
    name = {"momentum": "momentum", "gamma": "schedule.gamma", "probability": "amplify.probability"}[key]
    if domain is None:
        assert name not in space
    else:
        assert isinstance(space[name], domain)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        # no silent conversion
        ("seed = 0", 'seed = "0"', 'study.seed = "0": must be a whole number'),
        ("seed = 0", "seed = 1.5", "study.seed = 1.5: must be a whole number"),
        ("seed = 0", "seed = 1.0", "study.seed = 1.0: must be a whole number"),
        ("seed = 0", "seed = true", "study.seed = true: must be a whole number"),
        ("epochs = 12", "epochs = 12.0", "training.epochs = 12.0: must be a whole number"),
        (MOMENTUM, 'momentum = "0.1"', 'training.momentum = "0.1": must be a number'),
        (MOMENTUM, "momentum = true", "training.momentum = true: must be a number"),
        (MOMENTUM, "momentum = 1979-05-27", 'training.momentum = "1979-05-27": must be a number'),
        (MOMENTUM, "momentum = [0.9]", "training.momentum = [0.9]: must be a number"),
        (MOMENTUM, f"{MOMENTUM}\nnesterov = 1", "training.nesterov = 1: must be true or false"),
        (MOMENTUM, f'{MOMENTUM}\nnesterov = "true"', 'training.nesterov = "true": must be true or false'),
        ('model = "small_cnn"', "model = 3", "task.model = 3: must be a string in quotes"),
        ('augment = ["crop"]', 'augment = "crop"', 'training.augment = "crop": must be a list'),
        ('augment = ["crop"]', "augment = [1]", "training.augment[0] = 1: must be a string in quotes"),
        (
            'augment = ["crop"]',
            'augment = ["crop", "mixin"]',
            "training.augment[1] = \"mixin\": unknown augmentation; did you mean 'mixup'?",
        ),
        (
            'augment = ["crop"]',
            'augment = ["shear"]',
            f'training.augment[0] = "shear": unknown augmentation; allowed: {", ".join(AUGMENTATIONS)}',
        ),
        (
            'augment = ["crop"]',
            'augment = { choices = [["crop"], ["mixup", "crop", "mixup"]] }',
            'training.augment.choices[1] = ["mixup", "crop", "mixup"]: mixup is listed more than once; '
            "list each augmentation once",
        ),
        (MOMENTUM, "momentum = { choices = [0.1, true] }", "training.momentum.choices[1] = true: must be a number"),
        # bounds, at both ends of a range and at every choice
        ("epochs = 12", "epochs = 0", "training.epochs = 0: must be 1 or more"),
        ("epochs = 12", "epochs = 1000000000", "training.epochs = 1000000000: must be below 1000000000"),
        ("epochs = 12", "epochs = { low = 0, high = 5 }", "training.epochs.low = 0: must be 1 or more"),
        (MOMENTUM, "momentum = 1.0", "training.momentum = 1.0: must be below 1"),
        (MOMENTUM, "momentum = { low = 0.1, high = 1.0 }", "training.momentum.high = 1.0: must be below 1"),
        (MOMENTUM, "momentum = { low = -0.1, high = 0.9 }", "training.momentum.low = -0.1: must be 0 or more"),
        (MOMENTUM, "momentum = { choices = [0.9, 1] }", "training.momentum.choices[1] = 1: must be below 1"),
        (MOMENTUM, "momentum = nan", "training.momentum = NaN: must be a finite number"),
        (
            MOMENTUM,
            "momentum = { low = 0.1, high = inf }",
            "training.momentum.high = Infinity: must be a finite number",
        ),
        ("lr = { low = 1e-3,", "lr = { low = 0,", "training.lr.low = 0: must be above 0"),
        (
            "lr = { low = 1e-3, high = 1.0,",
            "lr = { low = 1e-3, high = 1e9,",
            "training.lr.high = 1000000000.0: must be 1e+06 or less",
        ),
        ("gamma = 0.1", "gamma = 0", "schedule.gamma = 0: must be above 0"),
        (PROBABILITY, "probability = 1.1", "arms.ralr.amplify.probability = 1.1: must be 1 or less"),
        ("lower = { low = 1.0,", "lower = { low = 0.5,", "arms.ralr.amplify.lower.low = 0.5: must be 1 or more"),
        ("width = { low = 0.0,", "width = { low = -1.0,", "arms.ralr.amplify.width.low = -1.0: must be 0 or more"),
        ("seed = 0", "seed = 281474976710656", "study.seed = 281474976710656: must be below 281474976710656"),
        ("trials = 24 ", "trials = 0 ", "search.trials = 0: must be 1 or more"),
        *(
            (
                "blocks = 1",
                f"audit = {value}",
                f'search.audit = {value}: must be "auto", or a share of the pruned trials, 0 to 1',
            )
            for value in ('"all"', "1.1", "-1", "true", "[0.1]")
        ),
        ("blocks = 1", 'prune_on = "last"', "search.prune_on = \"last\": must be 'value', 'smoothed' or 'best'"),
        *(
            (
                "seeds = 5",
                f"seeds = {value}",
                f'confirm.seeds = {value}: must be "auto", or a number of seeds, 2 to 10000',
            )
            for value in ("1", '"all"', "2.5", "true", "10001", "[5]")
        ),
        ("seeds = 5", 'seeds = "auto"\nmost_seeds = 2', "confirm.most_seeds = 2: must be 3 or more"),
        ("confidence = 0.95", "confidence = 1.0", "confirm.confidence = 1.0: must be below 1"),
        ("validation = 0.2", "validation = 1", "task.validation = 1: must be below 1"),
        ("lease_s = 30", "lease_s = 0.5", "storage.lease_s = 0.5: must be 1 or more"),
        # words
        ('metric = "accuracy"', "metric = 3", "study.metric = 3: must be a string in quotes"),
        ('sampler = "tpe"', 'sampler = "tep"', "search.sampler = \"tep\": must be 'tpe', 'random', 'qmc' or 'gp'"),
        (
            'optimizer = "sgd"',
            'optimizer = "SGD"',
            "training.optimizer = \"SGD\": not a supported optimizer; did you mean 'sgd'?",
        ),
        (
            'optimizer = "sgd"',
            'optimizer = "adm"',
            "training.optimizer = \"adm\": not a supported optimizer; did you mean 'adam'?",
        ),
        (
            'name = "multistep"',
            'name = "multi"',
            "schedule.name = \"multi\": unknown base curve; did you mean 'multistep'?",
        ),
        ('source = "digits"', 'source = "digit"', "task.data.source = \"digit\": did you mean 'digits'?"),
        ('source = "digits"', "limit = 5", "task.data.source is missing; allowed: arrays, digits, folder, torchvision"),
        (
            'kind = "classification"',
            'kind = "tracking"',
            'task.kind = "tracking": allowed: classification, command, detection, function, simulated, translation',
        ),
        (
            'kind = "classification"',
            "",
            "task.kind is missing; allowed: classification, command, detection, function, simulated, translation",
        ),
        # lists
        ("milestones = [0.5, 0.75]", "milestones = []", "schedule.milestones = []: must have 1 or more items"),
        ("milestones = [0.5, 0.75]", "milestones = [0.5, 0]", "schedule.milestones[1] = 0: must be above 0"),
        (
            "milestones = [0.5, 0.75]",
            "milestones = [0.5, 2.5]",
            "schedule.milestones[1] = 2.5: must be a share of the run",
        ),
        ('optimizer = "sgd"', 'optimizer = "adam"\nbetas = [0.9]', "training.betas[1] is missing"),
        ('optimizer = "sgd"', 'optimizer = "adam"\nbetas = [0.9, 1.0]', "training.betas[1] = 1.0: must be below 1"),
        ('source = "digits"', 'source = "digits", classes = [3]', "task.data.classes = [3]: must have 2 or more items"),
        ('source = "digits"', 'source = "digits", classes = [1, 2.5]', "task.data.classes[1] = 2.5: "),
        ("augment = [", "window = [", 'training.window = ["crop"]: unknown key; '),
        (
            "amplify = {",
            "amplify = { window = [0.5, 0.5],",
            "arms.ralr.amplify.window = [0.5, 0.5]: must be [start, end] as shares",
        ),
        # forms where they are not allowed
        (
            "validation = 0.2",
            "validation = { low = 0.1, high = 0.2 }",
            'task.validation = {"low": 0.1, "high": 0.2}: must be a number',
        ),
        ('optimizer = "sgd"', "optimizer = { low = 1, high = 2 }", "training.optimizer.choices is missing"),
        (MOMENTUM, "momentum = {}", "training.momentum.low is missing"),
        (
            MOMENTUM,
            "momentum = { choices = [0.1], low = 1 }",
            "training.momentum.low = 1: unknown key; allowed: choices",
        ),
        # tables
        ("[arms.monotone]", "[arms]\nmonotone = 5", "arms.monotone = 5: must be a table"),
        ('data = { source = "digits" }', "data = 3", "task.data = 3: must be a table"),
        ("start = [{ lr = 0.1 }]", "start = { lr = 0.1 }", 'search.start = {"lr": 0.1}: must be a list'),
        ("start = [{ lr = 0.1 }]", "start = [0.1]", "search.start[0] = 0.1: must be a table"),
        (
            "validation = 0.2",
            "model_options = { a = nan }",
            'task.model_options = {"a": NaN}: a = nan: allowed: strings, finite numbers',
        ),
        (
            'sampler = "tpe"',
            "sampler_options = { a = [2022-01-01] }",
            'search.sampler_options = {"a": ["2022-01-01"]}: a = ',
        ),
        ("amplify = {", "noise = {}\namplify = {", "arms.ralr = {"),
    ],
)
def test_one_wrong_value(old: str, new: str, line: str) -> None:
    found = complaints(DESIGN.but(old, new))
    assert any(each.startswith(line) for each in found), found


@pytest.mark.parametrize("name", ["a/b", "../x", "a\\n", "", "a" * 81, ".a", "-a", "a b", "ä", "a\\u0000"])
def test_names_that_are_not_allowed(name: str) -> None:
    rule = "not a valid name: letters, digits, '.', '_' and '-', a letter or digit first, at most 80"
    assert [rule in line for line in complaints(DESIGN.but('name = "digits"', f'name = "{name}"'))] == [True]
    (of_arm, *_) = complaints(DESIGN.but("[arms.ralr]", f'[arms."{name}"]'))
    assert rule in of_arm
    (of_baseline, *_) = complaints(DESIGN.but('baseline = "monotone"', f'baseline = "{name}"'))
    assert rule in of_baseline


@pytest.mark.parametrize("name", ["con", "NUL", "Aux.toml", "com1", "LPT9.a.b", "x.", "prn"])
def test_names_that_are_not_file_names_on_all_systems(name: str) -> None:
    for text in (DESIGN.but('name = "digits"', f'name = "{name}"'), DESIGN.but("[arms.ralr]", f'[arms."{name}"]')):
        (line,) = complaints(text)
        assert line.endswith("not a valid file name on all systems; choose another")


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "0", "a" * 80, "console", "com", "com10", "nul-1", "a.con"])
def test_names_that_can(name: str) -> None:
    text = DESIGN.but('name = "digits"', f'name = "{name}"').but("[arms.ralr]", f'[arms."{name}"]')
    assert complaints(text) == []


def test_tables_that_may_be_left_out() -> None:
    text = DESIGN[: DESIGN.index("[confirm]")].replace("start = [{ lr = 0.1 }]", "")
    spec = type(DESIGN)(text).study()
    assert (spec.confirm.seeds, spec.storage.url, spec.search.start) == (5, None, ())


def test_nothing_can_be_changed() -> None:
    spec = DESIGN.study()
    for frozen, key in [(spec, "text"), (spec.study, "seed"), (spec.search, "trials"), (spec.file, "study")]:
        with pytest.raises(Exception, match=r"frozen|cannot assign"):
            setattr(frozen, key, getattr(frozen, key))


# ---------------------------------------------------------------- optimizers and curves


NOT_FOR_STUDIES = {"params", "lr", "weight_decay", "maximize", "foreach", "capturable", "differentiable", "fused"}
"""Arguments that have other keys, reverse the objective, or only change the speed."""

NO_KEYS = {
    "adam": {"decoupled_weight_decay"},
    "adamw": {"decoupled_weight_decay"},
    "adafactor": {"eps"},
    "muon": {"ns_coefficients"},
}
"""Adam with decoupled weight decay IS adamw; the others are lists of constants, one of which may be None."""

OF_FALLBACK = {"muon": {"betas", "fallback_factor"}}
"""Of AdamW, which trains what torch's class refuses (training.muon)."""


def optimizer_class(name: str) -> Any:
    return {kind.lower(): getattr(torch.optim, kind) for kind in dir(torch.optim)}[name]


def test_every_torch_optimizer_is_supported_or_excluded_on_purpose() -> None:
    there = {
        name.lower()
        for name, kind in vars(torch.optim).items()
        if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
    }
    assert there - REFUSED.keys() == OPTIMIZERS.keys()
    assert not REFUSED.keys() & OPTIMIZERS.keys()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("lbfgs", "it needs a closure"),
        ("rprop", "amplifying lr has no effect"),
        ("sparse_adam", "it takes only sparse gradients"),
        ("SAM", "it computes two gradients in each step"),
        ("lions:Lion:x", "not an import path package.module:Class"),
        ("adamm", "did you mean 'adam'"),
    ],
)
def test_an_optimizer_that_is_not_supported_is_refused_with_the_reason(given: str, reason: str) -> None:
    (line,) = complaints(DESIGN.but('"sgd"', f'"{given}"').but(MOMENTUM, ""))
    assert line.startswith(f'training.optimizer = "{given}": ')
    assert reason in line


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_option_of_an_optimizer_is_torchs_and_none_is_missing(name: str) -> None:
    parameters = inspect.signature(optimizer_class(name)).parameters.keys()
    assert {"lr", "weight_decay"} <= parameters
    offered = OPTIMIZERS[name] - OF_FALLBACK.get(name, set())
    assert parameters - NOT_FOR_STUDIES - NO_KEYS.get(name, set()) == offered


USUAL = {
    "betas": (0.8, 0.9),
    "momentum": 0.9,
    "nesterov": True,
    "dampening": 0.0,
    "amsgrad": True,
    "centered": True,
    "decoupled_weight_decay": True,
    "t0": 10.0,
    "beta2_decay": -0.5,
    "d": 1.5,
    "ns_steps": 3,
    "adjust_lr_fn": "original",
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_torch_accepts_the_options_of_the_file(name: str) -> None:
    options = {key: USUAL.get(key, 0.5) for key in OPTIMIZERS[name]}
    training = {"epochs": 1, "batch_size": 1, "optimizer": name, "lr": 0.1, "options": options}
    configuration = Configuration.model_validate({"training": training}).training
    own = {key: value for key, value in configuration.options.items() if key not in OF_FALLBACK.get(name, ())}
    weights = nn.Linear(2, 1, bias=False).parameters()
    optimizer_class(name)(weights, lr=configuration.lr, weight_decay=0.1, **own)


def test_every_option_is_a_key_of_one_table() -> None:
    assert TrainingKeys.model_fields.keys() >= OPTIMIZER_OPTIONS
    assert ScheduleSection.model_fields.keys() >= CURVE_OPTIONS
    assert not OPTIMIZER_OPTIONS & CURVE_OPTIONS
    assert not CURVE_OPTIONS & {"name", "granularity", "warmup", "warmup_factor"}
    assert not OPTIMIZER_OPTIONS & {"epochs", "batch_size", "optimizer", "lr", "weight_decay", "augment"}


def test_every_curve_can_be_chosen() -> None:
    needed = {"step": "step_size = 3", "cyclic": "period = 4", "inverse_sqrt": "warmup = 2"}
    for name in OPTIONS:
        table = f'name = "{name}"\n{needed.get(name, "")}'
        text = DESIGN.but('name = "multistep"', table).but("milestones = [0.5, 0.75]", "").but("gamma = 0.1", "")
        assert complaints(text) == [], name


# ---------------------------------------------------------------- JSON schema


def test_the_schema_is_valid_and_accepts_the_design_file() -> None:
    schema = study_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(tomllib.loads(DESIGN), schema, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (MOMENTUM, "momentm = 0.9"),
        (MOMENTUM, "momentum = { low = 0.1, hihg = 0.2 }"),
        ("epochs = 12", "epochs = 0"),
        ('source = "digits"', 'source = "digit"'),
        ("trials = 24 ", ""),
    ],
)
def test_the_schema_refuses_invalid_files(old: str, new: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(DESIGN.but(old, new)), study_schema())


UPPER = "lower = { low = 1.0, high = 2.0 }, width = { low = 0.0, high = 4.0 }"


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ("lower = 1.5, upper = 3.0", []),
        ("upper = { low = 1.0, high = 5.0 }", []),
        ("lower = { choices = [1.0, 2.0] }, upper = { choices = [2.0, 3.0] }", []),
        (
            "lower = { low = 1.0, high = 3.0 }, upper = { low = 2.0, high = 5.0 }",
            ["upper may be 2 and lower 3; allowed: upper >= lower in every combination, or a searched width"],
        ),
        ("lower = 3.0, upper = 2.0", ["upper may be 2 and lower 3; allowed: "]),
        ("upper = { choices = [0.5, 2.0] }", ["arms.ralr.amplify.upper.choices[0] = 0.5: must be 1 or more"]),
        ("lower = 1.0", ["needs either upper or width (upper = lower + width)"]),
        ("upper = 2.0, width = 1.0", ["needs either upper or width (upper = lower + width)"]),
    ],
)
def test_the_upper_end_is_an_alternative_to_the_width(ends: str, said: list[str]) -> None:
    found = complaints(DESIGN.but(UPPER, ends))
    assert len(found) == len(said), found
    assert all(expected in line for expected, line in zip(said, found, strict=True))


def test_a_searched_upper_end_is_the_configurations() -> None:
    spec = DESIGN.but(UPPER, "lower = 1.5, upper = { low = 2.0, high = 5.0 }").study()
    assert "amplify.upper" in spec.space("ralr")
    corner = {name: domain.describe().get("low", 0.1) for name, domain in spec.space("ralr").items()}
    configuration = spec.configuration("ralr", corner | {"amplify.upper": 2.5})
    assert configuration.amplify is not None
    assert (configuration.amplify.upper, configuration.amplify.width) == (2.5, 1.0)
    assert configuration.number("amplify.upper") == 2.5
