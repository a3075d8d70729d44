"""Decodes annotated images, reduced to what the network sees, and keeps them in memory as far as a limit allows."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ralr_tune.errors import DataError
from ralr_tune.images.files import short_reason
from ralr_tune.images.pictures import check_pixels, eight_bits, open_picture
from ralr_tune.kinds.detection.annotated import Picture
from ralr_tune.studyfile.problems import one_line

KEPT_BYTES = 2**30
"""Decoded images that one process keeps (our choice): 10,000 of 160x213, or 700 of 600x800. The rest are decoded again
in every epoch."""


@dataclass(frozen=True)
class Decoded:
    """One image as the network gets it, and how to return to the stored one."""

    image: Tensor
    """(3, H, W) uint8."""
    scale: tuple[float, float]
    """Width and height as multiples of the stored ones."""


class PictureLoader:
    """Images whose shorter side has at most `side` pixels: larger ones are reduced when they are decoded.

    The network resizes them to that side anyway. Augmentation therefore works on images of the size that is trained on
    (our choice): it is several times as fast, and a crop is enlarged from fewer pixels. Threads may share a loader.
    """

    def __init__(self, side: int, longest: int, max_pixels: int | None) -> None:
        """`longest`: limit of the longer side. `max_pixels`: limit of the stored image."""
        self.side, self._longest, self._max_pixels = side, longest, max_pixels
        self._kept: dict[str, Decoded] = {}
        self._bytes = 0

    def load(self, picture: Picture) -> Decoded:
        """Raises DataError for an unreadable image, and for one whose size is not the annotated one."""
        if (known := self._kept.get(picture.file)) is not None:
            return known
        decoded = self._decode(picture)
        if self._bytes + decoded.image.nbytes <= KEPT_BYTES:
            self._kept[picture.file] = decoded
            self._bytes += decoded.image.nbytes
        return decoded

    def _decode(self, picture: Picture) -> Decoded:
        where = one_line(picture.file)
        width, height = self._target(picture)
        try:
            with open_picture(BytesIO(Path(picture.file).read_bytes())) as opened:
                stored, form = opened.size, opened.format
                opened.draft("RGB", (2 * width, 2 * height))  # a large JPEG is decoded at a fraction of its size
                check_pixels(opened, where, self._max_pixels)
                upright = _as_annotated(opened, stored, picture, where)
                pixels = eight_bits(upright, where, form).convert("RGB")
            if pixels.size != (width, height):
                pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
        except DataError:
            raise
        except Exception as error:  # Pillow's decoders raise errors of many types for damaged bytes
            raise DataError(f"{where}: not a readable image: {short_reason(error)}") from error
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()
        return Decoded(image, (width / picture.width, height / picture.height))

    def _target(self, picture: Picture) -> tuple[int, int]:
        """(width, height) in pixels: as torchvision's GeneralizedRCNNTransform resizes, but never enlarged."""
        sides = picture.width, picture.height
        scale = min(1.0, self.side / min(sides), self._longest / max(sides))
        return max(1, round(picture.width * scale)), max(1, round(picture.height * scale))


def _as_annotated(opened: Image.Image, stored: tuple[int, int], picture: Picture, where: str) -> Image.Image:
    """The image in the orientation of its annotation: tools differ in whether they apply the EXIF orientation."""
    annotated = picture.width, picture.height
    if stored == annotated:
        return opened
    if stored == annotated[::-1] and (turned := ImageOps.exif_transpose(opened)).size == opened.size[::-1]:
        return turned
    raise DataError(f"{where}: is {stored[0]}x{stored[1]}, annotated as {annotated[0]}x{annotated[1]}")
