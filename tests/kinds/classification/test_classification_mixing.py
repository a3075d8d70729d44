"""mixup and cutmix: every sample has its own partner, coefficient and box, and its labels match the image."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

from ralr_tune.kinds.classification.beta import beta_quantile
from ralr_tune.kinds.classification.mixing import CUTMIX_SHARE, Mixing

HEIGHT, WIDTH, CLASSES = 16, 12, 5
WAYS = [("mixup",), ("cutmix",), ("mixup", "cutmix")]


def mixing(*names: str) -> Mixing:
    return Mixing(names, HEIGHT, WIDTH, CLASSES)


def draws(names: tuple[str, ...], count: int, seed: int = 0) -> Tensor:
    return mixing(*names).draw(count, torch.Generator().manual_seed(seed))


def batch(count: int) -> tuple[Tensor, Tensor]:
    """Image n shows the number n everywhere; its label is n modulo CLASSES."""
    numbers = torch.arange(count)
    return numbers.float()[:, None, None, None].expand(count, 3, HEIGHT, WIDTH), numbers % CLASSES


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def boxes(drawn: Tensor) -> Tensor:
    """(N, H, W) bool: whether the partner shows, pixel by pixel."""
    found = torch.zeros(len(drawn), HEIGHT, WIDTH, dtype=torch.bool)
    for box, (top, left, bottom, right, _) in zip(found, drawn.int().tolist(), strict=True):
        box[top:bottom, left:right] = True
    return found


@pytest.mark.parametrize("names", WAYS, ids="+".join)
@pytest.mark.parametrize("count", [1, 2, 50])
def test_shapes_and_kinds(names: tuple[str, ...], count: int) -> None:
    drawn = draws(names, count)
    assert (drawn.shape, drawn.dtype, drawn.device.type) == ((count, 5), torch.float32, "cpu")
    images, labels = batch(count)
    mixed, shares = mixing(*names).apply(images, labels, drawn)
    assert (mixed.shape, mixed.dtype) == (images.shape, torch.float32)
    assert (shares.shape, shares.dtype) == ((count, CLASSES), torch.float32)


@pytest.mark.parametrize("names", WAYS, ids="+".join)
def test_label_shares_sum_to_one_and_belong_to_the_pair(names: tuple[str, ...]) -> None:
    images, labels = batch(500)
    _, shares = mixing(*names).apply(images, labels, draws(names, 500))
    assert shares.min() >= 0
    torch.testing.assert_close(shares.sum(1), torch.ones(500))
    pair = torch.nn.functional.one_hot(labels, CLASSES) + torch.nn.functional.one_hot(labels.roll(1), CLASSES)
    assert not shares[pair == 0].any()


@pytest.mark.parametrize("names", WAYS, ids="+".join)
def test_labels_match_the_image_content(names: tuple[str, ...]) -> None:
    """Each image is one number here, so that its mean over pixels must equal the label shares."""
    images, labels = batch(500)
    mixed, shares = mixing(*names).apply(images, labels, draws(names, 500))
    numbers, partners = images[:, 0, 0, 0], images.roll(1, 0)[:, 0, 0, 0]
    own = shares[torch.arange(500), labels]  # the partner has another label
    expected = own * numbers + (1 - own) * partners
    torch.testing.assert_close(mixed.mean((1, 2, 3)), expected, rtol=1e-4, atol=1e-3)


def test_cutmix_label_share_is_the_box_area() -> None:
    images, labels = batch(500)
    drawn = draws(("cutmix",), 500)
    mixed, shares = mixing("cutmix").apply(images, labels, drawn)
    box = boxes(drawn)
    own = shares[torch.arange(500), labels]
    torch.testing.assert_close(own, 1 - box.float().mean((1, 2)))
    expected = torch.where(box[:, None], images.roll(1, 0), images)
    assert torch.equal(mixed, expected)  # not blended anywhere


def test_cutmix_boxes_have_the_drawn_area_and_any_position() -> None:
    """Boxes completely inside have the area of a uniform coefficient; edges cut others off."""
    drawn = draws(("cutmix",), 20_000)
    top, left, bottom, right, own = drawn.unbind(1)
    assert (own == 1).all()
    assert drawn[:, :4].min() >= 0
    assert bottom.max() <= HEIGHT
    assert right.max() <= WIDTH
    cut = (bottom > top) & (right > left)
    assert cut.float().mean().item() == pytest.approx(CUTMIX_SHARE, abs=0.02)
    share_of_rows = boxes(drawn[cut]).any(2).float().mean(0)
    assert share_of_rows.min() > 0.3  # every row is reached, the middle most
    assert share_of_rows.argmax().item() in range(5, 11)
    inside = cut & (top > 0) & (left > 0) & (bottom < HEIGHT) & (right < WIDTH)
    shape = (bottom - top) / HEIGHT - (right - left) / WIDTH
    assert shape[inside].abs().max() < 1 / WIDTH  # the image's own shape, rounded down to whole pixels


def test_mixup_s_coefficient_is_uniform() -> None:
    drawn = draws(("mixup",), 20_000)
    assert not boxes(drawn).any()
    own = drawn[:, 4].sort().values
    assert (own - torch.linspace(0, 1, 20_000)).abs().max() < 0.015  # Kolmogorov-Smirnov, beyond 1 in 10,000


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_alpha_shapes_the_coefficient_of_mixup(alpha: float) -> None:
    own = Mixing(("mixup",), HEIGHT, WIDTH, CLASSES, mixup_alpha=alpha).draw(20_000, generator())[:, 4]
    distance = stats.kstest(own.double().numpy(), stats.beta(alpha, alpha).cdf).statistic
    assert distance < 0.0156 + (alpha < 1) * 0.02  # 1 in 10,000; float32 rounds shares next to 1 to 1


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_alpha_shapes_the_boxes_of_cutmix(alpha: float) -> None:
    top, _, bottom, _, _ = Mixing(("cutmix",), 512, 512, CLASSES, cutmix_alpha=alpha).draw(5000, generator()).unbind(1)
    whole = (top > 0) & (bottom < 512) & (bottom > top)  # no edge cuts them off
    own = beta_quantile(torch.rand(5000, generator=generator()), alpha)  # the first number of each sample
    assert torch.equal((bottom - top)[whole], (512 * (1 - own[whole]).sqrt()).floor())
    assert whole.sum() > 300


def test_a_larger_alpha_mixes_the_same_samples_more_evenly() -> None:
    shares = torch.rand(100, generator=torch.Generator().manual_seed(0))
    even, uneven = beta_quantile(shares, 4.0), beta_quantile(shares, 0.2)
    assert (even - 0.5).abs().le((uneven - 0.5).abs() + 1e-6).all()
    assert torch.equal(beta_quantile(shares, 1.0), shares)


def test_mixup_mixes_a_pair() -> None:
    images, labels = batch(4)
    drawn = torch.tensor([[0, 0, 0, 0, k] for k in (1.0, 0.25, 0.5, 0.0)])
    mixed, shares = mixing("mixup").apply(images, labels, drawn)
    assert mixed[:, 0, 0, 0].tolist() == [0.0, 0.25, 1.5, 2.0]
    assert shares.tolist() == [
        [1.0, 0.0, 0.0, 0.0, 0.0],
        [0.75, 0.25, 0.0, 0.0, 0.0],
        [0.0, 0.5, 0.5, 0.0, 0.0],
        [0.0, 0.0, 1.0, 0.0, 0.0],
    ]


def test_with_both_each_sample_gets_one() -> None:
    drawn = draws(("mixup", "cutmix"), 20_000)
    blended = drawn[:, 4] < 1
    assert not boxes(drawn[blended]).any()
    assert blended.float().mean().item() == pytest.approx(1 - CUTMIX_SHARE, abs=0.02)
    assert torch.equal(draws(("cutmix", "mixup"), 50), draws(("mixup", "cutmix"), 50))  # their order does not matter


@pytest.mark.parametrize("names", WAYS, ids="+".join)
def test_every_sample_has_its_own_draws(names: tuple[str, ...]) -> None:
    drawn = draws(names, 64)
    assert len(set(map(tuple, drawn.tolist()))) > 25
    correlated = torch.corrcoef(torch.stack([drawn[:-1].sum(1), drawn[1:].sum(1)]))[0, 1]
    assert abs(correlated.item()) < 0.4  # neighbours are independent; 0.4 is beyond 3 sd


@pytest.mark.parametrize("names", WAYS, ids="+".join)
def test_draws_depend_only_on_the_generator(names: tuple[str, ...]) -> None:
    torch.manual_seed(1)
    first = draws(names, 50)
    state = torch.get_rng_state()
    assert torch.equal(draws(names, 50), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(draws(names, 50, seed=1), first)


@pytest.mark.parametrize("names", WAYS, ids="+".join)
def test_unmixed_samples_are_unchanged(names: tuple[str, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(200, 3, HEIGHT, WIDTH, generator=generator)
    drawn = draws(names, 200)
    drawn[::2] = torch.tensor([0, 0, 0, 0, 1.0])
    mixed, shares = mixing(*names).apply(images, torch.arange(200) % CLASSES, drawn)
    assert torch.equal(mixed[::2], images[::2])
    assert shares[::2].amax(1).eq(1).all()


def test_a_single_sample_is_its_own_partner() -> None:
    images, labels = batch(1)
    mixed, shares = mixing("mixup", "cutmix").apply(images, labels, draws(("mixup",), 1))
    assert torch.equal(mixed, images)
    assert shares.tolist() == [[1.0, 0.0, 0.0, 0.0, 0.0]]
