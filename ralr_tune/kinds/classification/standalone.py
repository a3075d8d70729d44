"""Images in an exported script: all in memory, in the same batches as in the task.

Scripts include this source instead of task.py, which also trains several trials at once and shares decoded images
between processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ralr_tune.kinds.classification.batching import batch_borders, mean_and_std
from ralr_tune.kinds.classification.inputs import Normalisation, grey_values
from ralr_tune.kinds.classification.mixing import Mixing
from ralr_tune.kinds.classification.samples import Source, hold_out
from ralr_tune.kinds.classification.scores import Score
from ralr_tune.kinds.classification.transform import Augmentation
from ralr_tune.training.groups import WeightGroup

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
    """Grey value per channel, (C, 1, 1), that is subtracted from images, ..."""
    std: Tensor
    """... and by which they are divided then."""
    fill: Tensor
    """Mean colour, (C, 1, 1) uint8, of the study's training data without its validation split."""


def load_images(
    source: Source, *, validation: float, study_seed: int, normalisation: Normalisation | None = None
) -> ImageData:
    """All images of the source. `validation` and `study_seed` determine the study's validation split.

    `normalisation`: that of pretrained weights; None: that of the training data without the validation split.
    """
    parts = [source.train] if source.validation is None else [source.train, source.validation]
    images = torch.from_numpy(np.concatenate([part.load() for part in parts]))
    labels = np.concatenate([part.labels for part in parts])
    own = source.validation is not None
    train = np.arange(len(source.train)) if own else hold_out(labels, validation, study_seed)[1]
    mean, std = mean_and_std(images[torch.from_numpy(train)], "cpu")
    fill = mean.round().to(torch.uint8)
    if normalisation is not None:
        mean, std = grey_values(normalisation, images.shape[1], "cpu")
    test = source.test()
    test_images = torch.from_numpy(np.ascontiguousarray(test.load()))
    return ImageData(
        source.classes,
        images,
        torch.from_numpy(labels),
        test_images,
        torch.from_numpy(test.labels),
        mean=mean,
        std=std,
        fill=fill,
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
def evaluate(
    model: nn.Module,
    outputs_of: Callable[[Tensor], Tensor],
    data: ImageData,
    score: Score,
    batch_size: int,
    device: str,
) -> float:
    """The metric of the test images; NaN if an output is not finite."""
    model.eval()
    mean, std, finite = data.mean.to(device), data.std.to(device), True
    tested = (torch.split(each, batch_size) for each in (data.test_images, data.test_labels))
    for images, labels in zip(*tested, strict=True):
        outputs = outputs_of((images.to(device) - mean) / std)
        score.add(outputs[:, None], labels.to(device))
        finite &= bool(outputs.isfinite().all())
    return score.values().item() if finite else float("nan")


def check_sha256(path: str, expected: str) -> None:
    """Ends the program unless the file is the one that the study read."""
    try:
        found = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise SystemExit(f"{path}: cannot be read: {error.strerror or error}") from error
    if found != expected:
        raise SystemExit(f"{path}: not the file that the study read: its SHA-256 is {found}, not {expected}")


def parameter_groups(groups: Sequence[WeightGroup]) -> list[dict[str, Any]]:
    """The groups of an optimizer, each with the `factor` of its rates."""
    return [{"params": list(group.weights), "factor": group.factor} for group in groups]


def beta_quantile(shares: Tensor, alpha: float) -> Tensor:
    """For alpha = 1: Beta(1, 1) is uniform. The package's own needs scipy."""
    return shares


def check_memory(size_bytes: int, what: str) -> None:
    """Does nothing: the package's own check needs psutil, which a script must not depend on."""
