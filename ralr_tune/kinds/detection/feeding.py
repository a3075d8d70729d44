"""Images to the network and detections from it. The task and exported scripts share this source, so that both draw and
measure the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ralr_tune.kinds.detection.annotated import Picture
from ralr_tune.kinds.detection.augment import Sample, augmented, generator_of
from ralr_tune.kinds.detection.batches import DetectionBatch, Target, aspect_batches
from ralr_tune.kinds.detection.loading import PictureLoader
from ralr_tune.kinds.detection.scores import Detections
from ralr_tune.machine.cores import available_cores
from ralr_tune.seeds import derive_seed


def aspect_ratios(pictures: Sequence[Picture]) -> list[float]:
    """Width / height of each image."""
    return [each.width / each.height for each in pictures]


def training_batches(
    pictures: Sequence[Picture],
    loader: PictureLoader,
    augment: Sequence[str],
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    device: str,
    ahead: int = 0,
) -> Iterator[DetectionBatch]:
    """Every image once, each a pure function of (seed, epoch, its position in `pictures`). `ahead`: see `prepared`."""
    orders = aspect_batches(aspect_ratios(pictures), batch_size, seed=seed, epoch=epoch)

    def sample(position: int) -> Sample:
        generator = generator_of(derive_seed("augment", seed, epoch, position))
        return augmented(_sample(pictures[position], loader), augment, generator, partner)

    def partner(generator: np.random.Generator) -> Sample:
        return _sample(pictures[int(generator.integers(len(pictures)))], loader)

    for samples in prepared(sample, [order.tolist() for order in orders], ahead=ahead):
        yield _batch(samples, device)


@torch.no_grad()
def detect(
    model: nn.Module,
    pictures: Sequence[Picture],
    loader: PictureLoader,
    *,
    batch_size: int,
    device: str,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    ahead: int = 0,
) -> list[Detections]:
    """What the network finds in each image, in their order, in pixels of the stored images. Leaves it in evaluation
    mode."""
    model.eval()
    ratios = aspect_ratios(pictures)
    order = sorted(range(len(pictures)), key=lambda place: (ratios[place], place))
    found: list[Detections | None] = [None] * len(pictures)
    places = [order[first:last] for first, last in pairwise([*range(0, len(order), batch_size), len(order)])]
    loaded = prepared(lambda place: loader.load(pictures[place]), places, ahead=ahead)
    for some, decoded in zip(places, loaded, strict=True):
        with autocast():
            outputs = model([_pixels(each.image, device) for each in decoded])
        for place, each, output in zip(some, decoded, outputs, strict=True):
            boxes, scores, labels = (output[name].cpu() for name in ("boxes", "scores", "labels"))
            scale = torch.tensor([*each.scale, *each.scale])
            found[place] = Detections(boxes.float() / scale, scores.float(), labels - 1)
    return cast(list[Detections], found)


def prepared(work: Callable[[int], Any], batches: Sequence[Sequence[int]], *, ahead: int) -> Iterator[list[Any]]:
    """`work` of every position, batch by batch; threads do that of the next `ahead` batches, with equal results."""
    if not ahead:
        yield from ([work(position) for position in batch] for batch in batches)
        return
    with ThreadPoolExecutor(available_cores()) as pool:
        waiting = deque[list[Any]]()
        try:
            for batch in batches:
                waiting.append([pool.submit(work, position) for position in batch])
                if len(waiting) > ahead:
                    yield [each.result() for each in waiting.popleft()]
            while waiting:
                yield [each.result() for each in waiting.popleft()]
        finally:
            pool.shutdown(cancel_futures=True)


def _sample(picture: Picture, loader: PictureLoader) -> Sample:
    """An image with its objects, without crowds."""
    decoded = loader.load(picture)
    objects = picture.objects.take(~picture.objects.crowd)
    boxes = torch.from_numpy(objects.corners) * torch.tensor([*decoded.scale, *decoded.scale])
    return Sample(decoded.image, boxes, torch.from_numpy(objects.labels), torch.from_numpy(objects.difficult))


def _batch(samples: Sequence[Sample], device: str) -> DetectionBatch:
    targets: list[Target] = [
        {"boxes": each.boxes.to(device), "labels": (each.labels + 1).to(device)} for each in samples
    ]  # class 0 is the background
    return DetectionBatch(tuple(_pixels(each.image, device) for each in samples), tuple(targets))


def _pixels(image: Tensor, device: str) -> Tensor:
    return image.to(device, non_blocking=True).float() / 255
