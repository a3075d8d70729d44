"""Mean average precision equals COCO's own code on the same detections, and rare cases have a value."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch

from ralr_tune.kinds.detection.annotated import Objects
from ralr_tune.kinds.detection.scores import SIZES, Detections, Precisions, precisions, resampled

CLASSES = 4


def objects(boxes: object = (), labels: object = (), *, crowd: object = None, difficult: object = None) -> Objects:
    corners = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    count, sides = len(corners), corners[:, 2:] - corners[:, :2]
    flags = [np.zeros(count, dtype=bool) if each is None else np.array(each, dtype=bool) for each in (crowd, difficult)]
    return Objects(corners, np.array(labels, dtype=np.int64).reshape(-1), *flags, sides.prod(axis=1))


def detections(boxes: object = (), scores: object = (), labels: object = ()) -> Detections:
    found = torch.tensor(np.array(boxes, dtype=np.float32).reshape(-1, 4))
    return Detections(
        found, torch.tensor(np.array(scores, dtype=np.float32)), torch.tensor(np.array(labels, dtype=np.int64))
    )


def random_images(seed: int, count: int) -> tuple[list[Detections], list[Objects]]:
    """Objects of all sizes, a few crowds; their noisy detections, and false ones. Class 3 has no objects."""
    rng = np.random.default_rng(seed)
    found, wanted = [], []
    for _ in range(count):
        n = int(rng.integers(0, 9))
        corners = rng.uniform(0, 400, (n, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(4, 200, (n, 2))], axis=1)
        labels = rng.integers(0, 3, n)
        wanted.append(objects(boxes, labels, crowd=rng.random(n) < 0.1))
        extra = rng.uniform(0, 300, (120, 2))
        guesses = np.concatenate([boxes + rng.normal(0, 3, boxes.shape), np.concatenate([extra, extra + 40], axis=1)])
        guesses[:, 2:] = np.maximum(guesses[:, 2:], guesses[:, :2] + 1)
        guessed = np.concatenate([labels, rng.integers(0, CLASSES, 120)])
        found.append(detections(guesses, rng.random(n + 120), guessed))
    return found, wanted


def coco_stats(found: list[Detections], wanted: list[Objects]) -> list[float]:
    """The twelve numbers of pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO()
    truth.dataset = {
        "images": [{"id": n} for n in range(len(wanted))],
        "categories": [{"id": n} for n in range(CLASSES)],
        "annotations": [],
    }
    for image, each in enumerate(wanted):
        for box, label, crowd, area in zip(each.corners, each.labels, each.crowd, each.areas, strict=True):
            x1, y1, x2, y2 = map(float, box)
            truth.dataset["annotations"].append(
                {"id": len(truth.dataset["annotations"]) + 1, "image_id": image, "category_id": int(label),
                 "bbox": [x1, y1, x2 - x1, y2 - y1], "area": float(area), "iscrowd": int(crowd)}
            )  # fmt: skip
    results = [
        {"image_id": image, "category_id": label, "score": score, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for image, each in enumerate(found)
        for (x1, y1, x2, y2), score, label in zip(
            each.boxes.tolist(), each.scores.tolist(), each.labels.tolist(), strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_pycocotools(seed: int) -> None:
    found, wanted = random_images(seed, 12)
    measured, stats = precisions(found, wanted), coco_stats(found, wanted)
    ours = [measured.value("map"), measured.value("map_50"), measured.value("map_75"), *map(measured.of_size, SIZES)]
    assert ours == pytest.approx(stats[:6], abs=1e-6)
    per_class = [measured.of_class("map", label) for label in range(CLASSES)]
    assert per_class[3] is None  # false positives of a class without objects are free
    assert np.mean([each for each in per_class if each is not None]) == pytest.approx(stats[0], abs=1e-6)


def test_without_objects_or_detections_the_value_is_the_worst() -> None:
    box = [[0, 0, 9, 9]]
    assert precisions([detections()], [objects()]).value("map") == 0.0
    assert precisions([detections(box, [0.9], [1])], [objects()]).value("map") == 0.0
    assert precisions([detections()], [objects(box, [1])]).value("map") == 0.0
    assert precisions([detections(box, [0.9], [1])], [objects(box, [1])]).value("map") == pytest.approx(1.0)


def perfect_but(**flags: object) -> Precisions:
    """Two objects, of which one is marked; only the other one is found, and a box at half of the marked one."""
    wanted = objects([[0, 0, 40, 40], [100, 100, 140, 140]], [0, 0], **flags)  # type: ignore[arg-type]
    return precisions([detections([[0, 0, 40, 40], [100, 100, 140, 141]], [0.5, 0.9], [0, 0])], [wanted])


def test_difficult_objects_and_their_detections_do_not_count() -> None:
    assert perfect_but(difficult=[False, True]).value("map") == pytest.approx(1.0)
    missed = precisions(
        [detections([[0, 0, 40, 40]], [0.9], [0])],
        [objects([[0, 0, 40, 40], [100, 100, 140, 140]], [0, 0], difficult=[False, True])],
    )
    assert missed.value("map") == pytest.approx(1.0)


def test_many_detections_inside_a_crowd_do_not_count() -> None:
    wanted = objects([[0, 0, 40, 40], [100, 100, 200, 200]], [0, 0], crowd=[False, True])
    inside = [[100 + 10 * n, 100, 110 + 10 * n, 120] for n in range(5)]
    found = detections([[0, 0, 40, 40], *inside], [0.1, *[0.9] * 5], [0] * 6)
    assert precisions([found], [wanted]).value("map") == pytest.approx(1.0)


def test_a_curve_falls_from_one() -> None:
    found, wanted = random_images(0, 12)
    curve = precisions(found, wanted).curve(0)
    assert curve is not None
    assert len(curve) == 101
    assert curve == sorted(curve, reverse=True)


def test_a_bootstrap_over_images_repeats_and_surrounds_the_value() -> None:
    found, wanted = random_images(1, 8)
    value = precisions(found, wanted).value("map")
    drawn = resampled(found, wanted, "map", draws=12, seed=5)
    assert drawn.tolist() == resampled(found, wanted, "map", draws=12, seed=5).tolist()
    assert drawn.min() < value < drawn.max()
