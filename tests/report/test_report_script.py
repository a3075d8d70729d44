"""The Python form: scripts are run here, in this process, on a few tiny images; one in a process of its own."""

from __future__ import annotations

import ast
import inspect
import os
import runpy
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from ralr_tune.errors import UsageError
from ralr_tune.kinds.classification import mixing
from ralr_tune.kinds.classification.section import AUGMENTATIONS, ClassificationSection
from ralr_tune.kinds.classification.sources import open_source
from ralr_tune.kinds.simulated.section import SimulatedSection
from ralr_tune.models import registry, torchvision_models
from ralr_tune.report.export import render
from ralr_tune.report.script.network import network_part
from ralr_tune.report.script.parts import import_block, keywords, literal
from ralr_tune.schedules.curves import CURVES
from ralr_tune.seeds import derive_seed
from ralr_tune.studyfile.exported import Exported
from tests.exports import SEED, configuration

ROOT = Path(__file__).parents[2]
STEPS = 3
TINY = "tests.exports:Tiny"
AMPLIFY = {"probability": 0.5, "lower": 1.5, "width": 2.0}


def script(**changes: dict[str, Any] | None) -> str:
    return render(configuration(**changes), "python")


def ran(folder: Path, text: str) -> dict[str, Any]:
    """The script's names after it ran."""
    file = folder / "script.py"
    file.write_text(text, encoding="utf-8")
    return runpy.run_path(str(file))


def random_arrays(*, count: int = 10, size: int = 4, channels: int = 1) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, (count, size, size, channels), dtype=np.uint8),
        "train_labels": np.arange(count) % 3,
        "test_images": rng.integers(0, 256, (6, size, size, channels), dtype=np.uint8),
        "test_labels": np.arange(6) % 3,
    }


@pytest.fixture
def npz(tmp_path: Path) -> Path:
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
]


def test_every_curve_is_among_the_shapes() -> None:
    assert {name for name, _ in SHAPES} == set(CURVES)


def rates(folder: Path, text: str) -> list[float]:
    """The rate of every step that the script's optimizer took."""
    taken: list[float] = []

    def look(optimizer: Optimizer, *_: Any) -> None:
        group = optimizer.param_groups[0]
        if group["params"][0].grad is not None:
            taken.append(group["lr"])

    handle = register_optimizer_step_pre_hook(look)
    try:
        ran(folder, text)
    finally:
        handle.remove()
    return taken


def expected(made: Exported) -> NDArray[np.float64]:
    learning_rate = made.configuration().learning_rate(STEPS, seed=derive_seed("amplify", SEED))
    return learning_rate.trace().ravel()


def with_rate(npz: Path, schedule: dict[str, Any], perturbation: dict[str, Any]) -> Exported:
    task = {"data": {"source": "arrays", "path": str(npz)}, "model": TINY}
    return configuration(task=task, schedule=schedule, **perturbation)


def exact(granularity: str) -> list[Any]:
    """The shapes that torch's schedulers can keep: by step, some lengths are rounded to whole steps."""
    rounded = granularity == "step"
    return [
        pytest.param(name, options, granularity, id=f"{n}-{name}-{granularity}")
        for n, (name, options) in enumerate(SHAPES)
        if not rounded or min(options.get("period", 1), options.get("step_size", 1)) >= 1
    ]


@pytest.mark.parametrize("warmup", [0.0, 2.0])
@pytest.mark.parametrize(("name", "options", "granularity"), [*exact("epoch"), *exact("step")])
def test_the_script_follows_the_curve_of_the_study(
    tmp_path: Path, npz: Path, name: str, options: dict[str, Any], granularity: str, warmup: float
) -> None:
    schedule = {"name": name, "options": options, "warmup": warmup, "granularity": granularity}
    made = with_rate(npz, schedule, {})
    np.testing.assert_allclose(rates(tmp_path, render(made, "python")), expected(made), rtol=1e-9)


@pytest.mark.parametrize("amplified", ["epoch", "step"])
@pytest.mark.parametrize("granularity", ["epoch", "step"])
@pytest.mark.parametrize("name", sorted(CURVES))
def test_the_script_amplifies_as_the_study(
    tmp_path: Path, npz: Path, name: str, granularity: str, amplified: str
) -> None:
    options = {"step": {"step_size": 2}, "cyclic": {"period": 3}, "sgdr": {"period": 3}}.get(name, {})
    schedule = {"name": name, "options": options, "warmup": 1.0, "granularity": granularity}
    made = with_rate(npz, schedule, {"amplify": AMPLIFY | {"granularity": amplified, "law": "loguniform"}})
    taken = rates(tmp_path, render(made, "python"))
    np.testing.assert_allclose(taken, expected(made), rtol=1e-9)
    plain = made.configuration().without_amplification().learning_rate(STEPS, seed=0).trace().ravel()
    assert 0 < sum(taken > 1.4 * plain) < len(taken)


def test_lengths_are_rounded_to_whole_steps(tmp_path: Path, npz: Path) -> None:
    schedule = {"name": "sgdr", "options": {"period": 0.3}, "granularity": "step"}  # 7.2 steps
    taken = rates(tmp_path, render(with_rate(npz, schedule, {}), "python"))
    assert [step for step, rate in enumerate(taken) if rate == 0.1] == [0, 7, 14, 21]


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
def test_windows_shares_and_noise(tmp_path: Path, npz: Path, changes: dict[str, Any]) -> None:
    made = with_rate(npz, changes.pop("schedule", {}), changes)
    np.testing.assert_allclose(rates(tmp_path, render(made, "python")), expected(made), rtol=1e-9)


@pytest.mark.parametrize(
    ("changes", "needed"),
    [({}, False), ({"amplify": AMPLIFY}, True), ({"noise": {}}, False), ({"schedule": {"name": "one_cycle"}}, False)],
)
def test_of_this_package_only_the_scheduler_is_needed(changes: dict[str, Any], needed: bool) -> None:
    tree = ast.parse(script(**changes))
    froms = {(node.module, a.name) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for a in node.names}
    ours = {pair for pair in froms if pair[0] and pair[0].startswith("ralr_tune")}
    assert ours == ({("ralr_tune", "RandomAmplifyLR")} if needed else set())


# ---------------------------------------------------------------- data


def same_data(folder: Path, data: dict[str, Any], **changes: dict[str, Any]) -> dict[str, Any]:
    """Runs the script and holds its images against the study's; its names."""
    task = {"data": data, "model": TINY}
    found = ran(folder, script(task=task, training={"epochs": 1, "batch_size": 64}, **changes))
    source = open_source(data)
    train_images, train_labels = source.train.load(), source.train.labels
    if source.validation is not None:
        train_images = np.concatenate([train_images, source.validation.load()])
        train_labels = np.concatenate([train_labels, source.validation.labels])
    np.testing.assert_array_equal(found["train_images"].numpy(), train_images)
    np.testing.assert_array_equal(found["train_labels"].numpy(), train_labels)
    np.testing.assert_array_equal(found["test_images"].numpy(), source.test().load())
    np.testing.assert_array_equal(found["test_labels"].numpy(), source.test().labels)
    assert found["names"] == list(source.classes)
    return found


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


@pytest.mark.parametrize(
    ("dataset", "train", "test"),
    [
        ("CIFAR100", "train=True", "train=False"),
        ("SVHN", "split='train'", "split='test'"),
        ("OxfordIIITPet", "split='trainval'", "split='test'"),
        ("Imagenette", "split='train'", "split='val'"),
        ("EMNIST:letters", "split='letters', train=True", "split='letters', train=False"),
    ],
)
def test_splits_go_by_the_names_that_the_set_knows(dataset: str, train: str, test: str) -> None:
    data = {"source": "torchvision", "dataset": dataset, "root": "data", "download": True}
    text = script(task={"data": data})
    name = dataset.partition(":")[0]
    assert f"{name}(root='data', download=True, {train}), {name}(root='data', download=True, {test})" in text


# ---------------------------------------------------------------- networks


def test_all_our_networks_are_the_study_s(tmp_path: Path, npz: Path) -> None:
    for name in registry.known():
        options = {"width": 4} if name == "small_cnn" else {}
        task = {"data": {"source": "arrays", "path": str(npz)}, "model": name, "model_options": options}
        found = ran(tmp_path, script(task=task, training={"epochs": 1, "batch_size": 16}))["model"]
        ours = registry.build(name, classes=3, channels=1, size=4, options=options)
        assert {k: v.shape for k, v in found.state_dict().items()} == {k: v.shape for k, v in ours.state_dict().items()}


def test_a_network_of_torchvision_sees_grey_images_as_colour(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **random_arrays(size=32))  # type: ignore[arg-type]
    task = {"data": {"source": "arrays", "path": str(tmp_path / "data.npz")}, "model": "torchvision:squeezenet1_1"}
    found = ran(tmp_path, script(task=task, training={"epochs": 1, "batch_size": 16}))
    assert found["train_images"].shape == (10, 3, 32, 32)
    assert type(found["model"]).__name__ == "SqueezeNet"


def test_networks_of_torchvision_are_told_what_the_task_tells_them() -> None:
    for name in torchvision_models.names():
        task = ClassificationSection.model_validate(
            {"kind": "classification", "data": {"source": "digits"}, "model": f"torchvision:{name}"}
        )
        call = network_part(task).body.splitlines()[-1]
        arguments = {word.arg for word in ast.parse(call).body[0].value.keywords}  # type: ignore[attr-defined]
        assert arguments == {"weights", "num_classes", *torchvision_models._defaults(name, 32)}


def test_pretrained_weights_are_taken_where_they_fit() -> None:
    text = script(task={"model": "torchvision:resnet18", "pretrained": True})
    assert "get_model('resnet18', weights=\"DEFAULT\").state_dict()" in text
    ast.parse(text)


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
def test_every_way_of_training_runs(
    tmp_path: Path, npz: Path, training: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    task = {"data": {"source": "arrays", "path": str(npz)}, "model": "small_cnn"}
    found = ran(tmp_path, script(task=task, training={"epochs": 2, **training}))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["epoch 1/2", "epoch 2/2"]
    assert lines[2] == f"test accuracy {found['correct'] / 6:.4f}"
    group = found["optimizer"].param_groups[0]
    assert all(
        group[key] == (tuple(value) if key == "betas" else value) for key, value in training.get("options", {}).items()
    )


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_has_its_counterpart(name: str) -> None:
    plain, augmented = script(), script(training={"augment": [name]})
    assert len(augmented) > len(plain)


def test_batches_are_mixed_as_in_the_study(tmp_path: Path, npz: Path) -> None:
    """The study's own source, on whole batches of finished images, whose labels the loss takes as shares."""
    task = {"data": {"source": "arrays", "path": str(npz)}, "model": TINY}
    text = script(task=task, training={"epochs": 1, "augment": ["mixup", "crop", "cutmix"]})
    assert inspect.getsource(mixing.Mixing) in text
    found = ran(tmp_path, text)
    assert found["mixing"].names == ["mixup", "cutmix"]
    assert (found["mixing"].height, found["mixing"].width, found["mixing"].classes) == (4, 4, 3)
    assert found["images"].shape == (2, 1, 4, 4)  # the last batch of the tests
    mixed, loss = [], torch.nn.functional.cross_entropy

    def watched(outputs: torch.Tensor, labels: torch.Tensor, **options: Any) -> torch.Tensor:
        mixed.append(labels)
        return loss(outputs, labels, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "cross_entropy", watched)
        ran(tmp_path, text)
    assert [tuple(labels.shape) for labels in mixed] == [(4, 3), (4, 3), (2, 3)]
    assert all(torch.allclose(labels.sum(1), torch.ones(len(labels))) for labels in mixed)


def test_cutout_is_the_study_s(tmp_path: Path, npz: Path) -> None:
    task = {"data": {"source": "arrays", "path": str(npz)}, "model": TINY}
    found = ran(tmp_path, script(task=task, training={"epochs": 1, "augment": ["cutout"]}))
    fill = int(found["mean"].round())
    image = torch.full((1, 4, 4), (fill + 100) % 256, dtype=torch.uint8)
    holes = {tuple((found["cutout"](image) == fill).flatten().tolist()) for _ in range(300)}
    assert {sum(hole) for hole in holes} == {1, 2, 4}  # in a corner, at an edge, inside
    assert len(holes) == 16  # the centre lies in any of 16 places


def test_a_batch_of_one_image_is_left_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **random_arrays(count=9))  # type: ignore[arg-type]
    task = {"data": {"source": "arrays", "path": str(tmp_path / "data.npz")}, "model": TINY}
    assert ran(tmp_path, script(task=task, training={"epochs": 1}))["STEPS"] == 2


# ---------------------------------------------------------------- what a study may not do to a script

NASTY = ["'", '"""', "\\", "\n", "{x}", "a'; import os; os.abort()  #", "ü\u2028\x85"]


@pytest.mark.parametrize("nasty", NASTY)
def test_texts_stay_texts(nasty: str) -> None:
    data = {"source": "folder", "path": nasty, "classes": [nasty, 1]}
    tree = ast.parse(
        script(task={"data": data, "model_options": {nasty: nasty}}, provenance={"packages": {nasty: nasty}})
    )
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert constants.count(nasty) == 4
    assert not any(isinstance(node, ast.Attribute) and node.attr == "abort" for node in ast.walk(tree))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"model": "os:system('x')"}, "no import path"),
        ({"model": "os;x:y"}, "no import path"),
        ({"model": "os:class"}, "no import path"),
        ({"model": "nothing"}, "no import path"),
        ({"data": {"source": "torchvision", "dataset": "os.abort()"}}, "no data set of torchvision"),
        ({"data": {"source": "torchvision", "dataset": "VisionDatasets"}}, "no data set of torchvision"),
        ({"kind": "simulated"}, "trains nothing"),
    ],
)
def test_names_are_names(task: dict[str, Any], message: str) -> None:
    made = configuration()
    kind = SimulatedSection if task.get("kind") == "simulated" else ClassificationSection
    tables = task if kind is SimulatedSection else made.task.model_dump() | task
    copied = made.task.model_copy(update=task)  # a file's own check would refuse these models, too
    made = made.model_copy(update={"task": copied if "model" in task else kind.model_validate(tables)})
    with pytest.raises(UsageError, match=message) as caught:
        render(made, "python")
    assert "toml, json or yaml" in str(caught.value)


@pytest.mark.parametrize("value", [0.1, 1e-5, 3, True, "x'y", (0.9, 0.99), ["a", {"b": 1}]])
def test_literals_are_what_they_say(value: Any) -> None:
    assert ast.literal_eval(literal(value)) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1: print}])
def test_what_python_cannot_write_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="cannot be written in a Python script"):
        literal(value)


def test_options_become_arguments() -> None:
    assert keywords({"momentum": 0.9, "nesterov": True}) == ", momentum=0.9, nesterov=True"
    assert keywords({}) == ""
    assert keywords({"class": 1}) == ", **{'class': 1}"


def test_imports_in_their_order() -> None:
    given = [
        "from torch import nn",
        "import math",
        "import torch",
        "from torch import Tensor",
        "from __future__ import x",
    ]
    assert import_block(given) == "import math\n\nimport torch\nfrom torch import Tensor, nn\n"


def test_scripts_have_nothing_unused_and_nothing_missing(tmp_path: Path) -> None:
    """By ruff: names, imports and their order, lines of at most 120."""
    task = {"source": "folder", "path": "photos", "classes": ["a", "b"], "limit": 9}
    chosen: list[dict[str, Any]] = [
        {"amplify": AMPLIFY, "training": {"augment": ["crop", "flip", "cutout"]}},
        {"training": {"augment": ["mixup", "cutmix"]}, "task": {"data": {"source": "arrays", "path": "x"}}},
        {"noise": {}, "schedule": {"name": "cosine", "warmup": 0.3}},
        {
            "task": {"data": task, "model": "resnet20"},
            "amplify": AMPLIFY | {"granularity": "step", "window": [0.3, 0.4]},
        },
        {"task": {"data": {"source": "arrays", "path": "x"}, "model": TINY}, "schedule": {"granularity": "step"}},
        {"task": {"data": {"source": "torchvision", "dataset": "MNIST", "size": 8}, "model": "torchvision:resnet18"}},
    ]
    for number, changes in enumerate(chosen):
        (tmp_path / f"script_{number}.py").write_text(script(**changes))
    options = ["--isolated", "--line-length", "120", "--select", "E,F,I"]
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", *options, str(tmp_path)]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
def test_a_script_trains_from_end_to_end(tmp_path: Path) -> None:
    training = {"epochs": 8, "batch_size": 32, "lr": 0.05, "options": {"momentum": 0.9}, "augment": ["crop"]}
    text = script(training=training, schedule={"name": "cosine"}, amplify=AMPLIFY)
    (tmp_path / "train.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", str(tmp_path / "train.py")]
    finished = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert float(finished.stdout.splitlines()[-1].removeprefix("test accuracy ")) > 0.9
