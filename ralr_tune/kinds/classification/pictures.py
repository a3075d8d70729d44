"""Converts images of any size and mode to one uint8 array."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageOps

from ralr_tune.errors import DataError
from ralr_tune.kinds.classification.samples import Images
from ralr_tune.machine.memory import check_memory

MAX_PIXELS = 89_478_485
"""Of one image. Pillow warns above it: a header of a few bytes can claim any size."""

GREY_MODES = frozenset({"1", "L", "I", "I;16", "F"})


def stack(pictures: Iterable[Image.Image], *, count: int, mode: str | None, size: int | None, where: str) -> Images:
    """`count` pictures as (count, C, H, W) in 0 .. 255.

    `mode`: "L" or "RGB"; None uses the mode of the first image (grey or colour) for all. `size`: the shorter side is
    resized to it and the central square is cropped; None requires images of equal size. Raises DataError, naming
    `where`, also if they would not fit into memory.
    """
    stacked: Images | None = None
    for row, picture in enumerate(pictures):
        check_pixels(picture, where)
        if mode is None:
            mode = "L" if picture.mode in GREY_MODES else "RGB"
        pixels = _pixels(picture, mode, size)
        if stacked is None:
            check_memory(count * pixels.size, f"{where}: {count} images of {_size_text(pixels)} pixels")
            stacked = np.empty((count, *pixels.shape), dtype=np.uint8)
        if pixels.shape != stacked.shape[1:]:
            raise DataError(
                f"{where}: images of unequal size ({_size_text(stacked[0])} and {_size_text(pixels)} pixels)"
                "; set data.size = N to crop all to N x N"
            )
        stacked[row] = pixels
    if stacked is None:
        raise DataError(f"{where}: contains no images")
    return stacked


def check_pixels(picture: Image.Image, where: str) -> None:
    """Raises DataError for an image that is too large to decode. Reads only its header."""
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise DataError(f"{where}: an image of {width}x{height} pixels; allowed: at most {MAX_PIXELS} pixels")


def _pixels(picture: Image.Image, mode: str, size: int | None) -> Images:
    """(C, H, W)."""
    if size is not None:
        # ImageOps.fit crops, then resizes: the same pixels as resizing the shorter side and cropping the centre
        picture = ImageOps.fit(picture.convert(mode), (size, size), method=Image.Resampling.BILINEAR)
    pixels = np.asarray(picture.convert(mode))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _size_text(pixels: Images) -> str:
    return f"{pixels.shape[2]}x{pixels.shape[1]}"
