"""The meaning of a file: spaces, configurations, arms over shared tables, columns, fingerprint."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from typing import Any

import pytest
import tomli_w

from ralr_tune.studyfile import StudySpec, parse_study
from ralr_tune.studyfile.changes import changes
from ralr_tune.studyfile.recipes import values_for
from ralr_tune.studyfile.values import Choice, Domain, Range
from tests.studies import AMPLIFY, simulated
from tests.studyfile.design_file import DESIGN, Text

RALR = {"lr": 0.1, "weight_decay": 1e-3, "amplify.probability": 0.3, "amplify.lower": 1.5, "amplify.width": 2.0}

ARMS = Text(
    """
[study]
name = "arms"
baseline = "plain"

[task]
kind = "simulated"

[training]
epochs = { choices = [10, 20] }
batch_size = { low = 16, high = 64, step = 16 }
lr = { low = 0.01, high = 1.0, log = true }
momentum = { low = 0.5, high = 0.9 }
augment = { choices = [[], ["crop", "flip"]] }

[schedule]
name = "multistep"
milestones = { choices = [[0.5], [2, 5]] }
gamma = { low = 0.1, high = 0.5 }

[arms.plain]

[arms.short]
training = { epochs = 5, lr = 0.3, clip_norm = 1.0 }
schedule = { name = { choices = ["cosine", "step"] }, step_size = { low = 0.1, high = 0.5 }, end_factor = 0.01 }

[arms.either]
training = { optimizer = { choices = ["sgd", "adamw"] }, betas = { choices = [[0.9, 0.999], [0.8, 0.9]] } }

[arms.noisy]
noise = { amplitude = { low = 0.1, high = 0.9 } }

[search]
trials = 5
"""
)


def low(domain: Domain) -> Any:
    return domain.describe()["choices"][0] if isinstance(domain, Choice) else domain.low


def lowest(spec: StudySpec, arm: str) -> dict[str, Any]:
    return {name: low(domain) for name, domain in spec.space(arm).items()}


# ---------------------------------------------------------------- spaces


def test_the_space_of_an_arm_has_the_keys_as_names_and_the_shared_ones_first() -> None:
    spec = DESIGN.study()
    assert list(spec.space("monotone")) == ["lr", "weight_decay"]
    assert list(spec.space("ralr")) == list(RALR)
    assert spec.space("ralr")["lr"] == spec.space("monotone")["lr"]


def test_dimensions_are_plain_tables() -> None:
    assert DESIGN.study().dimensions("monotone") == {
        "lr": {"low": 1e-3, "high": 1.0, "log": True, "step": None},
        "weight_decay": {"low": 1e-5, "high": 1e-2, "log": True, "step": None},
    }
    assert ARMS.study().dimensions("plain")["augment"] == {"choices": ["[]", '["crop", "flip"]']}


def test_settings_are_all_parameters_of_an_arm() -> None:
    spec = ARMS.study()
    for arm in spec.arms:
        settings = spec.settings(arm)
        dimensions = spec.dimensions(arm)
        assert {name: settings[name] for name in dimensions} == dimensions
        assert set(settings) <= set(spec.parameters)
    plain, short = spec.settings("plain"), spec.settings("short")
    assert (short["epochs"], short["lr"], short["schedule.end_factor"]) == (5, 0.3, 0.01)
    assert "clip_norm" not in plain


def test_an_arms_own_training_keys_replace_the_shared_ones() -> None:
    spec = ARMS.study()
    assert {"epochs", "lr"} <= spec.space("plain").keys()
    assert not {"epochs", "lr"} & spec.space("short").keys()
    training = spec.configuration("short", lowest(spec, "short")).training
    assert (training.epochs, training.lr, training.clip_norm, training.batch_size) == (5, 0.3, 1.0, 16)
    assert spec.configuration("plain", lowest(spec, "plain")).training.clip_norm is None


def test_an_arms_own_schedule_replaces_the_whole_shared_one() -> None:
    spec = ARMS.study()
    assert {"schedule.name", "schedule.step_size"} == {name for name in spec.space("short") if "schedule" in name}
    schedule = spec.configuration("short", lowest(spec, "short")).schedule
    assert (schedule.name, schedule.options) == ("cosine", {"end_factor": 0.01})
    assert spec.configuration("plain", lowest(spec, "plain")).schedule.name == "multistep"


def test_every_searched_name_is_a_parameter() -> None:
    spec = ARMS.study()
    assert {name for arm in spec.arms for name in spec.space(arm)} <= set(spec.parameters)


# ---------------------------------------------------------------- configurations


def test_a_configuration_of_the_design() -> None:
    configuration = DESIGN.study().configuration("ralr", RALR)
    assert configuration.model_dump() == {
        "training": {
            "epochs": 12,
            "batch_size": 64,
            "optimizer": "sgd",
            "lr": 0.1,
            "weight_decay": 1e-3,
            "options": {"momentum": 0.9},
            "augment": ("crop",),
            "label_smoothing": 0.0,
            "clip_norm": None,
            "precision": "auto",
            "channels_last": "auto",
            "compile": "auto",
        },
        "schedule": {
            "name": "multistep",
            "granularity": "epoch",
            "warmup": 0.0,
            "warmup_factor": 0.1,
            "options": {"milestones": (0.5, 0.75), "gamma": 0.1},
        },
        "amplify": {
            "probability": 0.3,
            "lower": 1.5,
            "width": 2.0,
            "law": "uniform",
            "granularity": "epoch",
            "window": (0.0, 1.0),
        },
        "noise": None,
    }
    assert configuration.amplify is not None
    assert configuration.amplify.upper == 3.5


def test_a_chosen_optimizer_gets_only_its_own_options() -> None:
    spec = ARMS.study()
    point = lowest(spec, "either") | {"momentum": 0.7, "betas": "[0.8, 0.9]"}
    options = {
        name: spec.configuration("either", point | {"optimizer": name}).training.options for name in ("sgd", "adamw")
    }
    assert options == {"sgd": {"momentum": 0.7}, "adamw": {"betas": (0.8, 0.9)}}


OPTIMIZERS = Text(
    """
[study]
name = "optimizers"
baseline = "plain"
[task]
kind = "classification"
data = { source = "digits" }
model = "small_cnn"
[training]
epochs = 2
batch_size = 16
optimizer = { choices = ["sgd", "adamw", "lions:Lion"] }
lr = { low = 0.01, high = 1.0, log = true }
momentum = { low = 0.5, high = 0.9 }
optimizer_options = { betas = [0.9, 0.99], decay = { low = 0.1, high = 0.2 } }
weight_decay = { low = 1e-5, high = 1e-2, log = true }
[training.optimizers.adamw]
lr = { low = 1e-4, high = 1e-2, log = true }
betas = { choices = [[0.9, 0.999], [0.8, 0.9]] }
weight_decay = 0.1
[training.optimizers."lions:Lion"]
lr = 1e-3
[arms.plain]
[arms.own]
training = { optimizers = { adamw = { weight_decay = 0.2 } } }
[search]
trials = 5
"""
)


@pytest.mark.parametrize(
    ("optimizer", "used", "training"),
    [
        (
            "sgd",
            {"optimizer", "lr", "momentum", "weight_decay"},
            {"lr": 0.01, "weight_decay": 1e-5, "options": {"momentum": 0.5}},
        ),
        (
            "adamw",
            {"optimizer", "optimizers.adamw.lr", "optimizers.adamw.betas"},
            {"lr": 1e-4, "weight_decay": 0.1, "options": {"betas": (0.9, 0.999)}},
        ),
        (
            "lions:Lion",
            {"optimizer", "weight_decay", "optimizer_options.decay"},
            {"lr": 1e-3, "weight_decay": 1e-5, "options": {"betas": [0.9, 0.99], "decay": 0.1}},
        ),
    ],
)
def test_each_of_several_optimizers_has_its_own_keys(optimizer: str, used: set[str], training: dict[str, Any]) -> None:
    spec = OPTIMIZERS.study()
    assert spec.used_space("plain", {"optimizer": optimizer}).keys() == used
    point = {name: value for name, value in lowest(spec, "plain").items() if name in used} | {"optimizer": optimizer}
    made = spec.configuration("plain", point)
    assert made.training.model_dump(include=training.keys()) == training
    assert {name: made.number(name) for name in ("optimizers.adamw.lr", "optimizer_options.decay")} == {
        "optimizers.adamw.lr": 1e-4 if optimizer == "adamw" else None,
        "optimizer_options.decay": training["options"].get("decay"),
    }
    assert spec.imported_optimizers == ("lions:Lion",)


def test_an_arm_replaces_single_keys_of_an_optimizers_table() -> None:
    spec = OPTIMIZERS.study()
    point = lowest(spec, "own") | {"optimizer": "adamw"}
    assert spec.configuration("own", point).training.weight_decay == 0.2
    assert spec.configuration("own", point).training.options == {"betas": (0.9, 0.999)}


def test_conditional_parameters_and_settings_have_the_names_of_their_tables() -> None:
    spec = OPTIMIZERS.study()
    searched = {"momentum", "optimizers.adamw.lr", "optimizers.adamw.betas", "optimizer_options.decay", "lr"}
    assert spec.conditional("plain") == searched | {"weight_decay"}
    assert spec.settings("plain")["optimizers.lions:Lion.lr"] == 1e-3
    assert spec.settings("plain")["optimizer_options.betas"] == [0.9, 0.99]
    assert set(spec.parameters) >= searched | {"optimizers.lions:Lion.lr"}
    assert "optimizers" not in spec.parameters


def test_a_recipe_from_an_export_gets_the_names_of_the_arm() -> None:
    recipe = {"training": {"optimizer": "adamw", "lr": 0.005, "options": {"betas": [0.8, 0.9]}}}
    found = {each.name: each.value for each in values_for(OPTIMIZERS.study(), "plain", recipe)}
    assert found == {"optimizer": "adamw", "optimizers.adamw.lr": 0.005, "optimizers.adamw.betas": [0.8, 0.9]}
    recipe = {"optimizer": "sgd", "lr": 0.05}
    assert {each.name for each in values_for(OPTIMIZERS.study(), "plain", recipe)} == {"optimizer", "lr"}


def test_a_chosen_curve_gets_only_its_own_options() -> None:
    spec = ARMS.study()
    point = lowest(spec, "short") | {"schedule.step_size": 0.2}
    options = {
        name: spec.configuration("short", point | {"schedule.name": name}).schedule.options
        for name in ("cosine", "step")
    }
    assert options == {"cosine": {"end_factor": 0.01}, "step": {"step_size": 0.2}}


def test_choices_are_decoded_to_the_values_of_the_file() -> None:
    spec = ARMS.study()
    point = {"augment": '["crop", "flip"]', "schedule.milestones": "[2, 5]", "epochs": 20}
    configuration = spec.configuration("plain", lowest(spec, "plain") | point)
    assert configuration.training.augment == ("crop", "flip")
    assert configuration.schedule.options["milestones"] == (2, 5)
    assert configuration.training.epochs == 20


def test_a_missing_parameter_and_an_unknown_choice() -> None:
    spec = ARMS.study()
    with pytest.raises(KeyError, match="lr"):
        spec.configuration("plain", {key: value for key, value in lowest(spec, "plain").items() if key != "lr"})
    with pytest.raises(ValueError, match=r"15: must be one of 10, 20"):
        spec.configuration("plain", lowest(spec, "plain") | {"epochs": 15})


def test_the_recipe_of_every_arm_trains() -> None:
    spec = ARMS.study()
    for arm in spec.arms:
        trace = spec.configuration(arm, lowest(spec, arm)).learning_rate(steps_per_epoch=2, seed=0).trace()
        assert trace.shape == (5 if arm == "short" else 10, 2)


# ---------------------------------------------------------------- columns


def test_shared_parameters_have_the_first_columns() -> None:
    columns = DESIGN.study().columns()
    assert list(columns.values()) == [0, 1, 2, 3, 4]
    assert {name for name, column in columns.items() if column < 2} == {"lr", "weight_decay"}


def test_columns_cover_the_whole_study() -> None:
    spec = ARMS.study()
    columns = spec.columns()
    shared = set.intersection(*(set(spec.space(arm)) for arm in spec.arms))
    everything = set.union(*(set(spec.space(arm)) for arm in spec.arms))
    assert shared == {"batch_size", "momentum", "augment"}
    assert {name for name, column in columns.items() if column < len(shared)} == shared
    assert columns.keys() == everything
    assert sorted(columns.values()) == list(range(len(everything)))


def test_columns_do_not_depend_on_the_order_of_arms() -> None:
    """It does not change the fingerprint, so a resumed design must not shift."""
    raw = tomllib.loads(ARMS)
    turned = parse_study(tomli_w.dumps(raw | {"arms": dict(reversed(raw["arms"].items()))}))
    assert list(turned.arms) == list(ARMS.study().arms)[::-1]
    assert turned.columns() == ARMS.study().columns()


# ---------------------------------------------------------------- parameters of augmentations


def test_a_parameter_is_searched_only_where_its_augmentation_is_used() -> None:
    text = DESIGN.but("batch_size = 64", "batch_size = 64\ncutout_size = { low = 0.2, high = 0.6 }")
    spec = parse_study(f'{text}\n[arms.ralr.training]\naugment = {{ choices = [["crop"], ["crop", "cutout"]] }}\n')
    assert "cutout_size" not in spec.space("monotone")
    assert "cutout_size" in spec.space("ralr")
    with_it, without = ('["crop", "cutout"]', '["crop"]')
    rest = {"lr": 0.1, "weight_decay": 1e-3, "amplify.probability": 0.1, "amplify.lower": 1.0, "amplify.width": 1.0}
    drawn = [
        spec.configuration("ralr", rest | {"augment": augment, "cutout_size": size})
        for augment in (with_it, without)
        for size in (0.2, 0.6)
    ]
    assert [each.options.cutout_size for each in drawn] == [0.2, 0.6, 0.5, 0.5]  # type: ignore[attr-defined]
    assert drawn[2].identity(0) == drawn[3].identity(0)


def test_keys_that_earlier_releases_did_not_have_change_no_configuration() -> None:
    configuration = parse_study(DESIGN).configuration("monotone", {"lr": 0.1, "weight_decay": 1e-3})
    dumped = configuration.model_dump_json()
    assert not any(key in dumped for key in type(configuration.training).added)
    assert configuration.identity(0) == "b95e0bdf3251b6061772d17acabe6bbf5ca34cdfde2c18ab3ec699c3e97366af"


# ---------------------------------------------------------------- fingerprint


def reordered(table: Any) -> Any:
    return {key: reordered(table[key]) for key in reversed(table)} if isinstance(table, dict) else table


@pytest.mark.parametrize(
    "text",
    [
        "# a remark\n" + DESIGN,
        tomli_w.dumps(reordered(tomllib.loads(DESIGN))),
        DESIGN.but("lease_s = 30", "lease_s = 60"),
        DESIGN[: DESIGN.index("[storage]")],
        DESIGN.but("seed = 0", "seed = 0\ncost_per_hour = 2.5"),
        DESIGN.but("1e-3, high = 1.0", "0.001, high = 1"),
        DESIGN.but('optimizer = "sgd"', ""),
        DESIGN.but("blocks = 1", ""),
        DESIGN.but('metric = "accuracy"', "").but("margin = 0.005", ""),
    ],
    ids=[
        "comment",
        "order",
        "lease",
        "no storage",
        "price",
        "spelling",
        "a default left out",
        "another",
        "those of the metric",
    ],
)
def test_equivalent_files_have_the_same_fingerprint(text: str) -> None:
    assert parse_study(text).fingerprint == DESIGN.study().fingerprint


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "digits"', 'name = "digit"'),
        ("seed = 0", "seed = 1"),
        ('source = "digits"', 'source = "digits", limit = 100'),
        ("validation = 0.2", "validation = 0.25"),
        ("epochs = 12", "epochs = 13"),
        ("momentum = 0.9", ""),
        ("high = 1.0, log = true", "high = 1.0"),
        ("[0.5, 0.75]", "[0.75, 0.5]"),
        ("[arms.monotone]", "[arms.monotone]\n[arms.other]"),
        ("low = 0.05", "low = 0.06"),
        ("trials = 24", "trials = 25"),
        ("seeds = 5", "seeds = 6"),
    ],
)
def test_a_changed_value_changes_the_fingerprint(old: str, new: str) -> None:
    assert DESIGN.but(old, new).study().fingerprint != DESIGN.study().fingerprint


def test_fingerprints_never_change() -> None:
    """They identify stored studies, also those of earlier releases."""
    assert DESIGN.study().fingerprint == "972ba4b6ff83bfa2674510381f907b153d55e7db75abaa3bbca51e11a59fdc37"


def test_another_process_computes_the_same_fingerprint() -> None:
    code = "import sys; from ralr_tune.studyfile import parse_study; print(parse_study(sys.stdin.read()).fingerprint)"
    run = subprocess.run([sys.executable, "-c", code], input=ARMS, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ARMS.study().fingerprint


def test_a_range_survives_a_round_trip() -> None:
    domain = ARMS.study().space("plain")["batch_size"]
    assert isinstance(domain, Range)
    assert (domain.low, domain.high, domain.step) == (16, 64, 16)
    assert all(isinstance(end, int) for end in (domain.low, domain.high, domain.step))


# ---------------------------------------------------------------- the window of amplification


def _study(warmup: float, **amplify: Any) -> StudySpec:
    arms = {"monotone": {}, "ralr": {"amplify": {**AMPLIFY, **amplify}}}
    return simulated(schedule={"name": "cosine", "warmup": warmup}, arms=arms)


def test_without_a_warm_up_the_whole_run_is_the_same_study_as_no_window() -> None:
    assert _study(0.0).fingerprint == _study(0.0, window=[0.0, 1.0]).fingerprint
    assert changes(_study(0.0), _study(0.0, window=[0.0, 1.0])) == []


def test_a_study_that_an_earlier_release_stored_keeps_amplifying_its_warm_up() -> None:
    """Its fingerprint is that of the whole run as window, which was the default."""
    now, then = _study(0.25), _study(0.25, window=[0.0, 1.0])
    assert now.fingerprint != then.fingerprint
    params = {name: domain.low for name, domain in now.space("ralr").items()}
    windows = [spec.configuration("ralr", params).window for spec in (now, now.as_stored(then.fingerprint))]
    assert windows == [(0.25, 1.0), (0.0, 1.0)]
    assert now.as_stored(now.fingerprint) is now
    (refused,) = changes(now.as_stored(then.fingerprint), now)
    assert (refused.key, refused.applied) == ("arms.ralr.amplify.window", False)
    assert changes(now.as_stored(then.fingerprint), then) == []
