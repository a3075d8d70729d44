from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Box = tuple[str, float, float, float, float]
"""Class, x1, y1, x2, y2 as written into the file."""

WIDTH, HEIGHT = 64, 48


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def xml(name: str, boxes: Sequence[Box], *, size: tuple[int, int] | None = (WIDTH, HEIGHT), more: str = "") -> str:
    """A VOC annotation; `more` is written into each object."""
    sizes = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    objects = "".join(
        f"<object><name>{label}</name>{more}<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax>"
        f"<ymax>{y2}</ymax></bndbox></object>"
        for label, x1, y1, x2, y2 in boxes
    )
    return f"<annotation><filename>{name}</filename>{sizes}{objects}</annotation>"


BOXES: Sequence[Sequence[Box]] = (
    [("cat", 5, 5, 30, 30), ("dog", 20, 10, 60, 40)],
    [("dog", 1, 1, 20, 20)],
    [],
    [("cat", 30, 8, 64, 48)],
)


@pytest.fixture
def write_voc(tmp_path: Path) -> Callable[..., Path]:
    """Writes the challenge's layout with `count` images a split, whose boxes repeat BOXES; returns its root."""

    def write(splits: Mapping[str, int] | None = None, boxes: Sequence[Sequence[Box]] = BOXES, **options: Any) -> Path:
        root, number = tmp_path / "voc", 0
        for split, count in (splits or {"train": 8, "val": 4, "test": 4}).items():
            names = []
            for place in range(count):
                name, number = f"{number:06}", number + 1
                write_image(root / "JPEGImages" / f"{name}.png", number)
                file = root / "Annotations" / f"{name}.xml"
                file.parent.mkdir(exist_ok=True)
                file.write_text(xml(f"{name}.png", boxes[place % len(boxes)], **options))
                names.append(name)
            lists = root / "ImageSets" / "Main"
            lists.mkdir(parents=True, exist_ok=True)
            (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
        return root

    return write


def coco(images: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    categories = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 9, "name": "never"}]
    return {"images": list(images), "annotations": list(annotations), "categories": categories}


@pytest.fixture
def write_coco(tmp_path: Path) -> Callable[..., Path]:
    """Writes the published layout with two images a split; `change` may change the content of each file."""

    def write(
        splits: Sequence[str] = ("train", "val", "test"), change: Callable[[dict[str, Any]], None] | None = None
    ) -> Path:
        root = tmp_path / "coco"
        for split in splits:
            for number in (1, 2):
                write_image(root / f"{split}2017" / f"{number}.png", number)
            images = [{"id": n, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for n in (1, 2)]
            boxes = [
                {"id": 1, "image_id": 1, "category_id": 7, "bbox": [10, 5, 20, 15], "area": 77.0, "iscrowd": 0},
                {"id": 2, "image_id": 1, "category_id": 3, "bbox": [0, 0, 64, 48], "iscrowd": 1},
            ]
            content = coco(images, boxes)
            if change is not None:
                change(content)
            (root / "annotations").mkdir(exist_ok=True)
            (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
            (root / "annotations" / f"captions_{split}2017.json").write_text("{}")
        return root

    return write
