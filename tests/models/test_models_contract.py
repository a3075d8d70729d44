"""A network is tried on a few images: what it returns, in evaluation and in training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ralr_tune.errors import UsageError
from ralr_tune.models.contract import Build, Images, check_fit, misfit

DOCUMENT = (Path(__file__).parents[2] / "docs/own_network.md").read_text()
DIGITS = Images(10, (1, 8, 8))


def linear(classes: int, channels: int, size: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))


class Changed(nn.Module):
    """A linear network whose outputs are changed."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.inner, self.change = linear(10, 1, 8), change

    def forward(self, images: Tensor) -> Any:
        return self.change(self.inner(images))


def reason(build: Build, images: Images = DIGITS) -> str | None:
    found = misfit(build, "my:net", images, batch=2)
    return found.reason if found else None


def test_a_network_that_fits_has_no_misfit_and_leaves_the_generator_alone() -> None:
    before = torch.random.get_rng_state()
    assert misfit(linear, "my:net", DIGITS, batch=2) is None
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda outputs: outputs[:, :7], "returns (1, 7) for one image; must be (1, 10), one output per class"),
        (lambda outputs: outputs[0], "returns (10,) for one image"),
        (lambda outputs: {"logits": outputs}, "returns dict for one image"),
        (lambda outputs: outputs.detach(), "its loss has no gradient"),
        (lambda outputs: outputs.nothing, "cannot process images of shape (1, 8, 8) (C, H, W): AttributeError: "),
        (lambda outputs: outputs if len(outputs) == 1 else 0, "returns int for 2 images in training; must be (2, 10)"),
    ],
)
def test_each_misfit_is_named(change: Any, said: str) -> None:
    found = reason(lambda *_: Changed(change))
    assert found is not None
    assert found.startswith(f"task.model = 'my:net': {said}")


def test_an_error_of_the_constructor_is_one_line() -> None:
    def build(*_: int) -> nn.Module:
        raise RuntimeError("first\nsecond")

    assert reason(build) == "task.model = 'my:net': building it failed: first second"


def test_without_images_a_network_is_only_built() -> None:
    assert reason(lambda *_: Changed(lambda outputs: None), Images(None, None)) is None
    assert "10 of the 7" in str(reason(_refusing, Images(7, None)))


def _refusing(classes: int, channels: int, size: int) -> nn.Module:
    raise UsageError(f"10 of the {classes} classes, {channels} channels, {size} pixels")


@pytest.mark.parametrize(("images", "of_images"), [(DIGITS, True), (Images(10, (3, 224, 224)), False)])
def test_whether_other_images_would_help(images: Images, of_images: bool) -> None:
    def build(classes: int, channels: int, size: int) -> nn.Module:
        if of_images and size == 224:
            return linear(classes, channels, size)
        raise UsageError("no")

    found = misfit(build, "my:net", images, batch=2)
    assert found is not None
    assert found.of_images == of_images


def test_an_unknown_number_of_classes_allows_any() -> None:
    check_fit(linear(7, 1, 8), (1, 8, 8), None)
    with pytest.raises(UsageError, match=re.escape("task.model: returns (1, 7) for one image; must be (1, 8)")):
        check_fit(linear(7, 1, 8), (1, 8, 8), 8)


def test_the_example_of_the_document_fits() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    made: dict[str, Any] = {}
    exec(code, made)
    assert misfit(lambda classes, *_: made["small"](classes, width=4), "my:net", DIGITS, batch=2) is None
