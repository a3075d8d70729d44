"""Keys that are valid alone but not together: reported with other problems, and only if certain."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ralr_tune.errors import StudyFileError
from ralr_tune.studyfile import load_study_file
from ralr_tune.studyfile.contradictions import Contradiction
from tests.studies import simulated_text
from tests.studyfile.design_file import DESIGN, Text, complaints

START = "start = [{ lr = 0.1 }]"
MILESTONES = "milestones = [0.5, 0.75]"
AMPLIFY = DESIGN[DESIGN.index("amplify = ") : DESIGN.index("   # law, granularity, window")]


def curve(table: str, arm: str = "") -> Text:
    """The design's file with another [schedule], or with an own schedule for arm `ralr`."""
    where = "[arms.ralr.schedule]" if arm else "[schedule]"
    text = DESIGN if arm else Text(DESIGN[: DESIGN.index("[schedule]")] + DESIGN[DESIGN.index("[arms.monotone]") :])
    return text.but("[search]", f"{where}\n{table}\n[search]")


# ---------------------------------------------------------------- one contradiction


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        (
            'baseline = "monotone"',
            'baseline = "monoton"',
            ["study.baseline = \"monoton\": no such arm; did you mean 'monotone'?"],
        ),
        ('metric = "accuracy"', 'metric = "acc"', ["study.metric = \"acc\": did you mean 'accuracy'?"]),
        ('metric = "accuracy"', 'metric = "los"', ["study.metric = \"los\": did you mean 'loss'?"]),
        (
            'metric = "accuracy"',
            'metric = "error"',
            ['study.metric = "error": allowed: accuracy, balanced_accuracy, top5_accuracy, loss'],
        ),
        (
            "seeds = 5",
            "seeds = 5\nmost_seeds = 20",
            ['confirm.most_seeds = 20: only allowed with confirm.seeds = "auto", but that is 5'],
        ),
        (
            "[arms.monotone]",
            "[arms.RALR]\n[arms.monotone]",
            ["arms.ralr: differs from arms.RALR only in upper and lower case; choose another name"],
        ),
        (
            'optimizer = "sgd"',
            'optimizer = "adam"',
            [
                f"training.momentum = 0.9: not an option of adam but of muon, rmsprop, sgd (arm {arm}); "
                "allowed: amsgrad, betas, eps"
                for arm in ("monotone", "ralr")
            ],
        ),
        (
            "[arms.monotone]",
            '[arms.monotone.training]\noptimizer = "adamw"\nalpha = 0.5\n',
            [
                f"{key}: not an option of adamw but of {owners} (arm monotone); allowed: amsgrad, betas, eps"
                for key, owners in (
                    ("training.momentum = 0.9", "muon, rmsprop, sgd"),
                    ("arms.monotone.training.alpha = 0.5", "asgd, rmsprop"),
                )
            ],
        ),
        (
            "momentum = 0.9",
            "nesterov = true",
            [
                f"training.nesterov = true: needs a momentum above 0 and no dampening (arm {arm})"
                for arm in ("monotone", "ralr")
            ],
        ),
        (
            'optimizer = "sgd"',
            'optimizer = "sgd"\noptimizer_options = { a = 1 }',
            [
                'training.optimizer_options = {"a": 1}: only for an optimizer by import path, '
                f"not for sgd (arm {arm})"
                for arm in ("monotone", "ralr")
            ],
        ),
        (
            "[schedule] ",
            "[training.optimizers.sgd]\nbetas = [0.9, 0.9]\n[schedule] ",
            [
                "training.optimizers.sgd.betas = (0.9, 0.9): not an option of sgd but of adam, adamax, adamw, muon, "
                f"nadam, radam (arm {arm}); allowed: dampening, momentum, nesterov"
                for arm in ("monotone", "ralr")
            ],
        ),
        (
            "[schedule] ",
            "[training.optimizers.sgd]\nlr = { low = 0.01, high = 1.0 }\n[schedule] ",
            [
                "training.lr = 0.001 to 1.0 (log): no trial of arm "
                f"{arm} would use it: sgd has its own in "
                "training.optimizers.sgd; remove that one"
                for arm in ("monotone", "ralr")
            ],
        ),
        (
            "[schedule] ",
            "[training.optimizers.adam]\nlr = 0.1\n[schedule] ",
            ["training.optimizers.adam: no arm has this optimizer; allowed: sgd"],
        ),
        (START, "start = [{ lrr = 1 }]", ["search.start[0].lrr = 1: no such parameter; did you mean 'lr'?"]),
        (
            START,
            "start = [{ momentum = 0.9 }]",
            [
                "search.start[0].momentum = 0.9: not searched in any arm; allowed: "
                "amplify.lower, amplify.probability, amplify.width, lr, weight_decay"
            ],
        ),
        (
            START,
            "start = [{ lr = 0.1 }, { lr = 2 }]",
            [f"search.start[1].lr = 2: outside arm {arm}'s space: 0.001 to 1.0 (log)" for arm in ("monotone", "ralr")],
        ),
        (
            START,
            'start = [{ "amplify.width" = 5 }]',
            ["search.start[0].amplify.width = 5: outside arm ralr's space: 0.0 to 4.0"],
        ),
        (
            "blocks = 1",
            "blocks = 5\ndivided = true",
            [
                "search.divided = true: tpe learns from its whole search, so its parts are not independent; "
                'use "qmc" or "random", or a search per block',
                "search.divided = true: 24 trials cannot be divided among 5 blocks evenly; the nearest number is 25",
            ],
        ),
        (
            'sampler = "tpe"',
            'sampler = "qmc"\ndivided = true',
            [
                "search.divided = true: needs blocks, at least 2 (fewer than 4 rarely give a verdict on the schedules)",
            ],
        ),
        (
            START,
            'start = [{ lr = 0.1 }]\nstart_from = "digits"',
            ['search.start_from = "digits": is this study itself; give an earlier study'],
        ),
        (
            START,
            "sampler_options = { seed = 1 }",
            ["search.sampler_options.seed = 1: the sampler is seeded from study.seed; set that instead"],
        ),
        (
            'pruner = "median"',
            'pruner = "none"\naudit = 0.5\nprune_on = "best"',
            [
                "search.audit = 0.5: the pruner none stops no trials that could be audited; set 0",
                'search.prune_on = "best": has no effect with the pruner none; use "value"',
            ],
        ),
        (
            'pruner = "median"',
            'pruner = "patient"\nprune_on = "best"',
            [
                'search.prune_on = "best": the patient pruner waits for values to get worse, and a best value '
                "never does; use value or smoothed"
            ],
        ),
        (
            "[arms.ralr]",
            '[arms.noise]\nnoise = { law = "uniform", std = 0.5 }\n[arms.ralr]',
            ["arms.noise.noise.std = 0.5; allowed: no std, since law is 'uniform'; only 'normal' uses it"],
        ),
    ],
)
def test_one_contradiction(old: str, new: str, lines: list[str]) -> None:
    assert sorted(complaints(DESIGN.but(old, new))) == sorted(lines)


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ('name = "multistep"\nmilestones = [5, 12]', "schedule.milestones = 12; allowed: a number in (0, 12)"),
        ('name = "multistep"\nmilestones = [0.2]\nwarmup = 3', "schedule.milestones = 0.2; allowed: a position after"),
        ('name = "cosine"\nwarmup = 12', "schedule.warmup = 12.0; allowed: a number in [0, 12)"),
        ('name = "one_cycle"\npeak_at = 12', "schedule.peak_at = 12.0; allowed: a number in (0, 12)"),
        ('name = "step"', "schedule.step_size is missing: 'step' needs it"),
        ('name = { choices = ["cosine", "cyclic"] }', "schedule.period is missing: 'cyclic' needs it"),
        ('name = "cyclic"\nperiod = 4\ngamma = 0.9', "schedule.gamma = 0.9; allowed: no gamma, since mode is"),
        ('name = "cosine"\ngamma = 0.9', "schedule.gamma = 0.9: not an option of cosine; allowed: end_factor"),
        ("gamma = 0.9", "schedule.gamma = 0.9: not an option of constant; allowed: none"),
        (
            'name = { choices = ["cosine", "linear"] }\ngamma = 0.9',
            "schedule.gamma = 0.9: not an option of cosine or linear; allowed: end_factor",
        ),
        # only some corners of the space are impossible, each for one reason
        ("warmup = { choices = [3, 12, 1] }", "schedule.warmup = 12.0; allowed: a number in [0, 12)"),
        (
            'name = "multistep"\nmilestones = { choices = [[0.5], [20]] }\nwarmup = { low = 0.1, high = 0.2 }',
            "schedule.milestones = 20; allowed: a number in (0, 12)",
        ),
        (
            'name = { choices = ["constant", "multistep"] }\nmilestones = [0.3]\nwarmup = { low = 0.1, high = 0.4 }',
            "schedule.milestones = 0.3; allowed: a position after the warm-up, which ends at epoch 4.8",
        ),
    ],
)
@pytest.mark.parametrize("arm", ["", "ralr"])
def test_an_impossible_curve(table: str, line: str, arm: str) -> None:
    found = complaints(curve(table, arm))
    expected = f"arms.ralr.{line}" if arm else line
    assert found
    assert all(each.startswith(expected) for each in found)


def test_the_arms_of_an_impossible_curve_are_named() -> None:
    found = complaints(
        DESIGN.but(MILESTONES, "milestones = [9]").but("[search]", "[arms.ralr.training]\nepochs = 5\n[search]")
    )
    assert found == ["schedule.milestones = 9; allowed: a number in (0, 5) (arm ralr)"]


@pytest.mark.parametrize("epochs", ["{ low = 2, high = 20 }", "{ choices = [20, 2] }"])
def test_corners_are_crossed(epochs: str) -> None:
    """2 epochs with a warm-up of 3: neither all at the low end, nor all at the high end."""
    text = curve("warmup = { low = 1, high = 3, step = 1 }").but("epochs = 12", f"epochs = {epochs}")
    assert {line.split(";")[0] for line in complaints(text)} == {"schedule.warmup = 3.0"}


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("warmup = { low = 0, high = 5 }", "warmup"),
        ("warmup = { low = 0.5, high = 1 }", "warmup"),
        ("warmup = { low = 0, high = 1.5, step = 0.5 }", "warmup"),
        ('name = "step"\nstep_size = { low = 0.1, high = 5 }', "step_size"),
        ('name = "sgdr"\nperiod = { low = 0.1, high = 5, log = true }', "period"),
        ('name = "one_cycle"\npeak_at = { low = 0.3, high = 4 }', "peak_at"),
    ],
)
def test_a_range_over_shares_and_epochs_is_ambiguous(table: str, key: str) -> None:
    """0.5 would be half the run, but 1.5 one and a half epochs."""
    (line,) = complaints(curve(table))
    assert line.startswith(f"schedule.{key} = ")
    assert line.endswith("below 1 is a share of the run, otherwise epochs; search one of them")


@pytest.mark.parametrize(
    "table",
    [
        "warmup = { low = 0, high = 0.5 }",
        "warmup = { low = 0, high = 4, step = 2 }",
        "warmup = { low = 1, high = 5 }",
        "warmup = { choices = [0, 0.1, 3] }",
        'name = "one_cycle"\npeak_at = { low = 0.3, high = 0.9 }',
    ],
)
def test_ranges_of_lengths_in_one_unit(table: str) -> None:
    assert complaints(curve(table)) == []


@pytest.mark.parametrize(
    ("keys", "fine"),
    [
        ("momentum = 0.9\nnesterov = true", True),
        ("momentum = 0.9\nnesterov = { choices = [true, false] }\ndampening = 0.0", True),
        ("momentum = 0.0\nnesterov = false", True),
        ("momentum = 0.0\nnesterov = true", False),
        ("momentum = { low = 0.0, high = 0.9 }\nnesterov = { choices = [false, true] }", False),
        ("momentum = 0.9\nnesterov = true\ndampening = { low = 0, high = 0.1 }", False),
    ],
)
def test_nesterov_as_torch_requires_it(keys: str, fine: bool) -> None:
    assert (complaints(DESIGN.but("momentum = 0.9", keys)) == []) is fine


# ---------------------------------------------------------------- with other problems


def test_contradictions_are_reported_with_wrong_keys() -> None:
    text = (
        DESIGN.but('baseline = "monotone"', 'baseline = "other"')
        .but("seed = 0", "sed = 0")
        .but("trials = 24 ", "trials = 0 ")
        .but("validation = 0.2", "validation = 2")
        .but(MILESTONES, "milestones = [40]")
        .but(START, "start = [{ weight_decay = 5 }, { lrr = 1 }]")
        .but("low = 0.05, high = 0.6", "low = 0.6, high = 0.05")
        .but("momentum = 0.9", "momentum = 0.9\nbetas = [0.9, 0.99]")
    )
    assert {line.split(" = ")[0] for line in complaints(text)} == {
        "study.sed",
        "search.trials",
        "task.validation",
        "arms.ralr.amplify.probability",
        "study.baseline",
        "schedule.milestones",
        "search.start[0].weight_decay",
        "search.start[1].lrr",
        "training.betas",
    }


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        # what depends on a wrong key may be valid: it is not reported
        (DESIGN.but("epochs = 12", "epochs = 0").but(MILESTONES, "milestones = [5, 8]"), 1),
        (DESIGN.but("epochs = 12", "").but(MILESTONES, "milestones = [5, 8]"), 1),
        (DESIGN.but('optimizer = "sgd"', 'optimizer = "admw"').but("momentum = 0.9", "betas = [0.9, 0.99]"), 1),
        (DESIGN.but('name = "multistep"', 'name = "multi"'), 1),
        (DESIGN.but("lr = { low = 1e-3, high = 1.0", "lr = { low = 1.0, high = 1e-3"), 1),
        (DESIGN.but("lr = { low = 1e-3, high = 1.0", "lr = { low = 1e-3"), 1),
        (DESIGN.but(START, 'start = [{ "amplify.width" = 1.0 }]').but("width =", "widht ="), 1),
        (DESIGN.but(START, 'start = [{ "amplify.width" = 1.0 }]').but(AMPLIFY, "amplify = 3"), 1),
        (DESIGN.but("[arms.monotone]", "[arms]\nmonotone = 5"), 1),
        (DESIGN.but("[arms.monotone]", '[arms.monotone.training]\noptimizer = "x"'), 1),
        (DESIGN.but("momentum = 0.9", 'momentum = "0.9"\nnesterov = true'), 1),
        (DESIGN.but("[arms.monotone]", '[arms.noise]\nnoise = { law = "unifrm", std = 0.5 }\n[arms.monotone]'), 1),
        (DESIGN.but('baseline = "monotone"', ""), 1),
        (DESIGN.but("[schedule]  ", "[shedule]  "), 1),
    ],
)
def test_uncertain_problems_are_not_reported(text: str, lines: int) -> None:
    assert len(complaints(text)) == lines, complaints(text)


def test_a_wrong_metric_is_reported_if_the_kind_is_known() -> None:
    wrong = DESIGN.but('metric = "accuracy"', 'metric = "acc"').but("trials = 24", "trials = 0")
    assert complaints(wrong) == [
        "search.trials = 0: must be 1 or more",
        "study.metric = \"acc\": did you mean 'accuracy'?",
    ]
    unknown = DESIGN.but('metric = "accuracy"', 'metric = "acc"').but('kind = "classification"', 'kind = "classes"')
    assert not any("study.metric" in line for line in complaints(unknown))


def test_a_contradiction_depends_on_faults_at_above_and_below_it() -> None:
    contradiction = Contradiction("x", (("schedule",), ("training", "epochs")))
    for fault in [("schedule",), ("schedule", "warmup"), ("training",), ("training", "epochs", "low"), ()]:
        assert contradiction.depends_on([("study", "seed"), fault])
    for fault in [("training", "lr"), ("arms", "a", "schedule")]:
        assert not contradiction.depends_on([fault])
    assert not Contradiction("x").depends_on([("schedule",)])


# ---------------------------------------------------------------- files


def folder_study(path: str) -> Text:
    return DESIGN.but('data = { source = "digits" }', f'data = {{ source = "folder", path = "{path}" }}')


def test_a_missing_data_folder_is_reported_with_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text(folder_study("pictures").but("epochs = 12", "epochs = 0").but("validation = 0.2", "validation = 2"))
    with pytest.raises(StudyFileError) as caught:
        load_study_file(file)
    keys = [line.removeprefix(f"{file}: ").split(" = ")[0] for line in caught.value.problems]
    assert keys == ["task.validation", "training.epochs", "task.data.path"]
    assert f"no such file or folder (relative to {Path.cwd()})" in caught.value.problems[-1]


def test_an_existing_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.toml"
    (tmp_path / "pictures").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for path in (str(tmp_path / "pictures"), "pictures", "~/pictures"):
        file.write_text(folder_study(path))
        assert load_study_file(file).task.data.path == path  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "a" * 300, "/" * 5000 + "x", "a\\u0000b", "x.toml/y"])
def test_impossible_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.toml").write_text(folder_study(path))
    with pytest.raises(StudyFileError, match=r"x.toml: task.data.path = .*no such file or folder"):
        load_study_file("x.toml")


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is closed to root")
def test_an_unreadable_folder(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text(folder_study(str(tmp_path / "closed" / "x")))
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(StudyFileError, match="no such file or folder"):
        load_study_file(file)


# ---------------------------------------------------------------- regularisers


def regularised(training: str, arm: str) -> str:
    """The design with these lines in [training] and in [arms.ralr.training]."""
    text = DESIGN.but("momentum = 0.9\n", "").but("batch_size = 64", f"batch_size = 64\n{training}")
    if "weight_decay = " in training:
        text = text.but("weight_decay = { low", "# { low")
    if "optimizer" in training:
        text = text.but('optimizer = "sgd" ', "#")
    return text + (f"\n[arms.ralr.training]\n{arm}\n" if arm else "")


@pytest.mark.parametrize(
    ("training", "arm", "lines"),
    [
        ("cutout_size = 0.3", "", ['training.cutout_size = 0.3: has no effect; needs "cutout" in augment']),
        ("cutout_size = 0.3", 'augment = ["cutout"]', []),
        (
            "mixup_alpha = { low = 0.1, high = 1.0 }",
            "cutout_size = { choices = [0.2, 0.4] }",
            ["training.mixup_alpha = ", "arms.ralr.training.cutout_size = "],
        ),
        ("rand_augment_magnitude = 5", 'augment = { choices = [["crop"], ["rand_augment"]] }', []),
        (
            "",
            "random_erasing_probability = 0.1",
            ["arms.ralr.training.random_erasing_probability = 0.1: has no effect"],
        ),
        (
            "weight_decay_end = 0.1",
            "",
            2 * ["training.weight_decay_end = 0.1: has no effect; needs weight_decay_sched"],
        ),
        ('weight_decay_end = 0.1\nweight_decay_schedule = "linear"', "", []),
        (
            'weight_decay_follows = "base"',
            'optimizer = "adamw"',  # only the other arm's is not decoupled
            ['training.weight_decay_follows = "base": has no effect; needs an optimizer with decoupled weight decay'],
        ),
        ('weight_decay_follows = "base"\noptimizer = "adamw"', "", []),
        ('weight_decay_follows = "base"\noptimizer = "nadam"\ndecoupled_weight_decay = true', "", []),
        ('weight_decay_follows = "base"\noptimizer = "nadam"', "", 2 * ["training.weight_decay_follows"]),
        ('weight_decay_schedule = "linear"\nweight_decay = 0.0', "", 2 * ["training.weight_decay_schedule"]),
    ],
)
def test_a_key_of_a_regulariser_without_effect(training: str, arm: str, lines: list[str]) -> None:
    found = complaints(regularised(training, arm))
    assert len(found) == len(lines)
    assert all(line in each for line, each in zip(lines, found, strict=True))


# ---------------------------------------------------------------- pairs of one

PAIRS = "batch_size = 1: mixup mixes pairs of images; needs a batch size of 2 or more"


@pytest.mark.parametrize(
    ("size", "augment", "reported"),
    [
        ("1", '["mixup"]', True),
        ("1", '["crop", "flip", "cutout"]', False),
        ("2", '["mixup", "cutmix"]', False),
        ("{ choices = [8, 1] }", '{ choices = [[], ["mixup"]] }', True),
        ("{ low = 1, high = 64, log = true }", '["mixup"]', True),
    ],
)
def test_a_batch_of_one_has_no_pairs(size: str, augment: str, reported: bool) -> None:
    text = DESIGN.but("batch_size = 64", f"batch_size = {size}").but('augment = ["crop"]', f"augment = {augment}")
    lines = [f"training.{PAIRS} (arm {arm})" for arm in ("monotone", "ralr")]
    assert complaints(text) == (lines if reported else [])


# ---------------------------------------------------------------- known effects of the simulated task


@pytest.mark.parametrize(
    ("training", "effects", "lines"),
    [
        ({}, {"weight_decay": {"best": 1e-4, "loss": 0.1, "log": True}, "amplify.width": {"best": 1, "loss": 0.1}}, []),
        (
            {},
            {"weight_decay": {"best": 1e-4, "loss": 0.1}},
            [
                f"task.data.effects.weight_decay.log = false: arm {arm} searches it with log = true; use the same"
                for arm in ("monotone", "ralr")
            ],
        ),
        (
            {},
            {"amplify.width": {"best": 1, "loss": 0.1, "log": True}},
            ['task.data.effects."amplify.width".log = true: arm ralr searches it with log = false; use the same'],
        ),
        (
            {"weight_decay": 0.0},
            {"weight_decay": {"best": 1e-4, "loss": 0.1, "log": True}},
            [
                f"task.data.effects.weight_decay.log = true: weight_decay is 0 in arm {arm}; must be above 0"
                for arm in ("monotone", "ralr")
            ],
        ),
        ({"momentum": {"choices": [0.5, 0.9]}}, {"momentum": {"best": 0.9, "loss": 0.1, "log": True}}, []),
        ({}, {"momentum": {"best": 0.9, "loss": 0.1, "log": True}}, []),  # no arm has it
    ],
)
def test_effects_must_use_the_scale_that_is_searched(
    training: dict[str, object], effects: dict[str, object], lines: list[str]
) -> None:
    assert complaints(simulated_text(training=training, task={"data": {"effects": effects}})) == lines
