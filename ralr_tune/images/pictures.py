"""Converts images of any size and mode to one uint8 array."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from ralr_tune.errors import DataError
from ralr_tune.images.files import Images
from ralr_tune.machine.memory import check_memory

MAX_PIXELS = 89_478_485
"""Default of `data.max_pixels`, for one picture as decoded: above it Pillow warns. A file of a few bytes may claim any
number."""

GREY_MODES = frozenset({"1", "L", "I", "I;16", "I;16B", "I;16L", "I;16N", "F"})

BACKGROUND = (255, 255, 255, 255)
"""Colour behind transparent pixels: white (our choice), since most drawings with alpha are made for a white page."""

REFUSED_FORMATS = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
"""Formats that Pillow recognises but cannot decode by itself: EPS starts Ghostscript, the others need a handler."""

_OPENING = Lock()


def open_picture(file: str | BinaryIO) -> Image.Image:
    """The picture in `file`, not decoded yet. Pillow detects the format from the content, not from the name.

    Pillow's own limit on pixels is bypassed: it counts those of the file, `check_pixels` those that are decoded.
    """
    formats = picture_formats()
    try:
        return Image.open(file, formats=formats)
    except Image.DecompressionBombError:
        with _OPENING:  # the limit is one number for the whole process
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                return Image.open(file, formats=formats)
            finally:
                Image.MAX_IMAGE_PIXELS = limit


def picture_formats() -> list[str]:
    """All formats that the installed Pillow decodes, in the order in which it tries them."""
    Image.init()
    return [name for name in Image.ID if name not in REFUSED_FORMATS]


def picture_suffixes() -> frozenset[str]:
    """File name suffixes of all `picture_formats`, in lower case, with their dot."""
    formats = set(picture_formats())
    return frozenset(suffix for suffix, name in Image.EXTENSION.items() if name in formats)


def stack(pictures: Iterable[Image.Image], *, count: int, mode: str | None, size: int | None, where: str) -> Images:
    """`count` pictures as (count, C, H, W) in 0 .. 255.

    `mode`: "L" or "RGB"; None uses the mode of the first image (grey or colour) for all. `size`: the shorter side is
    resized to it and the central square is cropped; None requires images of equal size. Raises DataError, naming
    `where`, also if the result would not fit into memory.
    """
    stacked: Images | None = None
    for row, picture in enumerate(pictures):
        if mode is None:
            mode = "L" if picture.mode in GREY_MODES else "RGB"
        pixels = _pixels(eight_bits(picture, where), mode, size)
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


def check_pixels(picture: Image.Image, where: str, max_pixels: int | None) -> None:
    """Raises DataError if more than `max_pixels` pixels of the picture would be decoded (None: MAX_PIXELS)."""
    width, height = picture.size
    allowed = MAX_PIXELS if max_pixels is None else max_pixels
    if width * height > allowed:
        raise DataError(
            f"{where}: an image of {width}x{height} pixels; allowed: at most {allowed} pixels "
            f"(set data.max_pixels = {width * height} or more to accept it)"
        )


def eight_bits(picture: Image.Image, where: str, form: str | None = None) -> Image.Image:
    """The picture in a mode that `convert` turns into "L" or "RGB" without visible loss.

    16 bits are scaled to 8; alpha that varies is composited on BACKGROUND; alpha that is the same everywhere
    carries no information and is dropped. `form`: the file format, if `picture` has lost it. Raises DataError, naming
    `where`, for numbers without a defined range: it is unknown which of them is white.
    """
    form = form or picture.format
    if picture.mode.startswith("I;16") or (picture.mode == "I" and form in ("PNG", "PPM")):  # 16 bits stored in 32
        values = np.asarray(picture).astype(np.float64) / 257  # 65535 / 255
        return Image.fromarray(np.rint(values.clip(0, 255)).astype(np.uint8))
    if picture.mode in ("I", "F"):
        numbers = "32-bit integers" if picture.mode == "I" else "floating-point numbers"
        raise DataError(
            f"{where}: pixels are {numbers}, which have no defined range from black to white; "
            "allowed: 8 or 16 unsigned bits a channel (convert it)"
        )
    return _composited(picture) if picture.has_transparency_data else picture


def _composited(picture: Image.Image) -> Image.Image:
    rgba = picture.convert("RGBA")
    low, high = rgba.getchannel("A").getextrema()
    if low == high:
        return picture
    return Image.alpha_composite(Image.new("RGBA", rgba.size, BACKGROUND), rgba).convert("RGB")


def _pixels(picture: Image.Image, mode: str, size: int | None) -> Images:
    """(C, H, W)."""
    if size is not None:
        # ImageOps.fit crops, then resizes: the same pixels as resizing the shorter side and cropping the centre
        picture = ImageOps.fit(picture.convert(mode), (size, size), method=Image.Resampling.BILINEAR)
    pixels = np.asarray(picture.convert(mode))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _size_text(pixels: Images) -> str:
    return f"{pixels.shape[2]}x{pixels.shape[1]}"
