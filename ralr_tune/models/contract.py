"""What a network must do, and whether one does it: tried on a few images before anything is trained.

callable(num_classes=K, **model_options)  ->  torch.nn.Module
module(images)                            ->  outputs (N, K), one per class; images: float32 (N, C, H, W)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ralr_tune.errors import UsageError
from ralr_tune.models import heads

CALLED = "it is called as callable(num_classes=K, **model_options) and must return a torch.nn.Module"
RETURNS = "a network gets float32 images (N, C, H, W) and must return (N, num_classes)"

SUBSTITUTE = (10, 3, 224)
"""Classes, channels and size of images to build a network for while the real ones are unknown: ImageNet's images."""

Build = Callable[[int, int, int], nn.Module]
"""(classes, channels, size) to a new network. Raises UsageError."""


@dataclass(frozen=True)
class Images:
    """What is known of the images that a network is for."""

    classes: int | None
    shape: tuple[int, ...] | None
    """(C, H, W) in training."""
    evaluated: tuple[int, ...] | None = None
    """(C, H, W) in evaluation; None: as in training."""


@dataclass(frozen=True)
class Misfit:
    """Why a network cannot be trained."""

    reason: str
    of_images: bool
    """Whether it may fit other images or another number of classes."""


def misfit(build: Build, name: str, images: Images, *, batch: int, head: bool = False) -> Misfit | None:
    """Builds the network `name` and trains it for one step on `batch` random images; None if that works.

    Without a known shape, the network is only built. `head`: whether its head must be known, apart from its trunk.
    Leaves torch's global generator as it is.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            model = _try(build, name, images, batch)
            if head:
                heads.trunk_and_head(model, images.classes or SUBSTITUTE[0])
        except UsageError as error:
            return Misfit(str(error), of_images=images.shape is not None and _can_be_built(build, name))
    return None


def check_fit(model: nn.Module, shape: tuple[int, ...], classes: int | None, name: str = "") -> None:
    """Raises UsageError unless the model maps one image of this shape to one output per class (None: any number)."""
    training = model.training
    with torch.no_grad():
        outputs = _outputs(model.eval(), torch.zeros(1, *shape), name)
    model.train(training)
    _check_outputs(outputs, 1, classes, name)


def _try(build: Build, name: str, images: Images, batch: int) -> nn.Module:
    classes, channels, size = SUBSTITUTE
    if images.shape is None:
        return _build(build, name, images.classes or classes, channels, size)
    channels, height, width = images.shape
    model = _build(build, name, images.classes or classes, channels, min(height, width))
    for shape in {images.shape, images.evaluated or images.shape}:
        check_fit(model, shape, images.classes, name)
    _check_step(model, torch.randn(batch, *images.shape), images.classes, name)
    return model


def _can_be_built(build: Build, name: str) -> bool:
    try:
        _build(build, name, *SUBSTITUTE)
    except UsageError:
        return False
    return True


def _build(build: Build, name: str, classes: int, channels: int, size: int) -> nn.Module:
    try:
        return build(classes, channels, size)
    except UsageError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise UsageError(f"{_where(name)}: building it failed: {_reason(error)}") from error


def _check_step(model: nn.Module, images: Tensor, classes: int | None, name: str) -> None:
    """One forward and backward pass in training mode, in which some networks return or require something else."""
    outputs = _outputs(model.train(), images, name)
    _check_outputs(outputs, len(images), classes, name)
    try:
        F.cross_entropy(outputs.float(), torch.zeros(len(images), dtype=torch.int64)).backward()  # type: ignore[no-untyped-call]
    except Exception as error:
        raise UsageError(f"{_where(name)}: its loss has no gradient: {_reason(error)}") from error


def _outputs(model: nn.Module, images: Tensor, name: str) -> Tensor:
    try:
        outputs: Tensor = model(images)
    except Exception as error:  # the user's code may raise anything
        many = "" if len(images) == 1 else f" in training, {len(images)} at once"
        where = f"{_where(name)}: cannot process images of shape {tuple(images.shape[1:])} (C, H, W){many}"
        raise UsageError(f"{where}: {_reason(error)}") from error
    return outputs


def _check_outputs(outputs: object, count: int, classes: int | None, name: str) -> None:
    shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    fits = isinstance(outputs, Tensor) and outputs.dim() == 2 and len(outputs) == count
    if fits and classes in (None, shape[1]):
        return
    must = f"({count}, {'num_classes' if classes is None else classes})"
    given = "one image" if count == 1 else f"{count} images in training"
    raise UsageError(f"{_where(name)}: returns {shape} for {given}; must be {must}, one output per class; {RETURNS}")


def _where(name: str) -> str:
    return f"task.model = {name!r}" if name else "task.model"


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, RuntimeError | ValueError) and text else f"{type(error).__name__}: {text}"
