from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from ralr_tune.errors import UsageError
from ralr_tune.kinds.classification import section
from ralr_tune.kinds.classification.augment import AUGMENTATIONS, make_augmentations
from ralr_tune.kinds.classification.batching import draw_epoch
from ralr_tune.kinds.classification.erasing import RandomErasing, pixel_noise
from ralr_tune.kinds.classification.mixing import Mixing
from ralr_tune.kinds.classification.operations import MAGNITUDES, OPERATIONS, PLAIN, UNSIGNED, _Operations
from ralr_tune.kinds.classification.options import ClassificationOptions
from ralr_tune.kinds.classification.transform import Augmentation

HEIGHT, WIDTH = 16, 12


def augmentation(name: str, **parameters: Any) -> Augmentation:
    fill = torch.tensor([10, 20, 30], dtype=torch.uint8)[:, None, None]
    options = ClassificationOptions(augment=(name,), **parameters)
    return make_augmentations(options, height=HEIGHT, width=WIDTH, fill=fill)[0]


def images(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8)


def draws(name: str, count: int, seed: int = 0) -> Tensor:
    return augmentation(name).draw(count, torch.Generator().manual_seed(seed))


def crop_one(image: Tensor, draw: Tensor) -> Tensor:
    padded = torch.zeros(3, HEIGHT + 4, WIDTH + 4, dtype=torch.uint8)  # 2 on each side: an eighth of 16
    padded[:, 2:-2, 2:-2] = image
    top, left = draw.tolist()
    return padded[:, top : top + HEIGHT, left : left + WIDTH]


def flip_one(image: Tensor, draw: Tensor) -> Tensor:
    return image.flip(-1) if draw.item() else image


def cutout_one(image: Tensor, draw: Tensor) -> Tensor:
    row, column = draw.tolist()
    cut = image.clone()
    for channel, colour in enumerate((10, 20, 30)):
        cut[channel, max(0, row - 4) : row + 4, max(0, column - 4) : column + 4] = colour
    return cut


@pytest.mark.parametrize(("name", "one"), [("crop", crop_one), ("flip", flip_one), ("cutout", cutout_one)])
def test_every_sample_gets_its_own_draw(name: str, one: object) -> None:
    assert callable(one)
    batch, drawn = images(40), draws(name, 40)
    seen = augmentation(name).apply(batch, drawn)
    assert torch.equal(seen, torch.stack([one(image, draw) for image, draw in zip(batch, drawn, strict=True)]))
    assert len(set(map(tuple, drawn.tolist()))) > 1


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_draws_follow_the_generator(name: str) -> None:
    assert torch.equal(draws(name, 50), draws(name, 50))
    assert not torch.equal(draws(name, 50), draws(name, 50, seed=1))


def test_draws_are_uniform_over_all_offsets() -> None:
    moves = draws("crop", 5000)
    assert [len(set(column.tolist())) for column in moves.unbind(1)] == [5, 5]
    assert torch.bincount(moves[:, 0]).min() > 850  # of 1,000 expected, sd 28
    assert draws("flip", 5000).float().mean().item() == pytest.approx(0.5, abs=0.03)
    centres = draws("cutout", 5000)
    assert centres.amax(0).tolist() == [HEIGHT - 1, WIDTH - 1]
    assert centres.amin(0).tolist() == [0, 0]


@pytest.mark.parametrize(("height", "padding"), [(4, 1), (8, 1), (28, 4), (32, 4), (224, 28)])
def test_crop_pads_by_an_eighth(height: int, padding: int) -> None:
    crop = make_augmentations(
        ClassificationOptions(augment=("crop",)), height=height, width=height, fill=torch.zeros(1, 1, 1)
    )[0]
    drawn = crop.draw(4000, torch.Generator().manual_seed(0))
    assert drawn.max().item() == 2 * padding


def test_augmentations_are_applied_in_the_given_order() -> None:
    options = ClassificationOptions(augment=("flip", "mixup", "crop"))
    made = make_augmentations(options, height=8, width=8, fill=torch.zeros(1, 1, 1))
    assert [type(augmentation) for augmentation in made] == [AUGMENTATIONS["flip"], AUGMENTATIONS["crop"]]


def test_the_study_file_lists_all_augmentations() -> None:
    assert (*AUGMENTATIONS, *section.MIXINGS) == section.AUGMENTATIONS


def test_unknown_names_are_reported() -> None:
    with pytest.raises(UsageError, match=r"training.augment: 'mix' is unknown; allowed: resized_crop, crop, flip, cut"):
        make_augmentations(ClassificationOptions(augment=("crop", "mix")), height=8, width=8, fill=torch.zeros(1, 1, 1))


def test_the_draws_of_earlier_releases_never_change() -> None:
    """They determine what stored checkpoints resume with."""
    options = ClassificationOptions(augment=("crop", "flip", "cutout"))
    made = make_augmentations(options, height=8, width=8, fill=torch.zeros(3, 1, 1, dtype=torch.uint8))
    order, drawn = draw_epoch(50, [*made, Mixing(["mixup", "cutmix"], 8, 8, 4)], seed=1, epoch=2)
    digests = [hashlib.sha256(each.numpy().tobytes()).hexdigest()[:16] for each in (order, *drawn)]
    assert digests[:4] == ["7b1c24ed65192017", "b217be384bedf555", "f5c29868ffe7853e", "da7cff90abccd0e6"]
    assert digests[4] == "a72309a92d6feb96"


@pytest.mark.parametrize("size", [0.25, 0.5, 1.0])
def test_the_size_of_cutout(size: float) -> None:
    cutout = augmentation("cutout", cutout_size=size)
    seen = cutout.apply(torch.full((200, 3, HEIGHT, WIDTH), 255, dtype=torch.uint8), cutout.draw(200, generator()))
    assert (seen[:, 0] == 10).sum(1).amax().item() == min(HEIGHT, round(size * HEIGHT))


def test_options_agree_with_the_study_file() -> None:
    fields = section.ClassificationTraining.model_fields
    assert ClassificationOptions(**{key: field.default for key, field in fields.items()}) == ClassificationOptions()
    parameters = {key for key in fields if section.augmentation_of(key)}
    others = {"augment", "label_smoothing", "head_factor", "freeze_trunk"}
    assert parameters == fields.keys() - others
    assert section.ClassificationTraining.added == fields.keys() - {"augment", "label_smoothing"}


# ---------------------------------------------------------------- random erasing


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
@pytest.mark.parametrize(("area", "aspect"), [(0.4, 0.3), (0.02, 1.0), (0.01, 0.5)])
def test_the_share_of_erased_images_and_their_area(probability: float, area: float, aspect: float) -> None:
    count = 20_000
    erasing = augmentation(
        "random_erasing",
        random_erasing_probability=probability,
        random_erasing_area=area,
        random_erasing_aspect=aspect,
    )
    top, left, height, width, _ = erasing.draw(count, generator()).unbind(1)
    erased = height > 0
    assert erased.float().mean().item() == pytest.approx(probability, abs=0.012)  # 3.5 sd
    assert torch.equal(erased, width > 0)
    assert (top >= 0).all()
    assert (top + height <= HEIGHT).all()
    assert (left >= 0).all()
    assert (left + width <= WIDTH).all()
    if probability:
        sides = (height * width)[erased].double() / (HEIGHT * WIDTH)
        assert sides.max() <= area + 0.06  # both sides are rounded to whole pixels


def test_the_area_and_the_aspect_ratio_of_erasing_are_as_in_the_paper() -> None:
    """On large images, whose rectangles are hardly rounded and nearly always fit."""
    fill = torch.zeros(3, 1, 1, dtype=torch.uint8)
    erasing = RandomErasing(512, 512, fill, probability=1.0, area=0.3, aspect=0.5, value="mean")
    _, _, height, width, _ = erasing.draw(20_000, generator()).double().unbind(1)
    shares = (height * width / 512**2).sort().values
    assert (shares - torch.linspace(0.02, 0.3, 20_000)).abs().max() < 0.28 * 0.015  # Kolmogorov-Smirnov
    ratios = (height / width).log().sort().values
    assert (ratios - torch.linspace(-1, 1, 20_000) * math.log(2)).abs().max() < 2 * math.log(2) * 0.015


@pytest.mark.parametrize("value", ["noise", "mean"])
def test_erasing_overwrites_its_rectangle_and_nothing_else(value: str) -> None:
    erasing = augmentation("random_erasing", random_erasing_probability=0.7, random_erasing_value=value)
    batch, drawn = images(60), erasing.draw(60, generator())
    seen = erasing.apply(batch, drawn)
    for before, after, (top, left, height, width, _) in zip(batch, seen, drawn.tolist(), strict=True):
        inside = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
        inside[top : top + height, left : left + width] = True
        assert torch.equal(after[:, ~inside], before[:, ~inside])
        if value == "mean":
            assert all((channel[inside] == colour).all() for channel, colour in zip(after, (10, 20, 30), strict=True))


def test_the_noise_of_erasing_is_uniform_and_its_own_for_each_image() -> None:
    seeds = torch.randint(0, 2**31, (200,), generator=generator())
    noise = pixel_noise(seeds, torch.Size((3, 16, 16)))
    counts = torch.bincount(noise.flatten(), minlength=256)
    assert counts.min() > 600 - 5 * 24.5  # 600 expected, sd 24.5
    assert counts.max() < 600 + 5 * 24.5
    for one, other in [(noise[:-1], noise[1:]), (noise[..., :-1], noise[..., 1:]), (noise[:, :-1], noise[:, 1:])]:
        assert (one == other).float().mean().item() == pytest.approx(1 / 256, abs=8e-4)


# ---------------------------------------------------------------- RandAugment and TrivialAugment


POLICIES = {"rand_augment": v2.RandAugment, "trivial_augment": v2.TrivialAugmentWide}
NAMES = {name: name.replace("_", "").lower() for name in OPERATIONS}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", POLICIES)
def test_operations_are_those_of_torchvision(policy: str, channels: int) -> None:
    """Every operation at every sixth magnitude with both signs; torchvision's own fill is black."""
    own = replace(augmentation(policy), fill=torch.zeros(channels, 1, 1, dtype=torch.uint8))
    assert isinstance(own, _Operations)
    theirs = POLICIES[policy]()
    space = {name.lower(): entry for name, entry in theirs._AUGMENTATION_SPACE.items()}
    assert list(space) == list(NAMES.values())
    batch = images(6)[:, :channels]
    for operation, name in enumerate(NAMES.values()):
        magnitudes, signed = space[name][0](MAGNITUDES, HEIGHT, WIDTH), space[name][1]
        for place in range(0, MAGNITUDES, 6) if magnitudes is not None else (0,):
            for sign in (0, 1) if signed else (0,):
                magnitude = 0.0 if magnitudes is None else float(magnitudes[place]) * (-1 if sign else 1)
                identifier = next(each for each in theirs._AUGMENTATION_SPACE if each.lower() == name)
                expected = theirs._apply_image_or_video_transform(batch, identifier, magnitude, "nearest", theirs._fill)
                code = (operation * MAGNITUDES + place) * 2 + sign
                assert torch.equal(own.apply(batch, torch.full((6, 1), code)), expected), (name, place, sign)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_group_of_images_is_changed_like_each_image(policy: str) -> None:
    made = augmentation(policy)
    batch, drawn = images(80), made.draw(80, generator())
    each = [made.apply(batch[n : n + 1], drawn[n : n + 1]) for n in range(80)]
    assert torch.equal(made.apply(batch, drawn), torch.cat(each))


def test_what_moves_into_an_image_has_the_mean_colour() -> None:
    made = augmentation("trivial_augment")
    code = (OPERATIONS.index("translate_x") * MAGNITUDES + 30) * 2  # 32 pixels, beyond the image
    seen = made.apply(images(2), torch.full((2, 1), code))
    assert all((seen[:, channel] == colour).all() for channel, colour in enumerate((10, 20, 30)))


def decoded(codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Operations, magnitudes and signs."""
    return codes // (2 * MAGNITUDES), codes // 2 % MAGNITUDES, codes % 2


def test_trivial_augment_draws_any_operation_magnitude_and_sign() -> None:
    operations, magnitudes, signs = decoded(augmentation("trivial_augment").draw(40_000, generator())[:, 0])
    assert torch.bincount(operations, minlength=14).sub(40_000 / 14).abs().max() < 5 * 51.5  # 2,857 expected
    plain = torch.isin(operations, torch.tensor([OPERATIONS.index(name) for name in PLAIN]))
    assert not magnitudes[plain].any()
    shares = torch.bincount(magnitudes[~plain], minlength=MAGNITUDES) / (~plain).sum()
    assert (shares - 1 / MAGNITUDES).abs().max() < 5e-3
    signed = ~torch.isin(operations, torch.tensor([OPERATIONS.index(name) for name in UNSIGNED]))
    assert not signs[~signed].any()
    assert signs[signed].float().mean().item() == pytest.approx(0.5, abs=0.015)


@pytest.mark.parametrize(("number", "magnitude"), [(1, 0), (2, 9), (3, 30)])
def test_rand_augment_draws_so_many_operations_of_one_magnitude(number: int, magnitude: int) -> None:
    made = augmentation("rand_augment", rand_augment_operations=number, rand_augment_magnitude=magnitude)
    operations, magnitudes, _ = decoded(made.draw(20_000, generator()))
    assert operations.shape == (20_000, number)
    plain = torch.isin(operations, torch.tensor([OPERATIONS.index(name) for name in PLAIN]))
    assert (magnitudes[~plain] == magnitude).all()
    assert torch.bincount(operations[:, -1], minlength=14).sub(20_000 / 14).abs().max() < 5 * 36.5
    if number > 1:  # with replacement, and independently
        assert (operations[:, 0] == operations[:, 1]).float().mean().item() == pytest.approx(1 / 14, abs=0.01)


def test_magnitude_zero_leaves_the_image_except_for_what_has_no_magnitude() -> None:
    made = augmentation("trivial_augment")
    for name in OPERATIONS:
        if name in ("auto_contrast", "equalize", "solarize"):  # solarize inverts 255 at its weakest
            continue
        seen = made.apply(images(3), torch.full((3, 1), OPERATIONS.index(name) * MAGNITUDES * 2))
        assert torch.equal(seen, images(3)), name
