from __future__ import annotations

import pytest
import torch
from torch import nn

from ralr_tune.errors import UsageError
from ralr_tune.models import preactivation
from ralr_tune.models.cifar_resnet import Block, CifarResNet
from ralr_tune.models.densenet import DenseNetBC
from ralr_tune.models.registry import build
from ralr_tune.models.small_cnn import SmallCNN


def parameters(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(
    ("depth", "millions"),
    [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)],  # He et al. 2016, table 6
)
def test_cifar_resnets_have_the_papers_size(depth: int, millions: float) -> None:
    model = build(f"resnet{depth}", classes=10, channels=3, size=32)
    digits = 1 if depth == 110 else 2  # the paper prints 1.7M
    assert round(parameters(model) / 1e6, digits) == millions


def test_cifar_resnet_has_depth_weighted_layers() -> None:
    model = CifarResNet(classes=10, channels=3, depth=20)
    weighted = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(weighted) == 20


def test_cifar_resnet_halves_its_maps_twice() -> None:
    model = CifarResNet(classes=10, channels=3, depth=20)
    assert model.blocks(model.stem(torch.rand(1, 3, 32, 32))).shape == (1, 64, 8, 8)


def test_shortcut_of_a_wider_block_is_option_a() -> None:
    block = Block(2, 4, stride=2)
    nn.init.zeros_(block.norm2.weight)  # the residual is then zero: the output is the shortcut
    images = torch.rand(3, 2, 8, 8)
    seen = block(images)
    assert torch.equal(seen[:, :2], images[:, :, ::2, ::2])
    assert not seen[:, 2:].any()


def test_convolutions_are_initialised_as_in_he_2015() -> None:
    torch.manual_seed(0)
    model = CifarResNet(classes=10, channels=3, depth=20)
    weight = model.state_dict()["blocks.8.conv2.weight"]
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)


@pytest.mark.parametrize("depth", [2, 18, 21])
def test_impossible_depths_are_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=rf"depth = {depth}: must be 6n \+ 2"):
        CifarResNet(classes=10, channels=3, depth=depth)


@pytest.mark.parametrize(("channels", "size", "stages"), [(1, 8, 2), (1, 28, 3), (3, 32, 4), (3, 224, 6), (1, 4, 2)])
def test_small_cnn_accepts_small_and_large_images(channels: int, size: int, stages: int) -> None:
    model = SmallCNN(classes=7, channels=channels, size=size, width=4)
    assert len(model.features) == stages
    assert model(torch.rand(2, channels, size, size)).shape == (2, 7)


def test_small_cnn_uses_its_options() -> None:
    narrow, wide = (SmallCNN(classes=10, channels=1, size=8, width=width) for width in (4, 8))
    assert parameters(wide) > 3 * parameters(narrow)
    dropping = SmallCNN(classes=10, channels=1, size=8, dropout=0.5).train()
    images = torch.rand(4, 1, 8, 8)
    assert not torch.equal(dropping(images), dropping(images))
    assert torch.equal(dropping.eval()(images), dropping(images))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": 3}, "at least 4"), ({"width": 0}, "width = 0"), ({"dropout": 1.0}, r"in \[0, 1\)")],
)
def test_small_cnn_refuses_impossible_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SmallCNN(**{"classes": 2, "channels": 1, "size": 8, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("densenet_bc_40_12", 176_122),  # the authors' code prints it
        ("densenet_bc_100_12", 769_162),  # Huang et al. 2017, table 2: 0.8M
        ("wrn_16_4", 2_748_890),  # Zagoruyko and Komodakis 2016, table 6: 2.8M
        ("wrn_40_4", 8_949_210),  # table 4: 8.9M
        ("wrn_28_10", 36_479_194),  # table 4: 36.5M
        ("preresnet110", 1_730_522),  # He et al. 2016, "Identity Mappings": 1.7M
    ],
)
def test_networks_have_the_published_size(name: str, count: int) -> None:
    with torch.device("meta"):
        assert parameters(build(name, classes=10, channels=3, size=32)) == count


def test_dense_blocks_grow_and_transitions_halve() -> None:
    model = DenseNetBC(classes=10, channels=3, depth=40, growth=12)
    x = model.stem(torch.rand(1, 3, 32, 32))
    shapes = []
    for layer in model.stages:
        x = layer(x)
        shapes.append((x.shape[1], x.shape[-1]))
    assert shapes[0] == (36, 32)
    assert shapes[5:8] == [(96, 32), (48, 16), (60, 16)]
    assert shapes[-1] == (132, 8)


def test_the_memory_efficient_densenet_has_the_same_gradients() -> None:
    def gradients(memory_efficient: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = DenseNetBC(classes=3, channels=1, depth=16, growth=4, memory_efficient=memory_efficient)
        model(torch.rand(2, 1, 8, 8)).square().sum().backward()
        return [weight.grad for weight in model.parameters() if weight.grad is not None]

    kept, recomputed = gradients(False), gradients(True)
    assert len(kept) == len(recomputed) > 20
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(kept, recomputed, strict=True))


@pytest.mark.parametrize("name", ["wrn_10_2", "densenet_bc_10_4"])
def test_dropout_is_random_in_training_only(name: str) -> None:
    model = build(name, classes=3, channels=1, size=8, options={"dropout": 0.5})
    images = torch.rand(4, 1, 8, 8)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_a_preactivation_block_keeps_its_input() -> None:
    block = preactivation.Block(4, 4, 1, 0.0, None)
    nn.init.zeros_(block.conv2.weight)
    images = torch.rand(2, 4, 8, 8)
    assert torch.equal(block(images), images)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("wrn_27_10", {}, r"depth = 27: must be 6n \+ 4 with n >= 1"),
        ("wrn_28_0", {}, r"widen = 0: must be at least 1"),
        ("densenet_bc_100_0", {}, r"growth = 0: must be at least 1"),
        ("densenet_bc_99_12", {}, r"depth = 99: must be 6n \+ 4"),
        ("preresnet111", {}, r"depth = 111: must be 6n \+ 2"),
        ("wrn_16_4", {"dropout": 1.0}, r"dropout = 1\.0: must be in \[0, 1\)"),
        ("densenet_bc_40_12", {"dropuot": 0.2}, r"dropuot.*; its model_options: dropout, memory_efficient"),
    ],
)
def test_impossible_networks_are_refused(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(name, classes=10, channels=3, size=32, options=options)
