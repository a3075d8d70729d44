from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ralr_tune.errors import DataError, UsageError
from ralr_tune.kinds.classification.mixing import Mixing
from ralr_tune.kinds.classification.options import ClassificationOptions as Options
from ralr_tune.kinds.classification.samples import Samples, Source, all_samples
from ralr_tune.kinds.classification.task import ClassificationTask, ImageBatch
from ralr_tune.models.registry import build
from ralr_tune.seeds import derive_seed
from ralr_tune.tasks.base import Split

TRAIN, TEST = 50, 12


def samples(count: int, *, seed: int = 0, shape: tuple[int, int, int] = (3, 8, 6)) -> Samples:
    """Noise that is brighter for later samples; labels 0, 1, 2, 0, 1, ..."""
    noise = np.random.default_rng(seed).integers(0, 100, (count, *shape))
    images = (noise + np.linspace(0, 150, count)[:, None, None, None]).astype(np.uint8)
    return all_samples(np.arange(count) % 3, lambda rows: images[rows])


def no_test() -> Samples:
    raise AssertionError("the test data were read")


def source(**changes: Any) -> Source:
    parts: dict[str, Any] = {"train": samples(TRAIN), "test": no_test}
    return Source(classes=("a", "b", "c"), **(parts | changes))


def small(classes: int, channels: int, size: int) -> nn.Module:
    return build("small_cnn", classes=classes, channels=channels, size=size, options={"width": 4})


def task(
    source: Source, *, seed: int = 0, validation: float = 0.2, build: Callable[[int, int, int], nn.Module] = small
) -> ClassificationTask:
    return ClassificationTask(source, build=build, validation=validation, seed=seed, device="cpu", identity="toy")


def images_of(task: ClassificationTask, split: Split, **options: Any) -> Tensor:
    given = {"seed": 0, "epoch": 0, "batch_size": 7} | options
    return torch.cat([batch.images for batch in task.batches(split, **given)])


def as_set(images: Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_splits_partition_the_training_data() -> None:
    toy = task(source())
    train, validation, both, probe = (
        as_set(images_of(toy, split)) for split in ("train", "validation", "train+validation", "probe")
    )
    assert (len(train), len(validation), len(both), len(probe)) == (40, 10, 50, 10)
    assert train.isdisjoint(validation)
    assert train | validation == both
    assert probe < train


def test_validation_is_stratified_and_depends_on_the_study_seed() -> None:
    def labels_and_images(seed: int) -> tuple[list[int], set[bytes]]:
        batches = list(task(source(), seed=seed).batches("validation", seed=0, epoch=0, batch_size=99))
        return torch.bincount(batches[0].labels).tolist(), as_set(batches[0].images)

    counts, images = labels_and_images(seed=1)
    assert sorted(counts) == [3, 3, 4]
    assert labels_and_images(seed=1)[1] == images
    assert labels_and_images(seed=2)[1] != images


def test_own_validation_data_are_used_instead() -> None:
    toy = task(source(validation=samples(9, seed=1)), validation=0.5)
    assert [toy.size(split) for split in ("train", "validation", "train+validation", "probe")] == [50, 9, 59, 9]
    assert as_set(images_of(toy, "train")).isdisjoint(as_set(images_of(toy, "validation")))


def test_normalisation_uses_only_the_train_split() -> None:
    toy = task(source(validation=samples(9, seed=1), test=lambda: samples(TEST, seed=2)))
    train = images_of(toy, "train")
    assert train.mean((0, 2, 3)).numpy() == pytest.approx(np.zeros(3), abs=1e-5)
    assert train.std((0, 2, 3), correction=0).numpy() == pytest.approx(np.ones(3), abs=1e-5)
    raw = torch.from_numpy(samples(TRAIN).load()).float()
    mean, std = raw.mean((0, 2, 3), keepdim=True), raw.std((0, 2, 3), correction=0, keepdim=True)
    expected = (torch.from_numpy(samples(TEST, seed=2).load()) - mean) / std
    seen = images_of(toy, "test")
    order = seen.sum((1, 2, 3)).argsort()
    assert torch.allclose(seen[order], expected[expected.sum((1, 2, 3)).argsort()], atol=1e-5)


def test_a_channel_without_contrast_stays_finite() -> None:
    flat = np.full((30, 1, 8, 8), 9, dtype=np.uint8)
    toy = task(source(train=all_samples(np.arange(30) % 3, lambda rows: flat[rows])))
    assert not images_of(toy, "train").any()


def test_test_data_are_read_once_on_first_request() -> None:
    calls: list[int] = []

    def read() -> Samples:
        calls.append(1)
        return samples(TEST, seed=2)

    toy = task(source(test=read))
    model = toy.build_model(0)
    toy.evaluate(model, "validation")
    assert calls == []
    toy.evaluate(model, "test")
    toy.evaluate(model, "test")
    assert calls == [1]


@pytest.mark.parametrize("batch_size", [1, 3, 13, 39, 40, 99])
def test_batches_contain_every_sample_once(batch_size: int) -> None:
    toy = task(source())
    batches = list(toy.batches("train", seed=0, epoch=0, batch_size=batch_size))
    assert len(batches) == toy.steps("train", batch_size)
    assert as_set(torch.cat([batch.images for batch in batches])) == as_set(images_of(toy, "train"))
    assert sum(len(batch) for batch in batches) == 40


@pytest.mark.parametrize(("batch_size", "sizes"), [(13, [13, 13, 14]), (39, [40]), (15, [15, 15, 10]), (1, [1] * 40)])
def test_a_last_batch_of_one_joins_the_previous_one(batch_size: int, sizes: list[int]) -> None:
    batches = task(source()).batches("train", seed=0, epoch=0, batch_size=batch_size)
    assert [len(batch) for batch in batches] == sizes


def test_order_and_draws_depend_on_seed_and_epoch() -> None:
    toy = task(source())

    def seen(seed: int, epoch: int) -> Tensor:
        return images_of(toy, "train", seed=seed, epoch=epoch, options=Options(("crop", "flip", "cutout")))

    first = seen(1, 0)
    torch.manual_seed(99)
    torch.rand(5)  # other draws do not matter
    assert torch.equal(seen(1, 0), first)
    for other in (seen(1, 1), seen(2, 0), seen(0, 1)):
        assert not torch.equal(other, first)
    orders = [images_of(toy, "train", seed=1, epoch=epoch)[:, 0, 0, 0] for epoch in range(3)]
    assert not any(torch.equal(one, other) for one, other in pairwise(orders))


def test_every_epoch_has_its_own_draws() -> None:
    toy = task(source())
    plain = as_set(images_of(toy, "train"))

    def flipped(epoch: int) -> list[bool]:
        images = images_of(toy, "train", epoch=epoch, options=Options(("flip",)))
        return [image.numpy().tobytes() not in plain for image in images]

    assert flipped(0) == flipped(0) != flipped(1)
    assert 8 < sum(flipped(0)) < 32


def test_draws_do_not_depend_on_the_batch_size() -> None:
    toy = task(source())
    small, large = (images_of(toy, "train", batch_size=size, options=Options(("crop", "flip"))) for size in (4, 40))
    assert torch.equal(small, large)


MIXED = ("mixup", "crop", "cutmix")


def mixed_and_plain(**options: Any) -> tuple[list[ImageBatch], list[ImageBatch]]:
    given: dict[str, Any] = {"seed": 3, "epoch": 2, "batch_size": 13} | options
    mixed, plain = (
        list(task(source()).batches("train", **given, options=Options(names))) for names in (MIXED, ("crop",))
    )
    return mixed, plain


def test_mixing_is_applied_to_augmented_images() -> None:
    """Mixing comes last, whatever its place in the list; its draws follow those of the single images."""
    generator = torch.Generator().manual_seed(derive_seed("augment", 3, 2))
    torch.randint(0, 3, (40, 2), generator=generator)  # crop's
    mixing = Mixing(("mixup", "cutmix"), 8, 6, classes=3)
    draws = mixing.draw(40, generator)
    first = 0
    for mixed, plain in zip(*mixed_and_plain(), strict=True):
        images, labels = mixing.apply(plain.images, plain.labels, draws[first : first + len(plain)])
        first += len(plain)
        assert torch.equal(mixed.images, images)
        assert torch.equal(mixed.labels, labels)
        assert mixed.labels.shape == (len(plain), 3)
    assert first == 40


def test_partners_come_from_the_whole_batch() -> None:
    """A batch that is split for lack of memory is mixed like a whole one."""
    whole = mixed_and_plain(batch_size=40)[0][0]
    parts = whole.split(7)
    assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
    assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)


def test_the_loss_of_mixed_labels_is_the_mixture_of_losses() -> None:
    toy = task(source())
    (mixed,), (plain,) = mixed_and_plain(batch_size=40)
    model = Fixed(confidence=2.0).eval()
    log = torch.tensor([0.0, 2.0, 0.0]).log_softmax(0)
    own = mixed.labels[torch.arange(40), plain.labels]
    partner = plain.labels.roll(1)
    same = partner == plain.labels
    expected = -torch.where(same, log[plain.labels], own * log[plain.labels] + (1 - own) * log[partner]).mean()
    assert toy.loss(model, mixed).item() == pytest.approx(expected.item(), rel=1e-5)
    smooth = 0.9 * expected - 0.1 * log.mean()
    assert toy.loss(model, mixed, options=Options(label_smoothing=0.1)).item() == pytest.approx(smooth.item(), rel=1e-5)


def test_mixing_does_not_change_other_draws_or_evaluation() -> None:
    toy = task(source())
    cropped = [
        batch.labels for batch in toy.batches("train", seed=3, epoch=2, batch_size=13, options=Options(("crop",)))
    ]
    assert all(torch.equal(one, other.labels) for one, other in zip(cropped, mixed_and_plain()[1], strict=True))
    assert all(batch.labels.dtype == torch.int64 for batch in toy.batches("probe", seed=0, epoch=0, batch_size=4))
    assert toy.evaluate(Fixed(), "validation") == task(source()).evaluate(Fixed(), "validation")


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 13])
def test_a_batch_splits_into_the_same_samples(parts: int) -> None:
    """In the same order and with the same augmentation: splitting draws nothing."""
    whole = next(
        iter(task(source()).batches("train", seed=0, epoch=0, batch_size=13, options=Options(("crop", "flip"))))
    )
    state = torch.get_rng_state()
    split = whole.split(parts)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(split) == parts
    assert torch.equal(torch.cat([part.images for part in split]), whole.images)
    assert torch.equal(torch.cat([part.labels for part in split]), whole.labels)
    lengths = [len(part) for part in split]
    assert max(lengths) - min(lengths) <= 1


def test_cutout_shows_the_mean_colour() -> None:
    image = images_of(task(source()), "train", options=Options(("cutout",)))[0]
    hole = image[0].flatten().mode().values
    assert abs(hole.item()) < 0.02  # the mean, rounded to a grey value


def test_the_signature_of_a_batch_covers_all_its_tensors() -> None:
    """Mixed labels are shares: a batch of the same size with plain labels has another signature."""
    batches = task(source()).batches
    whole, short = (next(iter(batches("train", seed=0, epoch=0, batch_size=size))) for size in (8, 4))
    mixed = next(iter(batches("train", seed=0, epoch=0, batch_size=8, options=Options(("mixup",)))))
    again = next(iter(batches("train", seed=5, epoch=3, batch_size=8)))
    assert whole.signature == again.signature
    assert len({whole.signature, short.signature, mixed.signature}) == 3
    assert (whole.weight, short.weight, mixed.weight) == (8, 4, 8)


def test_unknown_augmentations_are_reported() -> None:
    with pytest.raises(UsageError, match="'mix' is unknown"):
        task(source()).batches("train", seed=0, epoch=0, batch_size=4, options=Options(("mix",)))


def test_models_depend_on_their_seed_and_keep_the_global_generator() -> None:
    toy = task(source())
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, again, other = (toy.build_model(seed).state_dict()["head.1.weight"] for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


class Fixed(nn.Module):
    """Answers class 1 for everything, with this confidence."""

    def __init__(self, confidence: float = 1.0) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.0, confidence, 0.0]))

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        return self.logits.expand(len(images), 3)


def test_accuracy_is_the_share_of_right_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = task(source(test=lambda: samples(TEST + 1)))
    assert toy.evaluate(Fixed(), "test") == 4 / 13
    assert toy.evaluation_batch == 2**19 // 48
    monkeypatch.setattr("ralr_tune.kinds.classification.task.EVALUATION_PIXELS", {"cpu": 0})
    monkeypatch.setattr("ralr_tune.kinds.classification.task.MIN_EVALUATION_BATCH", 3)
    assert toy.evaluation_batch == 3
    assert toy.evaluate(Fixed(), "test") == 4 / 13


def test_one_evaluation_measures_every_metric_that_can_differ() -> None:
    """With three classes every network has a top-5 accuracy of 1."""
    found = task(source(test=lambda: samples(TEST + 1))).measure(Fixed(), "test")
    expected = {"accuracy": 4 / 13, "balanced_accuracy": 1 / 3, "loss": found["loss"]}
    assert found == pytest.approx(expected)
    assert found["loss"] == pytest.approx(math.log(2 + math.e) - 4 / 13)


@pytest.mark.parametrize("batch_size", [1, 4, 5, 13, 99])
def test_evaluation_uses_the_given_batch_size(batch_size: int) -> None:
    sizes: list[int] = []

    class Watched(Fixed):
        def forward(self, images: Tensor) -> Tensor:
            sizes.append(len(images))
            return super().forward(images)

    toy = task(source(test=lambda: samples(TEST + 1)))
    assert toy.evaluate(Watched(), "test", batch_size=batch_size) == 4 / 13
    assert sum(sizes) == 13
    assert max(sizes) == min(batch_size, 13)


@pytest.mark.parametrize("confidence", [math.nan, math.inf])
def test_outputs_that_are_not_finite_give_nan(confidence: float) -> None:
    assert math.isnan(task(source()).evaluate(Fixed(confidence), "validation"))


def test_loss_is_cross_entropy_with_smoothing() -> None:
    toy = task(source())
    batch = next(iter(toy.batches("train", seed=0, epoch=0, batch_size=40)))
    model = Fixed(confidence=2.0).eval()
    log = torch.tensor([0.0, 2.0, 0.0]).log_softmax(0)
    plain = -log[batch.labels].mean()
    assert toy.loss(model, batch).item() == pytest.approx(plain.item())
    smooth = 0.9 * plain - 0.1 * log.mean()
    assert toy.loss(model, batch, options=Options(label_smoothing=0.1)).item() == pytest.approx(smooth.item())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Flatten(), r"returns \(1, 144\) for one image; must be \(1, 3\)"),
        (nn.Linear(5, 3), r"cannot process images of shape \(3, 8, 6\) \(C, H, W\): .*mat1 and mat2"),
    ],
)
def test_models_that_do_not_fit_are_reported(model: nn.Module, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        task(source(), build=lambda *shape: model).build_model(0)


@pytest.mark.parametrize(
    ("changes", "validation", "message"),
    [
        ({}, 0.001, "task.validation = 0.001: none of 50 images"),
        ({}, 0.99, "task.validation = 0.99: 50 of 50 samples cannot be set aside"),
        ({"validation": samples(0)}, 0.2, "the validation split has no images"),
        (
            {"validation": samples(9, shape=(3, 4, 4))},
            0.2,
            r"validation images have shape \(3, 4, 4\), training images",
        ),
    ],
)
def test_impossible_splits_are_reported(changes: dict[str, Any], validation: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        task(source(**changes), validation=validation)


def test_test_images_of_another_shape_are_reported() -> None:
    toy = task(source(test=lambda: samples(TEST, shape=(1, 8, 6))))
    with pytest.raises(DataError, match=r"test images have shape \(1, 8, 6\)"):
        toy.size("test")
