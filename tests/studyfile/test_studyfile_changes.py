"""The differences between two study files, and which ones a study accepts: a test for every kind of edit."""

from __future__ import annotations

import pytest

from ralr_tune.studyfile.changes import UNKNOWN_KEY, Change, _verdict, changes
from tests.studyfile.design_file import DESIGN, Text

RICH = (
    DESIGN.but("batch_size = 64", "batch_size = { low = 16, high = 64, step = 16 }")
    .but("momentum = 0.9", "momentum = { low = 0.5, high = 0.9, step = 0.1 }\nlabel_smoothing = 0.1")
    .but('optimizer = "sgd" ', 'optimizer = { choices = ["sgd", "rmsprop"] } ')
    .but("[arms.ralr]", "[arms.ralr]\ntraining = { epochs = { low = 4, high = 8 } }")
)
"""The design's file with every form of a value."""

NOISE = "[arms.noise]\nnoise = { std = { low = 0.1, high = 1.0 } }\n[arms.monotone]"


def found(old: Text, new: Text) -> dict[str, bool]:
    """Changed keys; True if the change is applied."""
    return {change.key: change.applied for change in changes(old.study(), new.study())}


def only(old: Text, new: Text) -> Change:
    (change,) = changes(old.study(), new.study())
    return change


SAME = {
    "nothing": DESIGN,
    "comment": Text("# a remark\n" + DESIGN),
    "storage.url": DESIGN.but("sqlite:///", "sqlite:////elsewhere/"),
    "default": DESIGN.but("blocks = 1", ""),
    "default lease": DESIGN.but("lease_s = 30", ""),
    "order": DESIGN.but('name = "digits"\n', "").but("seed = 0", 'seed = 0\nname = "digits"'),
    "form": DESIGN.but("low = 1e-3, high = 1.0", "high = 1, low = 0.001"),
}


@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
def test_equivalent_files_have_no_changes(text: Text) -> None:
    assert found(DESIGN, text) == {}


TAKEN = {
    "a larger budget": ("trials = 24", "trials = 48", "search.trials"),
    "a smaller budget": ("trials = 24", "trials = 12", "search.trials"),
    "more blocks": ("blocks = 1", "blocks = 3", "search.blocks"),
    "audits": ("trials = 24", "trials = 24\naudit = 0.5", "search.audit"),
    "confirm.top": ("top = 2", "top = 3", "confirm.top"),
    "confirm.seeds": ("seeds = 5", "seeds = 10", "confirm.seeds"),
    "confirm.margin": ("margin = 0.005", "margin = 0.01", "confirm.margin"),
    "confirm.confidence": ("confidence = 0.95", "confidence = 0.9", "confirm.confidence"),
    "a price": ("seed = 0", "seed = 0\ncost_per_hour = 2.5", "study.cost_per_hour"),
    "lease": ("lease_s = 30", "lease_s = 60", "storage.lease_s"),
    "a range, wider below": ("low = 0.05", "low = 0.01", "arms.ralr.amplify.probability"),
    "a range, wider above": ("high = 0.6", "high = 0.9", "arms.ralr.amplify.probability"),
    "a logarithmic range": ("low = 1e-3, high = 1.0", "low = 1e-4, high = 2.0", "training.lr"),
    "a range in steps": ("high = 0.9, step", "high = 0.95, step", "training.momentum"),
    "whole numbers in steps": ("low = 16, high = 64", "low = 16, high = 128", "training.batch_size"),
    "epochs": ("low = 4, high = 8", "low = 4, high = 16", "arms.ralr.training.epochs"),
    "a further arm": ("[arms.monotone]", "[arms.steps]\n[arms.monotone]", "arms.steps"),
    "a further arm with parameters": ("[arms.monotone]", NOISE, "arms.noise"),
}
TAKEN["a range in steps"] = ("low = 0.5, high", "low = 0.4, high", "training.momentum")


@pytest.mark.parametrize(("old", "new", "key"), TAKEN.values(), ids=TAKEN)
def test_changes_that_keep_earlier_trials_valid_are_applied(old: str, new: str, key: str) -> None:
    assert found(RICH, RICH.but(old, new)) == {key: True}


AUTO = DESIGN.but("seeds = 5", 'seeds = "auto"\nmost_seeds = 20')


@pytest.mark.parametrize(
    ("old", "new", "keys"),
    [
        (DESIGN, AUTO.but("most_seeds = 20", ""), ["confirm.seeds"]),
        (AUTO.but("most_seeds = 20", ""), DESIGN, ["confirm.seeds"]),
        (AUTO, AUTO.but("most_seeds = 20", "most_seeds = 40"), ["confirm.most_seeds"]),
        (AUTO, AUTO.but("margin = 0.005", "margin = 0.01"), ["confirm.margin"]),
        (AUTO, AUTO.but("confidence = 0.95", "confidence = 0.9"), ["confirm.confidence"]),
    ],
    ids=["fixed to auto", "auto to fixed", "how far", "margin", "confidence"],
)
def test_interim_analyses_are_fixed_once_winners_are_judged(old: Text, new: Text, keys: list[str]) -> None:
    before = {change.key: change for change in changes(old.study(), new.study(), judged=False)}
    assert list(before) == keys
    assert all(change.applied for change in before.values())
    after = changes(old.study(), new.study())
    assert [(change.key, change.applied) for change in after] == [(key, False) for key in keys]
    assert all("fixed once winners are judged" in str(change) for change in after)


def test_a_new_arm_is_applied_with_interim_analyses_too() -> None:
    assert found(AUTO, AUTO.but("[arms.monotone]", "[arms.steps]\n[arms.monotone]")) == {"arms.steps": True}


REFUSED = {
    "seed": ("seed = 0", "seed = 1", "study.seed", "seeds and the validation split"),
    "baseline": ('baseline = "monotone"', 'baseline = "ralr"', "study.baseline", "it defines the question"),
    "validation": ("validation = 0.2", "validation = 0.3", "task.validation", "another validation split"),
    "network": ('model = "small_cnn"', 'model = "resnet20"', "task.model", "another network"),
    "network's options": (
        'model = "small_cnn"', 'model = "small_cnn"\nmodel_options = { width = 8 }', "task.model_options.width",
        "another network",
    ),
    "data": ('source = "digits"', 'source = "digits", limit = 90', "task.data.limit", "other data"),
    "epochs": ("epochs = 12", "epochs = 13", "training.epochs", "trained with the old value"),
    "a fixed value": ("label_smoothing = 0.1", "label_smoothing = 0.2", "training.label_smoothing", "trained with"),
    "a value gone": ("label_smoothing = 0.1", "", "training.label_smoothing", "trained with the old value"),
    "a list": ('augment = ["crop"]', 'augment = ["crop", "flip"]', "training.augment", "trained with the old value"),
    "schedule": ("gamma = 0.1", "gamma = 0.2", "schedule.gamma", "trained with the old value"),
    "milestones": ("[0.5, 0.75]", "[0.5]", "schedule.milestones", "trained with the old value"),
    "a narrower range": ("low = 0.05", "low = 0.1", "arms.ralr.amplify.probability", "narrower: earlier trials may"),
    "wider and narrower": ("low = 1e-3, high = 1.0", "low = 1e-4, high = 0.5", "training.lr", "narrower"),
    "another scale": ("low = 0.05, high = 0.6", "low = 0.05, high = 0.6, log = true", "arms.ralr.amplify.probability",
                      "one scale per parameter"),
    "another step": ("step = 16", "step = 8", "training.batch_size", "off the new grid"),
    "no step": ("high = 64, step = 16", "high = 64", "training.batch_size", "off the new grid"),
    "a step": ("high = 0.6", "high = 0.6, step = 0.05", "arms.ralr.amplify.probability", "off the new grid"),
    "a shifted grid": ("low = 16, high = 64", "low = 8, high = 72", "training.batch_size", "off the new grid"),
    "a choice more": ('["sgd", "rmsprop"]', '["sgd", "rmsprop", "adamw"]', "training.optimizer", "one list of choices"),
    "a choice less": ('["sgd", "rmsprop"]', '["sgd"]', "training.optimizer", "one list of choices"),
    "choices in another order": ('["sgd", "rmsprop"]', '["rmsprop", "sgd"]', "training.optimizer", "one list of"),
    "fixed, now searched": ("label_smoothing = 0.1", "label_smoothing = { low = 0.0, high = 0.1 }",
                            "training.label_smoothing", "fixed, a range or a choice"),
    "searched, now fixed": ("weight_decay = { low = 1e-5, high = 1e-2, log = true }", "weight_decay = 0.0",
                            "training.weight_decay", "fixed, a range or a choice"),
    "a range, now a choice": ("low = 4, high = 8", "choices = [4, 8]", "arms.ralr.training.epochs",
                              "a range or a choice"),
    "an arm gone": ("[arms.monotone]", '[arms.other]\n[arms.old]\n[arms.monotone]', "arms.old", "cannot be removed"),
    "an arm's own value": ("[arms.monotone]", "[arms.monotone]\ntraining = { momentum = 0.8 }",
                           "arms.monotone.training", "trained with the old value"),
    "sampler": ('sampler = "tpe"', 'sampler = "gp"', "search.sampler", "mix the trials of two samplers"),
    "sampler's options": ('sampler = "tpe"', 'sampler = "tpe"\nsampler_options = { n_startup_trials = 5 }',
                          "search.sampler_options.n_startup_trials", "mix the trials of two samplers"),
    "pruner": ('pruner = "median"', 'pruner = "asha"', "search.pruner", "pruned by another rule"),
    "pruner's options": ('pruner = "median"', 'pruner = "median"\npruner_options = { n_startup_trials = 9 }',
                         "search.pruner_options.n_startup_trials", "pruned by another rule"),
    "what the pruner judges by": ('pruner = "median"', 'pruner = "median"\nprune_on = "smoothed"', "search.prune_on",
                                  "pruned by another rule"),
    "recipes": ("start = [{ lr = 0.1 }]", "start = [{ lr = 0.1 }, { lr = 0.2 }]", "search.start", "the first trials"),
    "no recipe": ("start = [{ lr = 0.1 }]", "", "search.start", "the first trials of every arm"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "key", "reason"), REFUSED.values(), ids=REFUSED)
def test_changes_that_mix_incomparable_trials_are_refused(old: str, new: str, key: str, reason: str) -> None:
    before, after = (RICH.but(old, new), RICH) if key == "arms.old" else (RICH, RICH.but(old, new))
    verdicts = {change.key: change for change in changes(before.study(), after.study())}
    assert not verdicts[key].applied
    assert reason in str(verdicts[key])
    assert len(verdicts) == (2 if key == "arms.old" else 1)


def test_fewer_blocks_are_refused() -> None:
    change = only(DESIGN.but("blocks = 1", "blocks = 3"), DESIGN)
    assert (change.key, change.applied) == ("search.blocks", False)
    assert str(change) == "search.blocks: 3 -> 1: planned blocks are part of the result and cannot be removed"


def test_blocks_of_a_divided_search_keep_the_size_of_those_that_have_begun() -> None:
    divided = DESIGN.but('sampler = "tpe"', 'sampler = "qmc"\ndivided = true').but("blocks = 1", "blocks = 4")
    more = divided.but("blocks = 4", "blocks = 6")
    assert found(divided, more) == {"search.trials": False, "search.blocks": True}
    assert found(divided, more.but("trials = 24", "trials = 36")) == {"search.blocks": True}
    assert found(divided, divided.but("divided = true", "")).pop("search.divided") is False


def test_another_metric_is_refused() -> None:
    change = only(DESIGN, DESIGN.but('metric = "accuracy"', 'metric = "balanced_accuracy"'))
    assert (change.key, change.applied) == ("study.metric", False)


@pytest.mark.parametrize(("line", "without"), [('metric = "accuracy"', ""), ("margin = 0.005", "")])
def test_an_explicit_default_is_no_change(line: str, without: str) -> None:
    assert changes(DESIGN.study(), DESIGN.but(line, without).study()) == []


def test_every_key_of_the_file_has_a_verdict() -> None:
    """A new key is refused until it has a verdict."""
    spec = DESIGN.study()
    keys = [(table, key) for table, section in spec.file for key in getattr(type(section), "model_fields", ())]
    silent = [path for path in keys if _verdict(path, 1, 2, spec, spec).reason == UNKNOWN_KEY]
    assert silent == [("storage", "url")]  # the URL is not part of the study
    assert not _verdict(("search", "novelty"), 1, 2, spec, spec).applied


FOLDER = DESIGN.but('{ source = "digits" }', '{ source = "torchvision", dataset = "MNIST", root = "data" }')


def test_downloadable_data_are_the_same_data() -> None:
    assert found(FOLDER, FOLDER.but('root = "data"', 'root = "data", download = true')) == {"task.data.download": True}
    assert "keep a link at the old path" in str(only(FOLDER, FOLDER.but('root = "data"', 'root = "elsewhere"')))


def test_another_kind_of_task_is_refused_key_by_key() -> None:
    simulated = Text(
        DESIGN[: DESIGN.index("[task]")] + '[task]\nkind = "simulated"\n\n' + DESIGN[DESIGN.index("[training]") :]
    )
    verdicts = found(DESIGN, simulated)
    assert {"task.kind", "task.model", "task.data.source"} <= set(verdicts)
    assert not any(verdicts.values())


WIDE = ("low = 1e-3, high = 1.0", "low = 1e-4, high = 1.0")


def test_a_sampler_that_cannot_follow_refuses_the_wider_range() -> None:
    group = DESIGN.but('sampler = "tpe"', 'sampler = "tpe"\nsampler_options = { group = true }')
    assert "never samples outside" in str(only(group, group.but(*WIDE)))
    assert found(group.but("group = true", "group = false"), group.but("group = true", "group = false").but(*WIDE)) == {
        "training.lr": True
    }


def test_longer_runs_would_change_hyperbands_brackets() -> None:
    hyperband = RICH.but('pruner = "median"', 'pruner = "hyperband"')
    longer = ("low = 4, high = 8", "low = 4, high = 16")
    assert "brackets" in str(only(hyperband, hyperband.but(*longer)))
    assert found(hyperband, hyperband.but(*WIDE)) == {"training.lr": True}
    bound = hyperband.but('"hyperband"', '"hyperband"\npruner_options = { max_resource = 16 }')
    assert found(bound, bound.but(*longer)) == {"arms.ralr.training.epochs": True}


def test_a_new_arm_must_not_change_the_shared_design() -> None:
    design = DESIGN.but('sampler = "tpe"', 'sampler = "qmc"')
    assert found(design, design.but("[arms.monotone]", "[arms.steps]\n[arms.monotone]")) == {"arms.steps": True}
    change = only(design, design.but("[arms.monotone]", NOISE))
    assert not change.applied
    assert "it would change the quasi-random design that all arms share" in str(change)
    assert found(design, design.but(*WIDE)) == {"training.lr": True}


def test_every_change_is_found() -> None:
    text = DESIGN.but("trials = 24", "trials = 48").but("seed = 0", "seed = 1").but("gamma = 0.1", "gamma = 0.2")
    assert found(DESIGN, text) == {"study.seed": False, "schedule.gamma": False, "search.trials": True}


def test_a_change_states_key_before_after_and_reason() -> None:
    assert str(only(DESIGN, DESIGN.but(*WIDE))) == (
        "training.lr: 0.001 to 1.0 (log) -> 0.0001 to 1.0 (log): wider; new trials use it"
    )
    assert str(only(DESIGN, DESIGN.but("epochs = 12", "epochs = { low = 1, high = 2 }"))) == (
        "training.epochs: 12 -> 1 to 2: a parameter must be fixed, a range or a choice for all trials of a study"
    )
    assert str(only(DESIGN, DESIGN.but("[arms.monotone]", "[arms.x]\n[arms.monotone]"))) == (
        "arms.x: nothing -> a table: a new arm, with the full budget and the seeds of the other arms"
    )
