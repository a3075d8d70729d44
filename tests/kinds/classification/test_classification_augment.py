from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ralr_tune.errors import UsageError
from ralr_tune.kinds.classification import section
from ralr_tune.kinds.classification.augment import AUGMENTATIONS, Augmentation, make_augmentations

HEIGHT, WIDTH = 16, 12


def augmentation(name: str) -> Augmentation:
    fill = torch.tensor([10, 20, 30], dtype=torch.uint8)[:, None, None]
    return make_augmentations([name], height=HEIGHT, width=WIDTH, fill=fill)[0]


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
    crop = make_augmentations(["crop"], height=height, width=height, fill=torch.zeros(1, 1, 1))[0]
    drawn = crop.draw(4000, torch.Generator().manual_seed(0))
    assert drawn.max().item() == 2 * padding


def test_augmentations_are_applied_in_the_given_order() -> None:
    made = make_augmentations(["flip", "mixup", "crop"], height=8, width=8, fill=torch.zeros(1, 1, 1))
    assert [type(augmentation) for augmentation in made] == [AUGMENTATIONS["flip"], AUGMENTATIONS["crop"]]


def test_the_study_file_lists_all_augmentations() -> None:
    assert (*AUGMENTATIONS, *section.MIXINGS) == section.AUGMENTATIONS


def test_unknown_names_are_reported() -> None:
    with pytest.raises(
        UsageError, match=r"training.augment: 'mix' is unknown; allowed: crop, flip, cutout, mixup, cutmix"
    ):
        make_augmentations(["crop", "mix"], height=8, width=8, fill=torch.zeros(1, 1, 1))
