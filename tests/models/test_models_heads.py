"""Trunk and head of a network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ralr_tune.errors import UsageError
from ralr_tune.models import heads
from ralr_tune.models.names import NAMES
from ralr_tune.models.registry import build

SMALL = [name for name in NAMES if name not in ("wrn_28_10", "preresnet110", "resnet110", "densenet_bc_100_12")]
TORCHVISION = ["squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5", "mobilenet_v3_small", "resnet18", "efficientnet_b0"]
LARGE = ["vgg11", "alexnet", "densenet121", "convnext_tiny", "vit_b_16", "swin_t", "regnet_y_400mf", "googlenet"]


def check(model: nn.Module) -> None:
    trunk, head = heads.trunk_and_head(model, 7)
    assert head[0].shape[0] == 7
    assert len(head) <= 2
    grouped = [id(weight) for weight in (*trunk, *head)]
    assert sorted(grouped) == sorted(id(weight) for weight in model.parameters())


@pytest.mark.parametrize("name", [*SMALL, *(f"torchvision:{name}" for name in TORCHVISION)])
def test_the_head_of_a_known_network_is_its_last_layer(name: str) -> None:
    check(build(name, classes=7, channels=1, size=32))


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_the_head_of_every_family_of_torchvision(name: str) -> None:
    check(build(f"torchvision:{name}", classes=7, channels=3, size=64))


class Named(nn.Module):
    """Says where its head is, which is not its last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.top, self.base = nn.Linear(2, 7), nn.Linear(2, 2)

    def get_classifier(self) -> nn.Module:
        return self.top


def test_a_network_may_say_where_its_head_is() -> None:
    model = Named()
    trunk, head = heads.trunk_and_head(nn.Sequential(nn.Identity(), model), 7)
    assert [id(weight) for weight in head] == [id(weight) for weight in model.top.parameters()]
    assert [id(weight) for weight in trunk] == [id(weight) for weight in model.base.parameters()]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 5)), "its last layer with weights is Linear; the head is what"),
        (nn.Sequential(nn.Linear(2, 7), nn.LayerNorm(7)), "its last layer with weights is LayerNorm"),
        (nn.ReLU(), "it has no weights"),
        (nn.Sequential(nn.Flatten(), nn.Linear(2, 7)), "has no trunk: all its weights are in its head"),
    ],
)
def test_a_head_that_cannot_be_told_is_an_error(model: nn.Module, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        heads.trunk_and_head(model, 7)


def test_a_convolution_may_be_the_head() -> None:
    trunk, head = heads.trunk_and_head(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 7, 1), nn.AvgPool2d(2)), 7)
    assert [tuple(weight.shape) for weight in head] == [(7, 4, 1, 1), (7,)]
    assert len(trunk) == 2
    assert isinstance(trunk[0], torch.Tensor)
