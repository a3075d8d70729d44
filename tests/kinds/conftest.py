from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

Writer = Callable[..., Path]


def picture(seed: int, *, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> Image.Image:
    """A noise image; size is (width, height)."""
    depth = (3,) if mode == "RGB" else ()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *depth), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def write_tree(tmp_path: Path) -> Writer:
    """Writes pictures as `FOLDER/CLASS/n.png`, `count` a class, and gives the root; the folders hold the same ones,
    or distinct ones."""

    def write(folders: dict[str, list[str]], *, count: int = 3, distinct: bool = False, **options: Any) -> Path:
        for place_of, (folder, classes) in enumerate(folders.items()):
            for number, name in enumerate(classes):
                place = tmp_path / "pictures" / folder / name
                place.mkdir(parents=True)
                for n in range(count):
                    picture(100 * number + n + 10_000 * place_of * distinct, **options).save(place / f"{n}.png")
        return tmp_path / "pictures"

    return write


def arrays(**changes: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
    """The arrays of a valid .npz file: 20 + 6 colour images of 5x4 pixels, three classes; None omits one."""
    rng = np.random.default_rng(0)
    good: dict[str, NDArray[Any] | None] = {
        "train_images": rng.integers(0, 256, (20, 5, 4, 3), dtype=np.uint8),
        "train_labels": np.arange(20) % 3,
        "test_images": rng.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8),
        "test_labels": np.arange(6) % 3,
        "classes": np.array(["ant", "bee", "cat"]),
    }
    return {name: array for name, array in (good | changes).items() if array is not None}


@pytest.fixture
def write_npz(tmp_path: Path) -> Writer:
    """Writes `arrays(**changes)` and returns the file."""

    def write(**changes: NDArray[Any] | None) -> Path:
        file = tmp_path / "data.npz"
        np.savez(file, **arrays(**changes))  # type: ignore[arg-type]
        return file

    return write
