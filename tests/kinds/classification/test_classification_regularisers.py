"""What the images do not allow, and exported files with parameters that have no effect."""

from __future__ import annotations

import pytest

from ralr_tune.kinds.classification.regularisers import complaints, misfits
from ralr_tune.studyfile import parse_study
from tests.exports import configuration
from tests.studyfile.design_file import DESIGN


def found(augment: str, *, channels: int | None, classes: int | None) -> list[str]:
    spec = parse_study(DESIGN.but('augment = ["crop"]', f"augment = {augment}"))
    return [problem.line for problem in misfits(spec, channels=channels, classes=classes)]


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixing_needs_two_classes(name: str) -> None:
    augment = f'{{ choices = [["crop"], ["{name}"]] }}'
    expected = [
        f"training.augment: {name} mixes classes, and the training images have one; needs two or more (arm {arm})"
        for arm in ("monotone", "ralr")
    ]
    assert found(augment, channels=3, classes=1) == expected
    assert found(augment, channels=3, classes=2) == found(augment, channels=3, classes=None) == []
    assert found('["crop"]', channels=3, classes=1) == []


@pytest.mark.parametrize("name", ["rand_augment", "trivial_augment"])
@pytest.mark.parametrize(("channels", "refused"), [(1, False), (3, False), (None, False), (2, True), (4, True)])
def test_colour_operations_need_grey_or_colour_images(name: str, channels: int | None, refused: bool) -> None:
    lines = found(f'["{name}"]', channels=channels, classes=5)
    assert len(lines) == 2 * refused
    assert all(f"{name} needs images of 1 or 3 channels; these have {channels}" in line for line in lines)


def test_an_exported_configuration_with_a_parameter_without_effect() -> None:
    training = configuration(training={"augment": ["crop"], "mixup_alpha": 0.3}).training
    assert list(complaints(training)) == ['training.mixup_alpha = 0.3: has no effect; needs "mixup" in augment']
    assert list(complaints(configuration(training={"augment": ["mixup"], "mixup_alpha": 0.3}).training)) == []
