"""RandAugment and TrivialAugment: torchvision's operations, drawn for each image.

torchvision's transforms draw one operation for a whole batch tensor. Here each image has its own, and images that drew
the same operation with the same magnitude and sign go through one call together, on their device. Names, ranges and
the 31 magnitudes are those of torchvision's RandAugment and TrivialAugmentWide; so is nearest-neighbour interpolation.
What moves into an image has the mean colour of the training images (our choice, as in cutout; torchvision: black).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional

from ralr_tune.kinds.classification.transform import Augmentation

MAGNITUDES = 31
"""Magnitudes of an operation: 0 is the weakest, 30 the strongest."""

OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "auto_contrast",
    "equalize",
)

PLAIN = frozenset({"identity", "auto_contrast", "equalize"})
"""Operations without a magnitude."""

UNSIGNED = PLAIN | {"posterize", "solarize"}
"""Operations whose magnitude has no random sign."""


@dataclass(frozen=True)
class Strengths:
    """Magnitude 30 of each operation."""

    shear: float
    """Pixels per pixel."""
    shift: Callable[[int], float]
    """Pixels, by the side of the image."""
    degrees: float
    blend: float
    """Brightness, colour, contrast and sharpness: deviation of the factor from 1."""
    lost_bits: int
    """Of the 8 bits that posterize leaves at magnitude 0."""


@dataclass(frozen=True)
class _Operations(Augmentation):
    """Operations one after another. A draw is a code: (operation * MAGNITUDES + magnitude) * 2 + sign."""

    draws_on_host = True
    strengths: ClassVar[Strengths]

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        images = images.clone()
        for codes in draws.cpu().unbind(1):
            for code in sorted(set(codes.tolist())):
                if code >= 2 * MAGNITUDES:  # not the identity
                    rows = (codes == code).nonzero()[:, 0].to(images.device)
                    images[rows] = self.operate(images[rows], code)
        return images

    def operate(self, images: Tensor, code: int) -> Tensor:
        """All images (N, C, H, W) uint8, each changed by the operation of this code."""
        rest, sign = divmod(code, 2)
        operation, magnitude = divmod(rest, MAGNITUDES)
        name, signed = OPERATIONS[operation], -1 if sign else 1
        if name.startswith(("shear", "translate", "rotate")):
            return self._moved(images, name, magnitude, signed)
        changed: Tensor
        if name in _BLENDS:
            changed = _BLENDS[name](images, 1 + signed * _spaced(0, self.strengths.blend, magnitude))
        elif name == "posterize":
            changed = functional.posterize(images, bits=round(8 - self.strengths.lost_bits * magnitude / 30))
        elif name == "solarize":
            changed = functional.solarize(images, threshold=255 * _spaced(1, 0, magnitude))
        else:
            changed = functional.autocontrast(images) if name == "auto_contrast" else functional.equalize(images)
        return changed

    def _moved(self, images: Tensor, name: str, magnitude: int, sign: int) -> Tensor:
        strengths, fill, horizontal = self.strengths, self._fill_values, name.endswith("x")
        moved: Tensor
        if name == "rotate":
            moved = functional.rotate(images, sign * _spaced(0, strengths.degrees, magnitude), fill=fill)
        elif name.startswith("shear"):
            slant = sign * math.degrees(math.atan(_spaced(0, strengths.shear, magnitude)))
            shear = [slant, 0.0] if horizontal else [0.0, slant]
            # around the first pixel, as in AutoAugment
            moved = functional.affine(images, 0.0, [0, 0], 1.0, shear, fill=fill, center=[0, 0])
        else:
            most = strengths.shift(self.width if horizontal else self.height)
            shift = sign * int(_spaced(0, most, magnitude))
            moved = functional.affine(images, 0.0, [shift, 0] if horizontal else [0, shift], 1.0, [0.0, 0.0], fill=fill)
        return moved

    @cached_property
    def _fill_values(self) -> list[float]:
        """Read from the device once."""
        values: list[float] = self.fill.flatten().tolist()
        return values

    @staticmethod
    def codes(operations: Tensor, magnitudes: Tensor, signs: Tensor) -> Tensor:
        """Codes from three tensors of one shape; what an operation does not have is 0, so that groups are few."""
        magnitude = torch.tensor([name not in PLAIN for name in OPERATIONS])[operations]
        signed = torch.tensor([name not in UNSIGNED for name in OPERATIONS])[operations]
        return (operations * MAGNITUDES + magnitudes * magnitude) * 2 + signs * signed


_BLENDS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "brightness": functional.adjust_brightness,
    "color": functional.adjust_saturation,
    "contrast": functional.adjust_contrast,
    "sharpness": functional.adjust_sharpness,
}


def _spaced(weakest: float, strongest: float, magnitude: int) -> float:
    """In float32, as torchvision computes it: operations cut off fractions, so the last bit can change a pixel."""
    return torch.linspace(weakest, strongest, MAGNITUDES)[magnitude].item()


@dataclass(frozen=True)
class RandAugment(_Operations):
    """Cubuk et al. 2019, "RandAugment", arXiv 1909.13719, section 3: a number of operations, one magnitude for all."""

    strengths = Strengths(shear=0.3, shift=lambda side: 150 / 331 * side, degrees=30.0, blend=0.9, lost_bits=4)

    operations: int
    """Operations for each image, drawn with replacement: N in the paper."""
    magnitude: int
    """0 to 30: M in the paper."""

    def draw(self, count: int, generator: Generator) -> Tensor:
        """(N, operations): a code for each operation."""
        shape = count, self.operations
        chosen = torch.randint(0, len(OPERATIONS), shape, generator=generator)
        signs = torch.randint(0, 2, shape, generator=generator)
        return self.codes(chosen, torch.full(shape, self.magnitude), signs)


@dataclass(frozen=True)
class TrivialAugment(_Operations):
    """Müller and Hutter 2021, "TrivialAugment", arXiv 2103.10158, section 3: one operation, any magnitude.

    The wide ranges of its table 1 (TA Wide), as in torchvision.
    """

    strengths = Strengths(shear=0.99, shift=lambda side: 32.0, degrees=135.0, blend=0.99, lost_bits=6)

    def draw(self, count: int, generator: Generator) -> Tensor:
        """(N, 1): a code for each image."""
        chosen = torch.randint(0, len(OPERATIONS), (count, 1), generator=generator)
        magnitudes = torch.randint(0, MAGNITUDES, (count, 1), generator=generator)
        signs = torch.randint(0, 2, (count, 1), generator=generator)
        return self.codes(chosen, magnitudes, signs)
