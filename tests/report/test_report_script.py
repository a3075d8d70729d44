"""The Python form: scripts run in this process on a few tiny images; some run in a separate process."""

from __future__ import annotations

import ast
import inspect
import itertools
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from ralr_tune.errors import UsageError
from ralr_tune.kinds.classification import augment, mixing, npz, sources, torchvision_sets
from ralr_tune.kinds.classification.folder import read as read_folder
from ralr_tune.kinds.classification.section import AUGMENTATIONS, ClassificationSection
from ralr_tune.kinds.classification.sources import open_source
from ralr_tune.kinds.simulated.section import SimulatedSection
from ralr_tune.models import registry
from ralr_tune.models.names import NAMES
from ralr_tune.report.export import render
from ralr_tune.schedules import amplification, curves, noise, rate
from ralr_tune.schedules.curves import CURVES
from ralr_tune.seeds import derive_seed
from ralr_tune.studyfile import registry as registry_of_kinds
from ralr_tune.studyfile.exported import Exported, exported_model
from ralr_tune.studyfile.optimizer_keys import OPTIMIZERS
from ralr_tune.training.optimizer import make_optimizer
from tests.exports import SEED, check_trains_as_package, configuration, loaded, ran

ROOT = Path(__file__).parents[2]
STEPS = 3
TINY = "tests.exports:Tiny"
AMPLIFY = {"probability": 0.5, "lower": 1.5, "width": 2.0}


def script(**changes: dict[str, Any] | None) -> str:
    return render(configuration(**changes), "python")


def random_arrays(*, count: int = 10, size: int = 4, channels: int = 1) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, (count, size, size, channels), dtype=np.uint8),
        "train_labels": np.arange(count) % 3,
        "test_images": rng.integers(0, 256, (6, size, size, channels), dtype=np.uint8),
        "test_labels": np.arange(6) % 3,
    }


@pytest.fixture
def npz_file(tmp_path: Path) -> Path:
    """Ten images of 4x4 in three classes: three steps of four."""
    np.savez(tmp_path / "data.npz", **random_arrays())  # type: ignore[arg-type]
    return tmp_path / "data.npz"


# ---------------------------------------------------------------- the learning rate

SHAPES: list[tuple[str, dict[str, Any]]] = [
    ("constant", {}),
    ("linear", {"end_factor": 0.2}),
    ("step", {"step_size": 3, "gamma": 0.3}),
    ("step", {"step_size": 0.4, "gamma": 0.3}),
    ("multistep", {"milestones": [0.55, 6], "gamma": 0.1}),
    ("exponential", {"gamma": 0.8}),
    ("polynomial", {"power": 2.0}),
    ("cosine", {}),
    ("cosine", {"end_factor": 0.1}),
    ("sgdr", {"period": 2, "multiplier": 2, "end_factor": 0.05}),
    ("sgdr", {"period": 0.3}),
    ("cyclic", {"period": 3, "low_factor": 0.3, "mode": "triangular2"}),
    ("cyclic", {"period": 4, "mode": "exp_range", "gamma": 0.9}),
    ("one_cycle", {"peak_at": 0.45, "div_factor": 20.0, "final_div_factor": 100.0}),
    ("inverse_sqrt", {}),
]


def test_every_curve_is_among_the_shapes() -> None:
    assert {name for name, _ in SHAPES} == set(CURVES)


@contextmanager
def steps_seen() -> Iterator[list[dict[str, Any]]]:
    """The optimizer's group at every step taken inside."""
    taken: list[dict[str, Any]] = []

    def note(optimizer: Optimizer, *_: Any) -> None:
        taken.append(dict(optimizer.param_groups[0]))

    handle = register_optimizer_step_pre_hook(note)
    try:
        yield taken
    finally:
        handle.remove()


def rates(folder: Path, text: str) -> list[float]:
    """The rate of every step that the script's optimizer took."""
    with steps_seen() as taken:
        ran(folder, text)
    return [group["lr"] for group in taken]


def expected(made: Exported) -> NDArray[np.float64]:
    learning_rate = made.configuration().learning_rate(STEPS, seed=derive_seed("amplify", SEED))
    return learning_rate.trace().ravel()


def with_rate(npz_file: Path, schedule: dict[str, Any], perturbation: dict[str, Any]) -> Exported:
    task = {"data": {"source": "arrays", "path": str(npz_file)}, "model": TINY}
    return configuration(task=task, schedule=schedule, **perturbation)


@pytest.mark.parametrize("warmup", [0.0, 2.0])
@pytest.mark.parametrize("granularity", ["epoch", "step"])
@pytest.mark.parametrize(("name", "options"), SHAPES, ids=str)
def test_the_script_follows_the_curve_of_the_study(
    tmp_path: Path, npz_file: Path, name: str, options: dict[str, Any], granularity: str, warmup: float
) -> None:
    warmup = warmup or (0.5 if name == "inverse_sqrt" else 0.0)  # which needs one
    schedule = {"name": name, "options": options, "warmup": warmup, "granularity": granularity}
    made = with_rate(npz_file, schedule, {})
    np.testing.assert_array_equal(rates(tmp_path, render(made, "python")), expected(made))


@pytest.mark.parametrize("amplified", ["epoch", "step"])
@pytest.mark.parametrize("granularity", ["epoch", "step"])
@pytest.mark.parametrize("name", sorted(CURVES))
def test_the_script_amplifies_as_the_study(
    tmp_path: Path, npz_file: Path, name: str, granularity: str, amplified: str
) -> None:
    options = {"step": {"step_size": 2}, "cyclic": {"period": 3}, "sgdr": {"period": 3}}.get(name, {})
    schedule = {"name": name, "options": options, "warmup": 1.0, "granularity": granularity}
    made = with_rate(npz_file, schedule, {"amplify": AMPLIFY | {"granularity": amplified, "law": "loguniform"}})
    taken = rates(tmp_path, render(made, "python"))
    np.testing.assert_array_equal(taken, expected(made))
    plain = made.configuration().without_amplification().learning_rate(STEPS, seed=0).trace().ravel()
    assert 0 < sum(taken > 1.4 * plain) < len(taken)


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": {"name": "cosine", "warmup": 0.2}},  # 1.6 epochs
        {"amplify": AMPLIFY | {"window": [0.6, 0.62]}, "schedule": {"name": "cosine"}},  # no epoch begins in it
        {"amplify": AMPLIFY | {"window": [0.2, 0.7]}},
        {"amplify": AMPLIFY | {"window": [0.2, 0.7], "granularity": "step"}, "schedule": {"granularity": "step"}},
        {"noise": {}},
        {"noise": {"law": "uniform", "amplitude": 0.3, "granularity": "step"}, "schedule": {"name": "cosine"}},
        {"noise": {"std": 0.2, "window": [0.2, 0.7]}, "schedule": {"name": "cosine", "granularity": "step"}},
    ],
    ids=str,
)
def test_windows_shares_and_noise(tmp_path: Path, npz_file: Path, changes: dict[str, Any]) -> None:
    made = with_rate(npz_file, changes.pop("schedule", {}), changes)
    np.testing.assert_array_equal(rates(tmp_path, render(made, "python")), expected(made))


# ---------------------------------------------------------------- data


def same_data(folder: Path, data: dict[str, Any], **changes: dict[str, Any]) -> None:
    """Compares the script's images with the study's."""
    task = {"data": data, "model": TINY}
    names = loaded(folder, script(task=task, training={"epochs": 1, "batch_size": 64}, **changes))
    found = names["load_images"](names["open_source"](), validation=0.2, study_seed=0)
    source = open_source(data)
    train_images, train_labels = source.train.load(), source.train.labels
    if source.validation is not None:
        train_images = np.concatenate([train_images, source.validation.load()])
        train_labels = np.concatenate([train_labels, source.validation.labels])
    np.testing.assert_array_equal(found.train_images.numpy(), train_images)
    np.testing.assert_array_equal(found.train_labels.numpy(), train_labels)
    np.testing.assert_array_equal(found.test_images.numpy(), source.test().load())
    np.testing.assert_array_equal(found.test_labels.numpy(), source.test().labels)
    assert found.classes == source.classes


@pytest.mark.parametrize("more", [{}, {"limit": 100}, {"classes": ["7", 1, 3], "limit": 50}])
def test_digits_are_the_study_s(tmp_path: Path, more: dict[str, Any]) -> None:
    same_data(tmp_path, {"source": "digits", **more})


@pytest.mark.parametrize("classes", [None, np.array(["ant", "bee", "cat"])])
@pytest.mark.parametrize("grey", [True, False])
def test_arrays_are_the_study_s(tmp_path: Path, classes: Any, grey: bool) -> None:
    arrays = random_arrays(channels=1 if grey else 3)
    if grey:
        arrays = {name: array[..., 0] if "images" in name else array for name, array in arrays.items()}
    if classes is not None:
        arrays["classes"] = classes
    np.savez(tmp_path / 'it\'s "mine".npz', **arrays)  # type: ignore[arg-type]
    data = {
        "source": "arrays",
        "path": str(tmp_path / 'it\'s "mine".npz'),
        "classes": [2, 0 if classes is None else "ant"],
    }
    same_data(tmp_path, data)


def write_tree(root: Path, folders: dict[str, list[str]], count: int = 4) -> None:
    rng = np.random.default_rng(0)
    for folder, classes in folders.items():
        for name in classes:
            (root / folder / name).mkdir(parents=True)
            for n in range(count):
                pixels = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / folder / name / f"{n}.png")


@pytest.mark.parametrize(
    "folders",
    [
        {"": ["ant", "bee"]},
        {"train": ["ant", "bee", "cat"], "test": ["bee", "cat"]},
        {"train": ["ant", "bee", "cat"], "valid": ["cat"], "test": ["ant", "bee", "cat"]},
    ],
    ids=["no split", "test", "all three"],
)
@pytest.mark.parametrize("more", [{}, {"limit": 5, "classes": ["bee", "ant"]}])
def test_folders_are_the_study_s(tmp_path: Path, folders: dict[str, list[str]], more: dict[str, Any]) -> None:
    write_tree(tmp_path / "pictures", folders)
    if "valid" in folders and more:
        more = more | {"classes": ["cat", "ant"]}
    same_data(tmp_path, {"source": "folder", "path": str(tmp_path / "pictures"), "size": 6, **more})


def write_mnist(root: Path) -> None:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 12), ("t10k", 5)):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, count, 28, 28) + images.tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())


@pytest.mark.parametrize("more", [{}, {"size": 8, "classes": [1, "0 - zero"]}])
def test_torchvision_s_sets_are_the_study_s(tmp_path: Path, more: dict[str, Any]) -> None:
    write_mnist(tmp_path)
    same_data(tmp_path, {"source": "torchvision", "dataset": "MNIST", "root": str(tmp_path), **more})


def test_a_set_of_torchvision_without_splits(tmp_path: Path) -> None:
    write_tree(tmp_path / "eurosat", {"2750": ["Forest", "River"]}, count=6)
    same_data(tmp_path, {"source": "torchvision", "dataset": "EuroSAT", "root": str(tmp_path)})


@pytest.mark.parametrize("dataset", ["CIFAR100", "SVHN", "OxfordIIITPet", "Imagenette", "EMNIST:letters"])
def test_sets_of_torchvision_are_opened_as_in_the_study(dataset: str) -> None:
    """By the study's own reader, which finds the names of the splits."""
    text = script(task={"data": {"source": "torchvision", "dataset": dataset, "root": "data", "download": True}})
    assert f'return read(dataset="{dataset}", root="data", download=True)' in text
    assert inspect.getsource(torchvision_sets.read) in text
    assert inspect.getsource(torchvision_sets._Opener) in text


# ---------------------------------------------------------------- networks


def made_model(names: dict[str, Any], classes: int, channels: int, size: int) -> torch.nn.Module:
    torch.manual_seed(3)
    model: torch.nn.Module = names["make_model"](classes, channels, size)
    return model


def same_model(one: torch.nn.Module, other: torch.nn.Module) -> None:
    """Equal names, shapes and first weights."""
    ours, theirs = one.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("name", NAMES)
def test_all_networks_of_this_package_are_the_study_s(tmp_path: Path, name: str) -> None:
    options = {"width": 4, "dropout": 0.5} if name == "small_cnn" else {}
    names = loaded(tmp_path, script(task={"model": name, "model_options": options}))
    model = made_model(names, 3, 1, 8)
    torch.manual_seed(3)
    same_model(model, registry.build(name, classes=3, channels=1, size=8, options=options))


@pytest.mark.parametrize(
    ("name", "channels"), [("squeezenet1_1", 1), ("googlenet", 3), ("vit_b_32", 3), ("mobilenet_v3_small", 3)]
)
def test_networks_of_torchvision_are_the_study_s(tmp_path: Path, name: str, channels: int) -> None:
    """What the task does to them, too: grey images are shown as colour, some networks get the size of images."""
    model = made_model(loaded(tmp_path, script(task={"model": f"torchvision:{name}"})), 3, channels, 64)
    torch.manual_seed(3)
    same_model(model, registry.build(f"torchvision:{name}", classes=3, channels=channels, size=64))


def test_pretrained_weights_are_requested() -> None:
    text = script(task={"model": "torchvision:resnet18", "model_options": {}, "pretrained": True})
    assert 'build("resnet18", classes=classes, channels=channels, size=size, options={}, pretrained=True)' in text


@pytest.mark.parametrize(
    ("model", "given"),
    [("torchvision:resnet18", True), ("small_cnn", True), ("tests.models.networks:make", False)],
)
def test_the_network_chooses_the_memory_format_as_in_the_study(model: str, given: bool) -> None:
    """Not one of the user's own: a call could change what follows."""
    text = script(task={"model": model, "model_options": {}})
    assert ("channels, height, width), model=model)" in text) is given


# ---------------------------------------------------------------- training

TRAININGS: list[dict[str, Any]] = [
    {"augment": ["crop", "flip", "cutout"]},
    {"augment": ["cutout"], "label_smoothing": 0.1, "clip_norm": 1.0},
    {"augment": ["mixup"]},
    {"augment": ["flip", "cutmix", "mixup"], "label_smoothing": 0.1},
    {"optimizer": "adamw", "options": {"betas": [0.8, 0.99], "amsgrad": True}, "precision": "bfloat16"},
    {"channels_last": True, "precision": "float32", "weight_decay": 1e-4},
]


@pytest.mark.parametrize("training", TRAININGS, ids=str)
def test_every_training_option_runs(
    tmp_path: Path, npz_file: Path, training: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    task = {"data": {"source": "arrays", "path": str(npz_file)}, "model": "small_cnn"}
    with steps_seen() as taken:
        ran(tmp_path, script(task=task, training={"epochs": 2, **training}))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["epoch 1/2", "epoch 2/2"]
    assert lines[2].startswith("test accuracy 0.")
    assert lines[3] == f"weights: {tmp_path / 'script.pt'}"
    group = taken[0]
    assert all(
        group[key] == (tuple(value) if key == "betas" else value) for key, value in training.get("options", {}).items()
    )


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_has_its_counterpart(name: str) -> None:
    plain, augmented = script(), script(training={"augment": [name]})
    assert len(augmented) > len(plain)


@pytest.mark.parametrize(
    "training",
    [
        {"augment": ["crop", "flip", "cutout"], "options": {"momentum": 0.9}, "weight_decay": 1e-3},
        {"augment": ["flip", "cutmix", "mixup"], "label_smoothing": 0.1, "clip_norm": 0.5},
        {"augment": ["rand_augment", "random_erasing", "mixup"], "rand_augment_magnitude": 20, "mixup_alpha": 0.4},
        {"augment": ["trivial_augment", "cutout"], "cutout_size": 0.3},
        {"optimizer": "adamw", "channels_last": True, "precision": "bfloat16"},
        {"optimizer": "rmsprop"},
        {"ema_decay": 0.9, "clip_norm": 0.5},
        {
            "optimizer": "adamw",
            "weight_decay": 0.1,
            "weight_decay_schedule": "cosine",
            "weight_decay_end": 0.5,
            "weight_decay_follows": "base",
        },
    ],
    ids=str,
)
def test_the_script_trains_to_exactly_the_weights_of_train(
    tmp_path: Path, npz_file: Path, training: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """First weights, order, augmentation, dropout, rates, steps."""
    task = {"data": {"source": "arrays", "path": str(npz_file)}, "model_options": {"width": 4, "dropout": 0.3}}
    made = configuration(task=task, training={"epochs": 3, "lr": 0.01, "compile": False, **training}, amplify=AMPLIFY)
    check_trains_as_package(tmp_path, made, capsys)


def test_every_augmentation_is_the_study_s() -> None:
    plain = script()
    for name in AUGMENTATIONS:
        source = inspect.getsource({**augment.AUGMENTATIONS}.get(name, mixing.Mixing))
        assert source in script(training={"augment": [name]})
        assert source not in plain


def test_batches_are_mixed_as_in_the_study(tmp_path: Path, npz_file: Path) -> None:
    """Whole batches of finished images, whose labels the loss takes as shares."""
    task = {"data": {"source": "arrays", "path": str(npz_file)}, "model": TINY}
    text = script(task=task, training={"epochs": 1, "augment": ["mixup", "crop", "cutmix"]})
    assert 'Mixing(["mixup", "cutmix"], height, width, len(data.classes))' in text
    mixed, loss = [], torch.nn.functional.cross_entropy

    def watched(outputs: torch.Tensor, labels: torch.Tensor, **options: Any) -> torch.Tensor:
        mixed.append(labels)
        return loss(outputs, labels, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "cross_entropy", watched)
        ran(tmp_path, text)
    assert [tuple(labels.shape) for labels in mixed] == [(4, 3), (4, 3), (2, 3)]
    assert all(torch.allclose(labels.sum(1), torch.ones(len(labels))) for labels in mixed)


def test_a_last_batch_of_one_image_joins_the_one_before(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **random_arrays(count=9))  # type: ignore[arg-type]
    task = {"data": {"source": "arrays", "path": str(tmp_path / "data.npz")}, "model": TINY}
    assert len(rates(tmp_path, script(task=task, training={"epochs": 1}))) == 2


def test_divergence_ends_the_script(tmp_path: Path, npz_file: Path) -> None:
    task = {"data": {"source": "arrays", "path": str(npz_file)}, "model": TINY, "model_options": {"scale": 1e39}}
    with pytest.raises(SystemExit, match="epoch 1: diverged, the loss is nan"):
        ran(tmp_path, script(task=task))
    assert not (tmp_path / "script.pt").exists()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_gets_the_study_s_options(tmp_path: Path, optimizer: str) -> None:
    made = configuration(training={"optimizer": optimizer})
    model = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    theirs = loaded(tmp_path, render(made, "python"))["make_optimizer"](model)
    ours = make_optimizer(made.training, model.parameters())
    assert type(theirs).__name__ == type(ours).__name__
    assert theirs.defaults == ours.defaults


@pytest.mark.parametrize("optimizer", ["torch.optim:AdamW", "tests.training.own_optimizers:Lion"])
def test_an_imported_optimizer_is_imported_by_the_script(tmp_path: Path, optimizer: str) -> None:
    made = configuration(training={"optimizer": optimizer, "options": {"betas": [0.5, 0.6]}, "weight_decay": 0.1})
    model = torch.nn.Linear(1, 1)
    theirs = loaded(tmp_path, render(made, "python"))["make_optimizer"](model)
    assert type(theirs) is type(make_optimizer(made.training, model.parameters()))
    assert (theirs.defaults["betas"], theirs.defaults["weight_decay"], theirs.defaults["lr"]) == ((0.5, 0.6), 0.1, 0.1)


# ---------------------------------------------------------------- options

OPTIONS = [
    (["--out", "nowhere/x.pt"], "--out nowhere/x.pt: must be a file in a writable folder"),
    (["--out", "."], "must be a file"),
    (["--device", "abacus"], "--device abacus: "),
    (["--epochs", "3"], "unrecognized arguments"),
]


@pytest.mark.parametrize(("given", "message"), OPTIONS)
def test_impossible_options_end_the_script_before_it_trains(
    tmp_path: Path, given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        loaded(tmp_path, script())["main"](given)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_help_says_where_the_script_comes_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        loaded(tmp_path, script())["main"](["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "Found by ralr_tune: study digits, arm ralr, trial 17." in shown
    assert "--out OUT" in shown


# ---------------------------------------------------------------- what a study may not do to a script

NASTY = ["'", '"""', "\\", "\n", "{x}", "a'; import os; os.abort()  #", "ü\u2028\x85"]


@pytest.mark.parametrize("nasty", NASTY)
def test_texts_stay_texts(nasty: str) -> None:
    def counted(text: str) -> int:
        data = {"source": "folder", "path": text, "classes": [text, 1]}
        tree = ast.parse(
            script(task={"data": data, "model_options": {text: text}}, provenance={"packages": {text: text}})
        )
        return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)].count(nasty)

    assert counted(nasty) - counted("harmless") == 4
    tree = ast.parse(script(task={"model_options": {nasty: nasty}}))
    assert not any(isinstance(node, ast.Attribute) and node.attr == "abort" for node in ast.walk(tree))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"model": "os:system('x')"}, "not an import path"),
        ({"model": "os;x:y"}, "not an import path"),
        ({"model": "os:class"}, "not an import path"),
        ({"model": "nothing"}, "not an import path"),
        ({"data": {"source": "torchvision", "dataset": "os.abort()"}}, "not a data set of torchvision"),
        ({"data": {"source": "torchvision", "dataset": "VisionDatasets"}}, "not a data set of torchvision"),
        ({"kind": "simulated"}, "trains nothing"),
    ],
)
def test_names_are_names(task: dict[str, Any], message: str) -> None:
    made = configuration()
    kind = SimulatedSection if task.get("kind") == "simulated" else ClassificationSection
    tables = task if kind is SimulatedSection else made.task.model_dump() | task
    copied = made.task.model_copy(update=task)  # a file's own check would refuse these models, too
    made = made.model_copy(update={"task": copied if "model" in task else kind.model_validate(tables)})
    made = exported_model(registry_of_kinds.find(made.task.kind)).model_construct(**dict(made))
    with pytest.raises(UsageError, match=message) as caught:
        render(made, "python")
    assert "toml, json or yaml" in str(caught.value)


FOUND_IN: list[tuple[dict[str, Any], list[Any]]] = [
    ({"schedule": {"name": "sgdr"}}, [curves.Sgdr, rate.LearningRate]),
    ({"amplify": AMPLIFY}, [amplification.Amplification]),
    ({"noise": {}}, [noise.Noise]),
    ({"task": {"data": {"source": "folder", "path": "x"}}}, [read_folder]),
    ({"task": {"data": {"source": "arrays", "path": "x"}}}, [npz.read]),
    ({"task": {"data": {"source": "digits"}}}, [sources.read_digits]),
]


@pytest.mark.parametrize(("changes", "carried"), FOUND_IN, ids=[str(changes) for changes, _ in FOUND_IN])
def test_a_script_carries_what_it_needs_and_no_more(changes: dict[str, Any], carried: list[Any]) -> None:
    text = script(**changes)
    assert all(inspect.getsource(each) in text for each in carried)
    others = {each for _, found in FOUND_IN for each in found} - {*carried, rate.LearningRate}
    if "task" not in changes:
        others.discard(sources.read_digits)
    assert not any(inspect.getsource(each) in text for each in others)


DATA: list[dict[str, Any]] = [
    {"source": "digits"},
    {"source": "folder", "path": "photos", "size": 8, "classes": ["a", "b"], "limit": 9},
    {"source": "arrays", "path": "x", "classes": [f"a class with a long name {n}" for n in range(9)]},
    {"source": "torchvision", "dataset": "MNIST", "size": 8},
]
MODELS = ["small_cnn", "resnet20", "torchvision:resnet18", TINY]
PERTURBATIONS: list[dict[str, Any]] = [
    {},
    {"amplify": AMPLIFY | {"granularity": "step", "window": [0.3, 0.4]}},
    {"noise": {}},
]
ALLOWED = {"numpy", "torch", "torchvision", "PIL", "filelock"}
"""Besides the standard library: torch needs filelock, torchvision needs Pillow."""


def every_kind() -> Iterator[str]:
    """Each data source with each network; curves, perturbations and trainings in turn; and fine-tuning."""
    turns = zip(itertools.cycle(SHAPES), itertools.cycle(PERTURBATIONS), itertools.cycle(TRAININGS), strict=False)
    pairs = itertools.product(DATA, MODELS)
    for (data, model), ((name, options), perturbation, training) in zip(pairs, turns, strict=False):
        schedule = {"name": name, "options": options, "warmup": 0.3}
        yield script(task={"data": data, "model": model}, schedule=schedule, training=training, **perturbation)
    known = {"files": {"weights mine.pt": "0" * 64}}
    for task, training in FINE_TUNING:
        yield script(task=task, training=training, provenance={"metric": "balanced_accuracy", **known})


FINE_TUNING: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"data": DATA[1], "model": "torchvision:resnet18", "weights": "x/mine.pt", "train_size": 6, "test_size": 7},
        {"optimizer": "muon", "head_factor": 10.0, "freeze_trunk": 2, "augment": ["crop", "flip", "cutmix"]},
    ),
    (
        {"data": DATA[2], "model": "timm:resnet18", "train_size": 6},
        {"head_factor": 0.5, "augment": ["flip", "crop"]},
    ),
    (
        {"data": DATA[3], "model": "torchvision:resnet18", "pretrained": True, "test_size": 6},
        {"freeze_trunk": 1, "ema_decay": 0.9},
    ),
]


def test_scripts_do_not_import_this_package() -> None:
    for text in every_kind():
        imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
        needed = {
            name.partition(".")[0]
            for node in imports
            for name in ([node.module] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names])
            if name
        }
        timm = {"timm"} if "timm.create_model" in text else set()
        weights = {"safetensors"} if "load_weights(" in text else set()
        own = {"tests"}  # where the network comes from, when it is somebody's
        digits = {"sklearn"} if "def read_digits" in text else set()
        alpha = {"scipy"} if "_alpha=" in text else set()
        assert needed <= {*ALLOWED, *own, *digits, *alpha, *timm, *weights, *sys.stdlib_module_names}


def test_scripts_have_nothing_unused_and_nothing_missing(tmp_path: Path) -> None:
    """By ruff: names, imports and their order, lines of at most 120, and the layout of its formatter."""
    for number, text in enumerate(every_kind()):
        (tmp_path / f"script_{number}.py").write_text(text)
    options = ["--isolated", "--no-cache", "--line-length", "120"]
    for command in (["check", "--select", "E,F,I"], ["format", "--diff"]):
        started = [sys.executable, "-m", "ruff", *command, *options, str(tmp_path)]
        checked = subprocess.run(started, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
def test_a_script_trains_from_end_to_end(tmp_path: Path) -> None:
    """In a process that cannot import this package."""
    training = {"epochs": 8, "batch_size": 32, "lr": 0.05, "options": {"momentum": 0.9}, "augment": ["crop"]}
    text = script(training=training, schedule={"name": "cosine"}, amplify=AMPLIFY)
    (tmp_path / "train.py").write_text(text)
    (tmp_path / "ralr_tune.py").write_text("raise ImportError('a script must not need this')")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", str(tmp_path / "train.py"), "--out", "my.pt"]
    finished = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    *_, tested, saved = finished.stdout.splitlines()
    assert float(tested.removeprefix("test accuracy ")) > 0.9
    assert saved == "weights: my.pt"
    assert torch.load(tmp_path / "my.pt", weights_only=True)
