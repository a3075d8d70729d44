"""Crops to the sizes of training and evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional as F
from torchvision.transforms import RandomResizedCrop

from ralr_tune.errors import UsageError
from ralr_tune.kinds.classification.augment import make_augmentations
from ralr_tune.kinds.classification.crops import AREA, ASPECT, CentreCrop, RandomWindow, ResizedCrop, centre_crop
from ralr_tune.kinds.classification.inputs import Inputs, grey_values
from ralr_tune.kinds.classification.options import ClassificationOptions
from ralr_tune.kinds.classification.samples import Source, all_samples
from ralr_tune.kinds.classification.task import ClassificationTask
from ralr_tune.models.registry import build
from ralr_tune.training.fusion import FusedTrainer
from ralr_tune.training.start import start
from tests.training.trials import configuration, run

FILL = torch.zeros(3, 1, 1, dtype=torch.uint8)


def boxes(height: int, width: int, count: int, seed: int = 0) -> Tensor:
    return ResizedCrop(8, 8, FILL, (height, width)).draw(count, Generator().manual_seed(seed))


# ---------------------------------------------------------------- boxes and windows


@pytest.mark.parametrize(("height", "width"), [(40, 40), (30, 50), (5, 5), (1, 9)])
def test_boxes_are_inside_the_image(height: int, width: int) -> None:
    top, left, high, wide = boxes(height, width, 2000).unbind(1)
    assert min(top.min(), left.min()) >= 0
    assert min(high.min(), wide.min()) >= 1
    assert bool((top + high <= height).all())
    assert bool((left + wide <= width).all())


def test_areas_aspects_and_places_have_torchvisions_distribution() -> None:
    ours = boxes(64, 64, 4000).double()
    torch.manual_seed(0)
    picture = torch.empty(3, 64, 64)
    theirs = torch.tensor([RandomResizedCrop.get_params(picture, AREA, ASPECT) for _ in range(4000)]).double()
    for mine, other in zip(_traits(ours), _traits(theirs), strict=True):
        for share in (0.1, 0.5, 0.9):
            assert mine.quantile(share) == pytest.approx(other.quantile(share).item(), rel=0.1, abs=0.03)


def _traits(drawn: Tensor) -> list[Tensor]:
    top, left, high, wide = drawn.unbind(1)
    return [high * wide / 64**2, (wide / high).log(), (top + high / 2) / 64, (left + wide / 2) / 64]


@pytest.mark.parametrize("size", [(24, 16), (60, 70)])
def test_a_batch_is_resized_like_each_of_its_images(size: tuple[int, int]) -> None:
    images = torch.rand(32, 3, 40, 50, generator=Generator().manual_seed(1))
    drawn = boxes(40, 50, 32)
    resized = ResizedCrop(*size, FILL, (40, 50)).apply(images, drawn)
    for image, (top, left, high, wide), found in zip(images, drawn.tolist(), resized, strict=True):
        crop = image[None, :, top : top + high, left : left + wide]
        expected = F.interpolate(crop, size, mode="bilinear", antialias=True, align_corners=False)
        torch.testing.assert_close(found[None], expected, rtol=0, atol=1e-5)


def test_grey_values_stay_bytes_and_a_whole_image_stays_the_same() -> None:
    images = torch.randint(0, 256, (4, 3, 9, 9), dtype=torch.uint8, generator=Generator().manual_seed(2))
    assert torch.equal(ResizedCrop(9, 9, FILL).apply(images, torch.tensor([[0, 0, 9, 9]] * 4)), images)


def test_a_window_is_a_part_of_the_image() -> None:
    images = torch.arange(5 * 20 * 30).view(5, 1, 20, 30)
    windows = RandomWindow(12, 12, FILL, (20, 30))
    drawn = windows.draw(2000, Generator().manual_seed(0))
    assert [drawn[:, place].unique().tolist() for place in (0, 1)] == [list(range(9)), list(range(19))]
    for image, (top, left), found in zip(images, drawn[:5].tolist(), windows.apply(images, drawn[:5]), strict=True):
        assert torch.equal(found, image[:, top : top + 12, left : left + 12])


def test_the_centre_is_cut_without_a_draw() -> None:
    images = torch.arange(2 * 9 * 8).view(2, 1, 9, 8)
    cut = CentreCrop(4, 4, FILL, (9, 8))
    assert torch.equal(cut.apply(images, cut.draw(2, Generator())), images[:, :, 2:6, 2:6])
    assert torch.equal(centre_crop(images, 9, 8), images)


# ---------------------------------------------------------------- which crop, and where


@pytest.mark.parametrize(
    ("augment", "train_size", "steps"),
    [
        (("flip", "crop"), None, ["Flip", "Crop"]),
        (("flip", "resized_crop"), None, ["Flip", "ResizedCrop"]),
        (("flip",), 16, ["CentreCrop", "Flip"]),
        (("flip", "crop"), 16, ["RandomWindow", "Flip"]),
        (("flip", "crop", "resized_crop"), 16, ["ResizedCrop", "Flip", "Crop"]),
        (("crop",), 24, ["Crop"]),
    ],
)
def test_the_crop_to_another_size_comes_first(
    augment: tuple[str, ...], train_size: int | None, steps: list[str]
) -> None:
    options = ClassificationOptions(augment=augment)
    made = make_augmentations(options, height=24, width=24, fill=FILL, train_size=train_size)
    assert [type(each).__name__ for each in made] == steps
    assert {(each.height, each.width) for each in made} == {(train_size or 24,) * 2}


# ---------------------------------------------------------------- the task


def _images() -> Source:
    images = np.random.default_rng(0).integers(0, 255, (60, 3, 24, 24), dtype=np.uint8)
    samples = all_samples(np.arange(60) % 3, lambda rows: images[rows])
    return Source(("a", "b", "c"), train=samples, test=lambda: samples)


def _task(**inputs: Any) -> ClassificationTask:
    def network(classes: int, channels: int, size: int) -> Any:
        return build("small_cnn", classes=classes, channels=channels, size=size, options={"width": 4})

    return ClassificationTask(
        _images(), build=network, validation=0.2, seed=0, device="cpu", identity="crops", inputs=Inputs(**inputs)
    )


def test_the_network_sees_other_sizes_in_training_and_evaluation() -> None:
    task, seen = _task(train_size=16, test_size=20), []
    model = task.build_model(0)
    model.register_forward_pre_hook(lambda module, given: seen.append(tuple(given[0].shape[1:])))
    assert task.input_shape == (3, 16, 16)
    for augment in ((), ("resized_crop", "flip"), ("crop", "cutout"), ("flip", "mixup")):
        options = ClassificationOptions(augment=augment)
        batch = next(task.batches("train", seed=0, epoch=0, batch_size=8, options=options))
        assert batch.images.shape == (8, 3, 16, 16)
    task.evaluate(model, "validation")
    assert set(seen) == {(3, 20, 20)}


def test_trials_at_a_size_train_alone_and_in_slots() -> None:
    task, given = _task(train_size=16, test_size=20), {"epochs": 1, "augment": ("resized_crop", "flip")}
    alone, together = ([start(task, configuration(lr=lr, **given), seed=0) for lr in (0.1, 0.05)] for _ in range(2))
    FusedTrainer(task, 2).train(together)
    assert all(trial.trained_ahead for trial in together)
    for one, other in zip(alone, together, strict=True):
        assert run(one).curve[0].train_loss == pytest.approx(run(other).curve[0].train_loss, rel=1e-4)


@pytest.mark.parametrize("key", ["train_size", "test_size"])
def test_a_size_larger_than_the_images_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match=rf"task.{key} = 25: larger than the images, 24x24 pixels; allowed: at most 2"):
        _task(**{key: 25})


def test_images_are_normalised_for_pretrained_weights() -> None:
    task = _task(normalisation=((0.5, 0.25, 0.0), (0.5, 0.5, 1.0)))
    plain = next(_task().batches("train", seed=0, epoch=0, batch_size=8)).images
    other = next(task.batches("train", seed=0, epoch=0, batch_size=8)).images
    mean, std = grey_values(((0.5, 0.25, 0.0), (0.5, 0.5, 1.0)), 3, "cpu")
    pixels = plain * task._data_std + task._data_mean
    torch.testing.assert_close(other, (pixels - mean) / std, rtol=1e-4, atol=1e-4)


def test_grey_images_get_the_mean_over_the_channels() -> None:
    mean, std = grey_values(((0.2, 0.4, 0.6), (0.1, 0.2, 0.3)), 1, "cpu")
    assert (mean.item(), std.item()) == pytest.approx((0.4 * 255, 0.2 * 255))
