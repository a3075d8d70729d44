"""Augmentation: no transform yields an invalid box or separates a box from its label, and each is repeatable."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ralr_tune.kinds.detection.augment import (
    DETECTION_AUGMENTATIONS,
    MIN_SIDE,
    Sample,
    augmented,
    flipped,
    generator_of,
    mosaicked,
    recoloured,
    scale_jittered,
)
from ralr_tune.kinds.detection.section import AUGMENTATIONS
from tests.fuzz import AT_RANDOM

COLOURS = torch.tensor([[250, 10, 10], [10, 250, 10], [10, 10, 250]], dtype=torch.uint8)
"""Of the objects of each class, on black."""


def scene(seed: int, height: int = 40, width: int = 56, count: int = 3) -> Sample:
    """Filled rectangles side by side, coloured by class; the flag says that the class is 2."""
    rng = np.random.default_rng(seed)
    image, boxes, labels = torch.zeros(3, height, width, dtype=torch.uint8), [], []
    for place in range(count):
        left, right = place * width // count + 1, (place + 1) * width // count - 1
        x1, x2 = sorted(rng.choice(np.arange(left, right + 1), 2, replace=False))
        y1, y2 = sorted(rng.choice(height + 1, 2, replace=False))
        label = int(rng.integers(3))
        image[:, y1:y2, x1:x2] = COLOURS[label][:, None, None]
        boxes.append([x1, y1, x2, y2])
        labels.append(label)
    found = torch.tensor(labels, dtype=torch.int64)
    return Sample(image, torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), found, found == 2)


def check(sample: Sample) -> None:
    height, width = sample.size
    assert sample.image.dtype == torch.uint8
    assert sample.boxes.dtype == torch.float32
    assert sample.boxes.shape == (len(sample.labels), 4)
    assert (sample.boxes[:, :2] >= 0).all()
    assert (sample.boxes[:, 2:] <= torch.tensor([width, height])).all()
    assert (sample.boxes[:, 2:] - sample.boxes[:, :2] >= MIN_SIDE).all()
    assert torch.equal(sample.difficult, sample.labels == 2)


@settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=not AT_RANDOM, max_examples=60)
@given(
    names=st.lists(st.sampled_from(AUGMENTATIONS), unique=True, min_size=1),
    seed=st.integers(0, 2**40),
    size=st.tuples(st.integers(8, 60), st.integers(14, 60)),
    count=st.integers(0, 3),
)
def test_no_augmentation_yields_an_invalid_box_or_loses_its_label(
    names: list[str], seed: int, size: tuple[int, int], count: int
) -> None:
    sample = scene(seed % 1000, *size, count=count) if count else scene(0, *size).take(torch.zeros(3, dtype=torch.bool))
    check(sample)
    results = [augmented(sample, names, generator_of(seed), lambda rng: scene(int(rng.integers(99)))) for _ in range(2)]
    check(results[0])
    assert torch.equal(results[0].image, results[1].image)
    assert torch.equal(results[0].boxes, results[1].boxes)


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "colour"])
def test_boxes_stay_on_their_objects(name: str) -> None:
    """The middle of a box has the colour of its class: image, boxes and labels moved together."""
    checked = 0
    for seed in range(20):
        moved = augmented(scene(seed), [name], generator_of(seed), lambda rng: scene(int(rng.integers(99))))
        for box, label in zip(moved.boxes, moved.labels, strict=True):
            if (box[2:] - box[:2]).min() >= 4:
                x, y = ((box[:2] + box[2:]) / 2).int().tolist()
                assert (moved.image[:, y, x].int() - COLOURS[label].int()).abs().max() < 60
                checked += 1
    assert checked > 20


def test_every_augmentation_changes_some_image_and_no_size_but_a_crops() -> None:
    for name, change in DETECTION_AUGMENTATIONS.items():
        sample = scene(1)
        results = [change(sample, generator_of(seed), lambda rng: scene(int(rng.integers(99)))) for seed in range(8)]
        assert any(not torch.equal(each.image, sample.image) for each in results), name
        assert name == "iou_crop" or {each.size for each in results} == {sample.size}, name


def test_a_flip_twice_is_the_same_image() -> None:
    sample, seed = scene(3), next(seed for seed in range(9) if generator_of(seed).random() >= 0.5)
    once = flipped(sample, generator_of(seed), lambda rng: sample)
    twice = flipped(once, generator_of(seed), lambda rng: sample)
    assert not torch.equal(once.boxes, sample.boxes)
    assert torch.equal(twice.boxes, sample.boxes)
    assert torch.equal(twice.image, sample.image)


def test_colours_leave_boxes_as_they_are() -> None:
    sample = scene(4)
    assert torch.equal(recoloured(sample, generator_of(0), lambda rng: sample).boxes, sample.boxes)


def test_mosaic_takes_objects_of_other_images() -> None:
    sample, other = scene(5).take(torch.zeros(3, dtype=torch.bool)), scene(6)
    results = [mosaicked(sample, generator_of(seed), lambda rng: other) for seed in range(10)]
    assert any(len(each.labels) > 3 for each in results)


def test_scale_jitter_enlarges_and_reduces() -> None:
    sample = Sample(scene(0).image, torch.tensor([[10.0, 10, 30, 30]]), torch.zeros(1).long(), torch.zeros(1).bool())
    found = [scale_jittered(sample, generator_of(seed), lambda rng: sample).boxes for seed in range(20)]
    widths = [float(boxes[0, 2] - boxes[0, 0]) for boxes in found if len(boxes)]
    assert min(widths) < 20 < max(widths)


def test_the_study_file_offers_these_augmentations() -> None:
    assert tuple(DETECTION_AUGMENTATIONS) == AUGMENTATIONS
