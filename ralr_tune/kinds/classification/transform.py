"""What every augmentation of single images is: draws for each sample, applied to a whole batch on its device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor


@dataclass(frozen=True)
class Augmentation(ABC):
    """Draws an int64 tensor (N, k) for N samples and applies its rows to the samples of a batch.

    Further fields are its parameters: keys of [training] with the augmentation's name as prefix.
    """

    draws_on_host: ClassVar[bool] = False
    """Whether the draws stay on the CPU, since they decide which operations run."""

    height: int
    width: int
    fill: Tensor
    """Mean colour of the training images, (C, 1, 1), in the dtype of the images."""

    @abstractmethod
    def draw(self, count: int, generator: Generator) -> Tensor:
        """One row for each of `count` samples."""

    @abstractmethod
    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """Images (N, C, H, W) of any dtype, draws (N, k) on the same device (`draws_on_host`: on any device).

        Returns images (N, C, height, width) of the same dtype.
        """
