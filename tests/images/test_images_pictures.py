"""Pixels of every kind of file that Pillow reads, as the network sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ralr_tune.errors import DataError
from ralr_tune.images import pictures
from ralr_tune.kinds.classification.sources import open_source

RAMP = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
"""16 bits from black to white."""
RAMP_8 = np.rint(RAMP / 257).astype(np.uint8)
SQUARE = np.zeros((8, 8), np.uint8)
SQUARE[2:6, 2:6] = 255
"""Alpha whose shape is all that is seen of a black picture."""


def alpha(mode: str, shape: NDArray[np.uint8] = SQUARE, value: int = 0) -> Image.Image:
    """A picture of one grey value with this alpha."""
    drawn = Image.new(mode.removesuffix("A") if mode != "PA" else "L", (8, 8), (value,) * len(mode.removesuffix("A")))
    if mode == "PA":
        drawn = drawn.convert("P")
    drawn.putalpha(Image.fromarray(shape))
    return drawn


def palette(transparency: int | bytes) -> tuple[Image.Image, dict[str, Any]]:
    """Index 1 inside of SQUARE and 0 outside, every colour of the palette black."""
    drawn = Image.new("P", (8, 8))
    drawn.putpalette([0, 0, 0] * 256)
    drawn.putdata((SQUARE // 255).flatten().tolist())
    return drawn, {"transparency": transparency}


def written(folder: Path, drawn: Image.Image, name: str, **options: Any) -> Path:
    """Two classes that hold this picture, and another one, since a fifth is set aside."""
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for copy in ("0", "1"):
            drawn.save(folder / label / f"{copy}-{name}", **options)
    return folder


def loaded(folder: Path, **data: Any) -> NDArray[np.uint8]:
    """The first picture, (C, H, W)."""
    first: NDArray[np.uint8] = open_source({"source": "folder", "path": str(folder), **data}).train.load()[0]
    return first


@pytest.mark.parametrize(
    ("picture", "name"),
    [
        (lambda: Image.fromarray(RAMP), "x.png"),
        (lambda: Image.fromarray(RAMP), "x.tif"),
        (lambda: Image.fromarray(RAMP.astype(">u2")), "big.tif"),
        (lambda: Image.fromarray(RAMP), "x.pgm"),
        (lambda: Image.fromarray(RAMP), "x.jp2"),
    ],
    ids=["png", "tiff", "tiff I;16B", "pgm", "jpeg 2000"],
)
def test_16_bits_are_scaled(tmp_path: Path, picture: Callable[[], Image.Image], name: str) -> None:
    assert np.array_equal(loaded(written(tmp_path, picture(), name)), np.stack([RAMP_8] * 3))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_alpha_that_varies_is_composited_on_white(tmp_path: Path, mode: str) -> None:
    name = "x.tif" if mode == "PA" else "x.png"
    assert np.array_equal(loaded(written(tmp_path, alpha(mode), name)), np.stack([255 - SQUARE] * 3))


@pytest.mark.parametrize(
    ("transparency", "name"), [(0, "x.png"), (0, "x.gif"), (bytes([0, 255]), "x.png")], ids=["png", "gif", "bytes"]
)
def test_so_is_the_transparency_of_a_palette(tmp_path: Path, transparency: int | bytes, name: str) -> None:
    drawn, options = palette(transparency)
    assert np.array_equal(loaded(written(tmp_path, drawn, name, **options)), np.stack([255 - SQUARE] * 3))


def test_so_is_a_colour_that_stands_for_transparent(tmp_path: Path) -> None:
    drawn = Image.fromarray(np.stack([SQUARE // 2] * 3, axis=2))
    seen = loaded(written(tmp_path, drawn, "x.png", transparency=(0, 0, 0)))
    assert np.array_equal(seen[0], np.where(SQUARE > 0, SQUARE // 2, 255))


@pytest.mark.parametrize("value", [0, 128, 255])
def test_alpha_that_is_the_same_everywhere_says_nothing(tmp_path: Path, value: int) -> None:
    drawn = alpha("RGBA", np.full((8, 8), value, np.uint8), value=90)
    assert (loaded(written(tmp_path, drawn, "x.png")) == 90).all()


@pytest.mark.parametrize(
    ("values", "held"),
    [
        (RAMP.astype(np.float32) / 65535, "floating-point numbers"),
        (RAMP.astype(np.int32) * 1000, "32-bit integers"),
    ],
    ids=["float", "int32"],
)
def test_numbers_without_a_range_are_refused_by_name(tmp_path: Path, values: NDArray[Any], held: str) -> None:
    with pytest.raises(DataError, match=rf"a/.-x\.tif: pixels are {held}, which have no defined range.*8 or 16"):
        loaded(written(tmp_path, Image.fromarray(values), "x.tif"))


@pytest.mark.parametrize(
    ("drawn", "name"),
    [
        (Image.new("CMYK", (8, 8), (0, 255, 0, 0)), "x.tif"),
        (Image.new("CMYK", (8, 8), (0, 255, 0, 0)), "x.jpg"),
        (Image.new("RGB", (8, 8), (255, 0, 255)), "x.avif"),
    ],
    ids=["CMYK TIFF", "CMYK JPEG", "AVIF"],
)
def test_other_colours_stay_what_they_look_like(tmp_path: Path, drawn: Image.Image, name: str) -> None:
    seen = loaded(written(tmp_path, drawn, name)).reshape(3, -1).astype(int)
    assert np.abs(seen.mean(1) - [255, 0, 255]).max() < 8


def test_of_what_moves_the_first_picture_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), value) for value in (200, 10)]
    for name in ("x.gif", "x.webp", "x.apng"):
        folder = tmp_path / name
        written(folder, frames[0], name, save_all=True, append_images=frames[1:], lossless=True)
        assert (loaded(folder) == 200).all(), name


def test_a_turned_picture_of_16_bits_stands_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    seen = loaded(written(tmp_path, Image.fromarray(RAMP[:4]), "x.png", exif=exif))
    assert np.array_equal(seen[0], np.rot90(RAMP_8[:4], -1))


# ---------------------------------------------------------------- how large


def test_a_huge_jpeg_is_reduced_while_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", 5000)
    folder = written(tmp_path, Image.new("RGB", (400, 300), (9, 9, 9)), "x.jpg")
    assert loaded(folder, size=16).shape == (3, 16, 16)
    with pytest.raises(
        DataError, match=r"an image of 400x300 pixels; allowed: at most 5000 pixels \(set data\.max_pixels = 1200"
    ):
        loaded(folder)
    assert loaded(folder, max_pixels=120_000).shape == (3, 300, 400)


def test_max_pixels_may_exceed_the_limit_of_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # from twice as many on, Pillow opens nothing
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1000)
    folder = written(tmp_path, Image.new("RGB", (60, 50)), "x.png")
    with pytest.raises(DataError, match="an image of 60x50 pixels; allowed: at most 1000 pixels"):
        loaded(folder)
    assert loaded(folder, max_pixels=3000).shape == (3, 50, 60)
    assert Image.MAX_IMAGE_PIXELS == 1000
