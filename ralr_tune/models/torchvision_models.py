"""torchvision's classification networks by name, with its weights if asked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torchvision.models
from torch import Tensor, nn

from ralr_tune.errors import UsageError
from ralr_tune.nearest import nearest


class Grey(nn.Module):
    """Shows one-channel images to a network for colour images: (N, 1, H, W) as (N, 3, H, W), without a copy."""

    def forward(self, images: Tensor) -> Tensor:
        return images.expand(-1, 3, -1, -1)


def build(
    name: str, *, classes: int, channels: int, size: int, options: Mapping[str, Any], pretrained: bool
) -> nn.Module:
    """The network `name` of torchvision.models with `classes` outputs, for images of 1 or 3 channels.

    `pretrained`: torchvision's default weights, downloaded once by torch.hub; layers whose shape differs (the head,
    unless there are 1,000 classes) start anew. Raises UsageError on an unknown name, on other numbers of channels and
    on weights that cannot be had; TypeError and ValueError as the network's own constructor does.
    """
    _check(name, channels)
    settled = {**_defaults(name, size), **options}
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes, **settled)
    if pretrained:
        _copy_matching(_pretrained(name), model)
    return model if channels == 3 else nn.Sequential(Grey(), model)


def names() -> list[str]:
    """Every name that `build` takes."""
    return list(torchvision.models.list_models(module=torchvision.models))


def _check(name: str, channels: int) -> None:
    if name not in names():
        near = nearest(name, names(), count=3, cutoff=0.4)
        raise UsageError(
            f"task.model = 'torchvision:{name}': torchvision has no such classification network"
            f"; the nearest: {', '.join(f'torchvision:{other}' for other in near) or 'none'}"
        )
    if channels not in (1, 3):
        raise UsageError(f"task.model = 'torchvision:{name}': takes images of 1 or 3 channels, these have {channels}")


def _defaults(name: str, size: int) -> dict[str, Any]:
    if name in {"googlenet", "inception_v3"}:
        return {"aux_logits": False, "init_weights": True}  # one output, as every other network has
    if name.startswith("vit_"):
        return {"image_size": size}
    return {"input_size": (size, size)} if name.startswith("maxvit_") else {}


def _pretrained(name: str) -> nn.Module:
    try:
        with _nothing_unpickled():
            model: nn.Module = torchvision.models.get_model(name, weights="DEFAULT", progress=False)
    except Exception as error:  # of urllib, torch.hub and torch.load: they share no base
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"task.pretrained = true: the weights of torchvision:{name} cannot be had ({reason})"
        ) from error
    return model


@contextmanager
def _nothing_unpickled() -> Iterator[None]:
    """Inside, torch.load reads weights and nothing else.

    torchvision asks for no such thing, and checks a file's hash only when it downloads it: whatever lies in torch.hub's
    folder under the right name would run. This variable is torch's own switch; there is no argument to pass it by.
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


def _copy_matching(source: nn.Module, target: nn.Module) -> None:
    wanted = target.state_dict()
    fitting = {
        key: value for key, value in source.state_dict().items() if key in wanted and wanted[key].shape == value.shape
    }
    target.load_state_dict(fitting, strict=False)
