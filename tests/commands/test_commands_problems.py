"""Mistakes that a study file alone does not show: `check` and `plan` report all of them at once, in the same words."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.commands.check import check_study, divided_notes, few_pairs_notes
from ralr_tune.commands.plan import plan_study
from ralr_tune.commands.run import init, run
from ralr_tune.commands.run.options import RunOptions
from ralr_tune.errors import DataError, StudyFileError, UsageError
from ralr_tune.studyfile import parse_study
from tests.commands.conftest import Cli
from tests.kinds.conftest import picture
from tests.studies import AMPLIFY, simulated, simulated_text

Tables = dict[str, Any]
TASK: Tables = {"kind": "classification", "data": {"source": "digits"}, "model": "small_cnn"}
FOLDER: Tables = {"source": "folder", "path": "pictures", "size": 8}
RALR: Tables = {"amplify": AMPLIFY}

NETWORKS = """
import torch
from torch import nn

def linear(num_classes, inputs=64):
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, num_classes))

def without_arguments():
    return linear(10)

def seven(num_classes):
    return linear(7)

def raising(num_classes):
    raise KeyError("layer")

def only_a_head(num_classes):
    return linear(num_classes)

def too_deep(num_classes):
    return nn.Sequential(*[nn.MaxPool2d(2) for _ in range(5)], linear(num_classes, 1))

class Frozen(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.inner = linear(num_classes)

    def forward(self, images):
        return self.inner(images).detach()

class TwoInTraining(Frozen):
    def forward(self, images):
        outputs = self.inner(images)
        return (outputs, outputs) if self.training else outputs

def lazy(num_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))

word = "word"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with networks, 8 + 4 pictures of two classes, and data that are none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("RALR_TUNE_STORAGE", raising=False)
    (tmp_path / "users.py").write_text(NETWORKS)
    write_pictures(tmp_path / "pictures")
    (tmp_path / "empty").mkdir()
    (tmp_path / "flat").mkdir()
    picture(0).save(tmp_path / "flat/0.png")
    (tmp_path / "text.npz").write_text("no archive")
    yield tmp_path
    sys.modules.pop("users", None)


def write_pictures(root: Path, damaged: str = "") -> None:
    for split, count in (("train", 4), ("test", 2)):
        for number, name in enumerate(("ant", "bee")):
            (root / split / name).mkdir(parents=True)
            for each in range(count):
                picture(10 * number + each).save(root / split / name / f"{each}.png")
    if damaged:
        (root / damaged).write_bytes(b"damaged")


def write(**changes: Tables) -> str:
    """A study file that trains two epochs of digits or of the simulated task, and its path."""
    text = simulated_text(**{"training": {"epochs": 2, "batch_size": 4}, **changes})
    Path("study.toml").write_text(text)
    return "study.toml"


def refusal(command: Callable[..., object], study: str, **options: Any) -> list[str]:
    """The lines with which a command refuses a study, without the name of the file."""
    with pytest.raises((StudyFileError, DataError)) as error:
        command(study, **options)
    lines = str(error.value).splitlines()
    assert all(line.startswith(f"{study}: ") for line in lines)
    return [line.removeprefix(f"{study}: ") for line in lines]


def task(**changes: Any) -> dict[str, Tables]:
    return {"task": TASK | changes}


def data(**changes: Any) -> dict[str, Tables]:
    return task(data=changes)


def network(name: str) -> dict[str, Tables]:
    return task(model=f"users:{name}")


MISTAKES: dict[str, tuple[dict[str, Tables], str]] = {
    "network": (task(model="smal_cnn"), "task.model = 'smal_cnn': no such network; did you mean 'small_cnn'?; allowed"),
    "chosen network": (task(model={"choices": ["small_cnn", "resnet21"]}), "task.model = 'resnet21': no such network"),
    "torchvision": (task(model="torchvision:resnet19"), "torchvision has no such classification network; similar"),
    "module": (task(model="nowhere:build"), "task.model = 'nowhere:build': importing 'nowhere' failed: ModuleNotFound"),
    "attribute": (network("nothing"), "task.model = 'users:nothing': module 'users' has no attribute 'nothing'"),
    "not callable": (network("word"), "task.model = 'users:word': 'word' is str, not callable"),
    "signature": (network("without_arguments"), "it is called as callable(num_classes=K, **model_options) and must"),
    "raises": (network("raising"), "task.model = 'users:raising': building it failed: KeyError: 'layer'"),
    "outputs": (network("seven"), "task.model = 'users:seven': returns (1, 7) for one image; must be (1, 10), one out"),
    "too deep": (network("too_deep"), "task.model = 'users:too_deep': cannot process images of shape (1, 8, 8) (C,"),
    "no gradient": (network("Frozen"), "task.model = 'users:Frozen': its loss has no gradient"),
    "lazy": (network("lazy"), "task.model = 'users:lazy': has lazy layers; must have all its weights when it is built"),
    "training": (network("TwoInTraining"), "returns tuple for 2 images in training; must be (2, 10), one output per"),
    "option": (task(model_options={"widht": 3}), "unexpected keyword argument 'widht'; its model_options: width, drop"),
    "searched option": (task(model_options={"width": {"low": 0, "high": 9}}), "width = 0: must be at least 1"),
    "no weights": (task(pretrained=True), "task.pretrained = true: task.model = 'small_cnn' has no weights"),
    "no weights file": (task(weights="gone.pth"), 'task.weights = "gone.pth": no such file'),
    "wrong weights": (task(weights="text.npz"), "task.weights = 'text.npz': cannot be read ("),
    "two weights": (
        task(model="torchvision:resnet18", pretrained=True, weights="text.npz"),
        "task.weights = 'text.npz': not together with task.pretrained = true; give one of the two",
    ),
    "train size": (task(train_size=9), "task.train_size = 9: larger than the images, 8x8 pixels; allowed: at most 8"),
    "test size": (task(test_size={"choices": [8, 9]}), "task.test_size = 9: larger than the images, 8x8 pixels"),
    "small train size": (task(train_size=3), "images of 3 pixels: small_cnn needs at least 4"),
    "frozen trunk": (
        task() | {"training": {"freeze_trunk": {"low": 0, "high": 4}}},
        "training.freeze_trunk = 4: must be below the number of epochs, 4 (arm monotone)",
    ),
    "head without trunk": (
        network("only_a_head") | {"training": {"head_factor": 2.0}},
        "task.model: has no trunk: all its weights are in its head",
    ),
    "data set": (data(source="torchvision", dataset="CIFAR11"), "data.dataset = 'CIFAR11': not a data set of torchvis"),
    "not downloaded": (data(source="torchvision", dataset="MNIST"), "data.download = true downloads it"),
    "empty folder": (data(source="folder", path="empty"), "empty: must contain one folder of images per class"),
    "no class folders": (data(source="folder", path="flat"), "flat: must contain one folder of images per class"),
    "not an npz": (data(source="arrays", path="text.npz"), "data.path = 'text.npz': not an .npz file"),
    "missing": (data(source="folder", path="gone"), 'task.data.path = "gone": no such file or folder'),
    "limit": (data(source="digits", limit=3), "data.limit = 3: must be at least the number of classes, 10"),
    "classes": (data(source="digits", classes=[1, 77]), "data.classes: 77 is not a class of the data; allowed: 0 to 9"),
    "validation": (task(validation=0.999), "task.validation = 0.999: 1437 of 1438 samples cannot be set aside"),
    "size": (task(data=FOLDER | {"size": {"choices": [8, 3]}}), "images of 3 pixels: small_cnn needs at least 4"),
    "metric": (
        {"study": {"metric": "top5_accuracy"}} | data(source="digits", classes=[1, 2]),
        "study.metric = 'top5_accuracy': 2 classes; needs 6 or more",
    ),
    "batch size": (
        {"training": {"batch_size": {"low": 4, "high": 64}}} | task(data=FOLDER),
        "training.batch_size = 4 to 64: must be at most 6, the number of training images (validation aside)",
    ),
    "batch size of an arm": (
        {"arms": {"monotone": {"training": {"batch_size": 7}}, "ralr": RALR}, "training": {"batch_size": 6}}
        | task(data=FOLDER),
        "arms.monotone.training.batch_size = 7: must be at most 6, the number of training images",
    ),
    "milestones": (
        {"schedule": {"name": "multistep", "milestones": [0.75, 0.5]}},
        "schedule.milestones = [0.75, 0.5]: must be in the order in which they are reached",
    ),
    "mixed milestones": (
        {"schedule": {"name": "multistep", "milestones": [3, 0.5]}, "training": {"epochs": 4}},
        "schedule.milestones = [3, 0.5]: must be in the order in which they are reached",
    ),
    "probability": (
        {"arms": {"monotone": {}, "other": {"amplify": {"probability": 0.0, "width": 1.0}}}},
        "arms.other.amplify.probability = 0.0: it would never amplify; must be above 0",
    ),
    "ralr": ({"arms": {"monotone": {}, "RALR": {}}}, "arms.RALR: has no amplify, so it would train with the base"),
    "margin": ({"confirm": {"margin": 5.0}}, "confirm.margin = 5: must be below 1: it is a share, and 0.05 is 5 poi"),
    "top": ({"confirm": {"top": 9}}, "confirm.top = 9: must be at most search.trials, 4"),
    "sampler": ({"search": {"sampler_options": {"foo": 1}}}, "search.sampler_options = {'foo': 1}: tpe does not"),
    "sampler's value": (
        {"search": {"sampler_options": {"n_startup_trials": "x"}}},
        "search.sampler_options = {'n_startup_trials': 'x'}: tpe does not accept them",
    ),
    "pruner's value": (
        {"search": {"pruner_options": {"n_warmup_steps": "x"}}},
        "search.pruner_options = {'n_warmup_steps': 'x'}: median does not accept them",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_one_line_of_check_and_of_plan(mistake: str) -> None:
    changes, line = MISTAKES[mistake]
    study = write(**changes)
    (found,) = refusal(check_study, study)
    assert line in found
    assert refusal(plan_study, study, devices="cpu", workers=1) == [found]


@pytest.mark.parametrize("damaged", ["train/ant/1.png", "test/bee/0.png"])
def test_a_damaged_image_hides_no_other_mistake(folder: Path, damaged: str) -> None:
    write_pictures(folder / "damaged", damaged)
    study = write(**task(data=FOLDER | {"path": "damaged"}, model="users:seven", validation=0.99))
    image, *others = reversed(refusal(check_study, study))
    assert image == f"damaged/{damaged}: not a readable image: cannot identify image file"
    assert [line.partition(":")[0] for line in others] == ["task.validation = 0.99", "task.model = 'users"]


def test_all_mistakes_are_one_error() -> None:
    """In the file, in contradictions, in network and data."""
    study = write(
        task=TASK | {"data": {"source": "folder", "path": "flat"}, "model": {"choices": ["resnet21", "users:nothing"]}},
        training={"batch_size": 4, "lr": "high"},
        schedule={"name": "multistep", "milestones": [0.75, 0.5]},
        search={"sampler_options": {"foo": 1}},
    )
    found = refusal(check_study, study)
    assert [line.partition(":")[0] for line in found] == [
        'training.lr = "high"',
        "schedule.milestones = [0.75, 0.5]",
        "task.model = 'resnet21'",
        "search.sampler_options = {'foo'",
        "task.model = 'users",
        "flat",
    ]
    assert refusal(plan_study, study, devices="cpu", workers=1) == found


def test_an_unknown_metric_does_not_hide_the_data() -> None:
    study = write(study={"metric": "acuracy"}, **task(data=FOLDER | {"path": "empty"}))
    first, second = refusal(check_study, study)
    assert first == "study.metric = \"acuracy\": did you mean 'accuracy'?"
    assert second.startswith("empty: must contain one folder of images per class")
    study = write(study={"metric": "acuracy"}, **task(data=FOLDER))
    assert refusal(plan_study, study, devices="cpu", workers=1) == [first]


def test_a_wrong_network_does_not_hide_the_data() -> None:
    first, second = refusal(check_study, write(task=TASK | {"data": FOLDER | {"path": "empty"}, "model": 5}))
    assert first == "task.model = 5: must be a string in quotes"
    assert second.startswith("empty: must contain one folder of images per class")


def test_nothing_is_said_of_what_a_mistake_leaves_unknown() -> None:
    study = write(task=TASK | {"data": {"source": "digits", "limit": "all"}, "model": "users:seven"})
    assert refusal(check_study, study) == ['task.data.limit = "all": must be a whole number']


def test_only_data_are_wrong(folder: Path) -> None:
    with pytest.raises(DataError):
        check_study(write(**data(source="folder", path="empty")))


def test_fast_tries_neither_network_nor_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # cannot be imported
    study = write(**task(model="users:seven", data={"source": "folder", "path": "empty"}))
    assert "Neither network nor data were tried" in check_study(study, fast=True)
    (line,) = refusal(check_study, write(**task(model="smal_cnn")), fast=True)
    assert "no such network" in line


def test_without_imports_the_rest_is_still_checked() -> None:
    study = write(**task(model={"choices": ["users:seven", "torchvision:resnet19"]}, data=FOLDER | {"path": "empty"}))
    found = refusal(check_study, study, imports=False)
    assert "users" not in sys.modules
    assert [line.partition(":")[0] for line in found] == ["task.model = 'torchvision", "empty", 'task.model = "users']
    assert found[-1].endswith("; --no-imports forbids that, so it was not tried")


def test_data_that_run_would_download_are_not_downloaded(folder: Path) -> None:
    said = check_study(write(**data(source="torchvision", dataset="MNIST", download=True)))
    assert "The data are not here: `run` will download them, and they were not tried" in said
    (line,) = refusal(check_study, write(**task(data={"source": "torchvision", "dataset": "MNIST", "download": True},
                                               model="users:nothing")))  # fmt: skip
    assert "has no attribute 'nothing'" in line
    assert not list(folder.rglob("*ubyte*"))


def test_weights_are_not_downloaded(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(folder))
    assert "valid" in check_study(write(**task(model="torchvision:squeezenet1_1", pretrained=True, data=FOLDER | {
        "size": 32})))  # fmt: skip
    assert not list(folder.rglob("*.pth"))


def test_a_study_without_amplification_is_valid_and_named() -> None:
    *_, note = check_study(write(arms={"monotone": {}, "steps": {}})).splitlines()
    assert note == "No arm amplifies its learning rates: this study compares schedules without RALR"


@pytest.mark.parametrize(
    ("search", "seeds", "noted"),
    [
        ({}, 3, ["confirm.seeds = 3"]),
        ({}, 4, []),
        ({"blocks": 3}, 5, ["search.blocks = 3"]),
        ({"blocks": 2}, 3, ["confirm.seeds = 3", "search.blocks = 2"]),
        ({"blocks": 4}, 5, []),
        ({"blocks": 3, "trials": 24, "sampler": "random", "divided": True}, 3, ["search.blocks = 3"]),
    ],
)
def test_too_few_pairs_for_a_verdict_are_noted(search: dict[str, Any], seeds: int, noted: list[str]) -> None:
    notes = list(few_pairs_notes(simulated(search=search, confirm={"seeds": seeds})))
    assert notes == [f"{each}: fewer than 4 rarely give a verdict, and cannot show what they missed" for each in noted]


@pytest.mark.parametrize(("trials", "noted"), [(20, True), (24, False)])
def test_small_blocks_of_a_divided_search_are_noted(trials: int, noted: bool) -> None:
    search = {"sampler": "random", "trials": trials, "blocks": 4, "divided": True}
    _, *notes = divided_notes(simulated(search=search))
    expected = "search.trials = 20: 5 in each of 4 blocks; of fewer than 6, many find no good recipe"
    assert [note.startswith(expected) for note in notes] == [True] * noted


@pytest.mark.parametrize("start", [init, run])
@pytest.mark.parametrize("mistake", ["chosen network", "outputs", "empty folder", "batch size", "sampler"])
def test_a_study_that_cannot_be_trained_is_refused_before_anything_is_created(
    start: Callable[..., object], mistake: str, folder: Path
) -> None:
    changes, line = MISTAKES[mistake]
    spec = parse_study(Path(write(**changes)).read_text())
    with pytest.raises((UsageError, DataError)) as error:
        start(spec, RunOptions(workers=1))
    assert line in str(error.value)
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("mistake", ["module", "not downloaded"])
def test_workers_elsewhere_may_have_what_is_not_here(mistake: str) -> None:
    spec = parse_study(Path(write(**MISTAKES[mistake][0])).read_text())
    assert "is ready in" in init(spec, RunOptions())
    with pytest.raises((UsageError, DataError)):
        run(spec, workers=1, out=Path("here"))


def test_a_corrected_network_is_read_again(folder: Path) -> None:
    study = write(**network("seven"))
    assert len(refusal(check_study, study)) == 1
    (folder / "users.py").write_text(NETWORKS.replace("linear(7)", "linear(num_classes)  # corrected"))
    assert "valid" in check_study(study)


def test_errors_of_the_command_line(cli_inside: Cli) -> None:
    study = write(**task(model="users:seven", data=FOLDER | {"path": "empty"}, pretrained=True))
    ran = cli_inside("check", study)
    assert ran.code == 2
    assert all(line.startswith("error: study.toml: ") for line in ran.err.splitlines())
    assert cli_inside("check", write(), "--fast").code == 0
    wrong = cli_inside("export", study, "--format", "xml").err
    assert wrong == "error: --format xml: 'xml' is not one of 'toml', 'json', 'yaml', 'python'.\n"
