"""torchvision's classification networks by name, optionally with its pretrained weights."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import torch
import torchvision.models
from torch import Tensor, nn

from ralr_tune.errors import UsageError
from ralr_tune.models.weight_files import check_hash
from ralr_tune.nearest import nearest

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""torchvision's mean and standard deviation of ImageNet's training images, per channel."""


class Grey(nn.Module):
    """Expands one-channel images for a network of colour images: (N, 1, H, W) to (N, 3, H, W), without a copy."""

    def forward(self, images: Tensor) -> Tensor:
        return images.expand(-1, 3, -1, -1)


def build(
    name: str, *, classes: int, channels: int, size: int, options: Mapping[str, Any], pretrained: bool
) -> nn.Module:
    """The network `name` of torchvision.models with `classes` outputs, for images of 1 or 3 channels.

    `pretrained`: torchvision's default weights, downloaded once by torch.hub and checked against the hash in the file's
    name; layers whose shape differs (the head, unless there are 1,000 classes) are initialised randomly.

    Raises UsageError for an unknown name, another number of channels, or weights that cannot be loaded; TypeError and
    ValueError as the network's own constructor does.
    """
    _check(name, channels)
    arguments = {**_defaults(name, size), **options}
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes, **arguments)
    if pretrained:
        copy_matching(pretrained_network(name), model)
    return model if channels == 3 else nn.Sequential(Grey(), model)


def weights_file(name: str) -> Path:
    """Where torch.hub keeps the default weights of network `name`, downloaded or not; the file name contains a hash.

    Raises UsageError if torchvision has no weights for it.
    """
    weights = torchvision.models.get_model_weights(name)
    if not list(weights):
        raise UsageError(f"task.pretrained = true: torchvision has no weights for torchvision:{name}")
    file = PurePosixPath(urlsplit(weights.DEFAULT.url).path).name
    return Path(torch.hub.get_dir()) / "checkpoints" / file


def fetch(name: str) -> None:
    """Downloads the default weights unless they are here, and checks their hash. Raises UsageError."""
    if name not in names():
        return  # `build` lists similar names
    check_hash(weights_file(name))
    if not weights_file(name).exists():
        pretrained_network(name)


def normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, as shares of white, with which the default weights were trained.

    Those of ImageNet for a network without weights.
    """
    weights = torchvision.models.get_model_weights(name)
    if not list(weights):
        return IMAGENET
    preset = weights.DEFAULT.transforms()
    return tuple(preset.mean), tuple(preset.std)


def weights_classes(name: str) -> int:
    """The number of classes of the default weights."""
    return len(torchvision.models.get_model_weights(name).DEFAULT.meta["categories"])


def names() -> list[str]:
    """Every name that `build` accepts."""
    return list(torchvision.models.list_models(module=torchvision.models))


def _check(name: str, channels: int) -> None:
    if name not in names():
        near = nearest(name, names(), count=3, cutoff=0.4)
        raise UsageError(
            f"task.model = 'torchvision:{name}': torchvision has no such classification network"
            f"; similar names: {', '.join(f'torchvision:{other}' for other in near) or 'none'}"
        )
    if channels not in (1, 3):
        raise UsageError(f"task.model = 'torchvision:{name}': takes images of 1 or 3 channels, these have {channels}")


def _defaults(name: str, size: int) -> dict[str, Any]:
    if name in {"googlenet", "inception_v3"}:
        return {"aux_logits": False, "init_weights": True}  # one output, like the other networks
    if name.startswith("vit_"):
        return {"image_size": size}
    return {"input_size": (size, size)} if name.startswith("maxvit_") else {}


def pretrained_network(name: str) -> nn.Module:
    check_hash(weights_file(name))
    try:
        with _weights_only_load():
            model: nn.Module = torchvision.models.get_model(name, weights="DEFAULT", progress=False)
    except Exception as error:  # from urllib, torch.hub and torch.load, which share no base class
        reason = str(error).partition("\n")[0]
        file, url = weights_file(name), torchvision.models.get_model_weights(name).DEFAULT.url
        absent = "" if file.exists() else f"; without a network, put {file.name} from {url} into {file.parent}"
        raise UsageError(
            f"task.pretrained = true: the weights of torchvision:{name} cannot be loaded ({reason}){absent}"
        ) from error
    return model


@contextmanager
def _weights_only_load() -> Iterator[None]:
    """Inside the block, torch.load loads only weights and executes nothing.

    torchvision does not request this, and it checks a file's hash only when it downloads the file: any pickle in
    torch.hub's folder under the right name would run. get_model has no argument for it, so torch's environment variable
    is set.
    """
    switch = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(switch)
    os.environ[switch] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before


def copy_matching(source: nn.Module, target: nn.Module) -> None:
    own = target.state_dict()
    matching = {
        key: value for key, value in source.state_dict().items() if key in own and own[key].shape == value.shape
    }
    target.load_state_dict(matching, strict=False)
