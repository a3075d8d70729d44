from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models

from ralr_tune.errors import UsageError
from ralr_tune.models import registry, torchvision_models
from ralr_tune.models.names import NAMES, is_unknown
from ralr_tune.models.registry import build

SHAPE: dict[str, Any] = {"classes": 5, "channels": 3, "size": 32}


@pytest.fixture
def users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a user's module with networks."""
    (tmp_path / "users_nets.py").write_text(
        "from torch import nn\n"
        "class nets:\n"
        "    @staticmethod\n"
        "    def linear(num_classes, inputs=3 * 32 * 32):\n"
        "        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, num_classes))\n"
        "def number(num_classes): return num_classes\n"
        "word = 'word'\n"
    )
    (tmp_path / "broken_nets.py").write_text("import no_such_module_at_all\n")
    (tmp_path / "leaving_nets.py").write_text("raise SystemExit('goodbye')\n")
    (tmp_path / "leaver_nets.py").write_text("def net(num_classes): raise SystemExit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "users_nets"


@pytest.mark.parametrize("name", ["small_cnn", "resnet20"])
def test_known_networks_give_one_logit_a_class(name: str) -> None:
    assert name in NAMES
    assert build(name, **SHAPE)(torch.rand(2, 3, 32, 32)).shape == (2, 5)


def test_weights_follow_the_callers_seed() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([weight.flatten() for weight in build("small_cnn", **SHAPE).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_import_path_is_called_with_classes_and_options(users_module: str) -> None:
    model = build(f"{users_module}:nets.linear", classes=4, channels=1, size=8, options={"inputs": 64})
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smal_cnn", r"no such network; did you mean 'small_cnn'\?; allowed: small_cnn, resnet20, .*torchvision:NAME"),
        ("zzz", "no such network; allowed: small_cnn"),
        ("no_such_module_at_all:net", "importing 'no_such_module_at_all' failed: ModuleNotFoundError"),
        ("broken_nets:net", "importing 'broken_nets' failed: ModuleNotFoundError"),
        ("leaving_nets:net", "importing 'leaving_nets' failed: SystemExit: goodbye"),
        ("leaver_nets:net", r"tried to exit the program \(0\)"),
        ("users_nets:nothing", "has no attribute 'nothing'"),
        ("users_nets:word", "'word' is str, not callable"),
        ("users_nets:number", "returned int, not a torch.nn.Module"),
        ("torchvision:resnet19", "torchvision:resnet18"),
        ("torchvision:fasterrcnn_resnet50_fpn", "no such classification network"),
    ],
)
def test_wrong_names_are_refused(users_module: str, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        build(name, **SHAPE)
    assert f"task.model = {name!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("small_cnn", "width, dropout"), ("resnet20", "stochastic_depth_prob"), ("users_nets:nets.linear", "inputs")],
)
def test_wrong_options_name_the_allowed_ones(users_module: str, name: str, allowed: str) -> None:
    with pytest.raises(UsageError, match=f"widht.*; its model_options: {allowed}$"):
        build(name, **SHAPE, options={"widht": 3})


def test_wrong_option_values_are_refused() -> None:
    with pytest.raises(UsageError, match=re.escape("dropout = 2: must be in [0, 1)")):
        build("small_cnn", **SHAPE, options={"dropout": 2})


def test_only_torchvision_networks_have_pretrained_weights() -> None:
    with pytest.raises(UsageError, match=r"task.pretrained = true: task.model = 'small_cnn' has no weights"):
        build("small_cnn", **SHAPE, pretrained=True)


@pytest.mark.parametrize("channels", [1, 3])
def test_torchvision_networks_accept_grey_and_colour_images(channels: int) -> None:
    model = build("torchvision:squeezenet1_1", classes=5, channels=channels, size=32, options={"dropout": 0.1})
    assert model(torch.rand(2, channels, 32, 32)).shape == (2, 5)


def test_torchvision_networks_refuse_other_channels() -> None:
    with pytest.raises(UsageError, match="takes images of 1 or 3 channels, these have 4"):
        build("torchvision:squeezenet1_1", classes=5, channels=4, size=32)


def test_torchvision_options_are_the_networks_own() -> None:
    with pytest.raises(UsageError, match="unexpected keyword argument 'widht'"):
        build("torchvision:squeezenet1_1", **SHAPE, options={"widht": 3})


def test_pretrained_weights_are_copied_if_their_shape_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = torchvision.models.get_model("squeezenet1_1", weights=None)
    monkeypatch.setattr(torchvision_models, "pretrained_network", lambda name: loaded)
    state = build("torchvision:squeezenet1_1", **SHAPE, pretrained=True).state_dict()
    assert torch.equal(state["features.0.weight"], loaded.state_dict()["features.0.weight"])
    assert state["classifier.1.weight"].shape[0] == 5


def test_weights_that_cannot_be_downloaded_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str, **options: object) -> None:
        if options.get("weights") == "DEFAULT":
            raise OSError("no route to host")

    monkeypatch.setattr(torchvision.models, "get_model", offline)
    with pytest.raises(UsageError, match=r"cannot be loaded .no route to host"):
        build("torchvision:squeezenet1_1", **SHAPE, pretrained=True)


class Spy:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def test_manipulated_weights_do_not_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torchvision.models.get_model_weights("squeezenet1_1")["DEFAULT"]
    file = tmp_path / "hub" / "checkpoints" / Path(weights.url).name
    file.parent.mkdir(parents=True)
    torch.save(Spy(tmp_path / "ran"), file)
    monkeypatch.setattr(torchvision_models, "check_hash", lambda file: None)  # as if its name had its hash
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    with pytest.raises(
        UsageError, match=r"the weights of torchvision:squeezenet1_1 cannot be loaded .Weights only load"
    ):
        build("torchvision:squeezenet1_1", **SHAPE, pretrained=True)
    assert not (tmp_path / "ran").exists()
    torch.load(file, weights_only=False)
    assert (tmp_path / "ran").exists()  # the spy works


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"), [("googlenet", 64), ("inception_v3", 96), ("vit_b_16", 32), ("maxvit_t", 224)]
)
def test_networks_with_special_arguments_give_one_output(name: str, size: int) -> None:
    model = build(f"torchvision:{name}", classes=5, channels=3, size=size).train()
    assert model(torch.rand(2, 3, size, size)).shape == (2, 5)


def test_names_are_those_that_build_accepts() -> None:
    assert all(registry.builder(name) for name in NAMES)
    assert registry.builder("vgg19") is None
    assert not any(map(is_unknown, [*NAMES, "torchvision:resnet18", "my.networks:build"]))
    assert is_unknown("resnet18")
