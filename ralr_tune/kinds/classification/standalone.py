"""Images in an exported script: all in memory, in the same batches as in the task.

Scripts include this source instead of task.py, which also trains several trials at once and shares decoded images
between processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from ralr_tune.kinds.classification.batching import batch_borders, mean_and_std
from ralr_tune.kinds.classification.inputs import Normalisation, grey_values
from ralr_tune.kinds.classification.mixing import Mixing
from ralr_tune.kinds.classification.samples import Source, hold_out
from ralr_tune.kinds.classification.transform import Augmentation

Batch = tuple[Tensor, Tensor]
"""Normalised images (N, C, H, W) float32 and labels, (N,) int64 or shares (N, classes)."""


@dataclass(frozen=True)
class ImageData:
    """Images (N, C, H, W) uint8 and labels (N,) int64, on the CPU; the training data include the validation data."""

    classes: tuple[str, ...]
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    mean: Tensor
    """Mean grey value per channel, (C, 1, 1), of the study's training data without its validation split."""
    std: Tensor


def load_images(
    source: Source, *, validation: float, study_seed: int, normalisation: Normalisation | None = None
) -> ImageData:
    """All images of the source. `validation` and `study_seed` determine the study's validation split.

    `normalisation`: that of pretrained weights; None: that of the training data."""
    parts = [source.train] if source.validation is None else [source.train, source.validation]
    images = torch.from_numpy(np.concatenate([part.load() for part in parts]))
    labels = np.concatenate([part.labels for part in parts])
    own = source.validation is not None
    train = np.arange(len(source.train)) if own else hold_out(labels, validation, study_seed)[1]
    mean, std = mean_and_std(images[torch.from_numpy(train)], "cpu")
    if normalisation is not None:
        mean, std = grey_values(normalisation, images.shape[1], "cpu")
    test = source.test()
    test_images = torch.from_numpy(np.ascontiguousarray(test.load()))
    return ImageData(
        source.classes, images, torch.from_numpy(labels), test_images, torch.from_numpy(test.labels), mean=mean, std=std
    )


def train_batches(
    data: ImageData,
    order: Tensor,
    augmentations: Sequence[Augmentation],
    draws: Sequence[Tensor],
    batch_size: int,
    device: str,
) -> Iterator[Batch]:
    """The training images in this order, with each augmentation applied according to its draws (see `draw_epoch`)."""
    mean, std = data.mean.to(device), data.std.to(device)
    for first, last in pairwise(batch_borders(len(order), batch_size)):
        rows = order[first:last]
        images = data.train_images[rows].to(device)
        for augmentation, drawn in zip(augmentations, draws, strict=True):
            moved = drawn[first:last] if augmentation.draws_on_host else drawn[first:last].to(device)
            images = augmentation.apply(images, moved)
        yield (images - mean) / std, data.train_labels[rows].to(device)


def mixed(batches: Iterable[Batch], mixing: Mixing, draws: Tensor) -> Iterator[Batch]:
    """The same batches, with the images within each batch mixed."""
    first = 0
    for images, labels in batches:
        last = first + len(images)
        yield mixing.apply(images, labels, draws[first:last].to(images.device))
        first = last


@torch.no_grad()
def accuracy(
    model: nn.Module, outputs_of: Callable[[Tensor], Tensor], data: ImageData, batch_size: int, device: str
) -> float:
    """Share of the test images whose largest output is that of their class; NaN if an output is not finite."""
    model.eval()
    mean, std = data.mean.to(device), data.std.to(device)
    outputs = [outputs_of((some.to(device) - mean) / std).cpu() for some in torch.split(data.test_images, batch_size)]
    found = torch.cat(outputs)
    correct = (found.argmax(1) == data.test_labels).float().mean().item()
    return correct if found.isfinite().all() else float("nan")


def beta_quantile(shares: Tensor, alpha: float) -> Tensor:
    """For alpha = 1: Beta(1, 1) is uniform. The package's own needs scipy."""
    return shares


def check_memory(size_bytes: int, what: str) -> None:
    """Does nothing: the package's own check needs psutil, which a script must not depend on."""
