"""timm's networks: the real ones if timm is installed, and a stand-in for what goes wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from ralr_tune.errors import UsageError
from ralr_tune.models import heads, registry, timm_models

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed (extra [timm])")

STAND_IN = """
from torch import nn

class Config:
    input_size, fixed_input_size, num_classes = (3, 32, 32), True, 1000
    mean, std, hf_hub_id, hf_hub_filename = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "timm/tiny_32", None

def is_model(name): return name == "tiny_32"
def list_models(): return ["tiny_32"]
def get_pretrained_cfg(name): return Config()

def create_model(name, pretrained, num_classes, in_chans, **options):
    if pretrained:
        raise OSError("no route to host")
    if options.keys() - {"img_size"}:
        raise TypeError(f"unexpected keyword argument {sorted(options)[0]!r}")
    return nn.Sequential(nn.Conv2d(in_chans, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "__init__.py").write_text(STAND_IN)
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "timm"}
    for name in before:
        del sys.modules[name]
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("timm", None)
    sys.modules.update(before)


def build(name: str, size: int = 32, **options: object) -> torch.nn.Module:
    return registry.build(name, classes=5, channels=3, size=size, **options)  # type: ignore[arg-type]


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_models, "find_spec", lambda name: None)
    for ask in (build, registry.normalisation, registry.weights_file, registry.fetch):
        with pytest.raises(
            UsageError, match=r"task.model = 'timm:resnet18': needs the package timm, .*ralr-tune\[timm\]"
        ):
            ask("timm:resnet18")


@pytest.mark.usefixtures("stand_in")
def test_names_sizes_and_options_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match="timm has no such network; similar names: timm:tiny_32"):
        build("timm:tini_32")
    with pytest.raises(UsageError, match=r"made for images of 32x32 pixels, these are 16x16; set task.data.size or"):
        build("timm:tiny_32", size=16)
    with pytest.raises(UsageError, match="unexpected keyword argument 'widht'"):
        build("timm:tiny_32", options={"widht": 3})
    assert build("timm:tiny_32", size=16, options={"img_size": 16})(torch.rand(2, 3, 16, 16)).shape == (2, 5)


@pytest.mark.usefixtures("stand_in")
def test_weights_that_cannot_be_had_are_one_line_that_names_the_way_out() -> None:
    for ask in (lambda: build("timm:tiny_32", pretrained=True), lambda: registry.fetch("timm:tiny_32")):
        with pytest.raises(UsageError, match=r"cannot be loaded .no route to host.; without a network, set task.w"):
            ask()


@pytest.mark.usefixtures("stand_in")
def test_normalisation_and_classes_are_those_of_the_weights() -> None:
    assert registry.normalisation("timm:tiny_32") == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert registry.weights_classes("timm:tiny_32") == 1000


@needs_timm
@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_of_timm_has_the_asked_classes_and_channels(channels: int) -> None:
    model = registry.build("timm:resnet10t", classes=5, channels=channels, size=64)
    assert model.eval()(torch.rand(2, channels, 64, 64)).shape == (2, 5)
    _, head = heads.trunk_and_head(model, 5)
    assert [tuple(weight.shape) for weight in head] == [(5, 512), (5,)]


@needs_timm
def test_a_network_of_one_size_says_which() -> None:
    with pytest.raises(UsageError, match="made for images of 224x224 pixels, these are 64x64"):
        build("timm:vit_tiny_patch16_224", size=64)
    model = build("timm:vit_tiny_patch16_224", size=64, options={"img_size": 64, "depth": 1})
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 5)


@needs_timm
def test_weights_of_a_file_are_loaded_into_a_network_of_timm(tmp_path: Path) -> None:
    torch.manual_seed(1)
    saved = registry.build("timm:resnet10t", classes=1000, channels=3, size=64).state_dict()
    torch.save(saved, tmp_path / "resnet10t.pth")
    found = build("timm:resnet10t", size=64, weights=str(tmp_path / "resnet10t.pth")).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in saved.items() if not name.startswith("fc."))
    assert found["fc.weight"].shape == (5, 512)
