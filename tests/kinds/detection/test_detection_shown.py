"""What the report shows of a detector: chosen images, tables and curves; damaged files are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

from ralr_tune.errors import DataError
from ralr_tune.kinds.detection.annotated import Picture
from ralr_tune.kinds.detection.drawing import FOUND, WANTED, best_of, drawn_boxes
from ralr_tune.kinds.detection.scores import RECALLS, Detections
from ralr_tune.kinds.detection.shown import gathered, shown_examples
from ralr_tune.kinds.detection.voc import read_voc
from ralr_tune.tasks.examples import ExampleChart, ExampleImage, ExampleTable

Write = Callable[..., Path]


def found_in(picture: Picture, shift: float) -> Detections:
    """Every object, moved to the right by `shift` pixels."""
    objects = picture.objects
    boxes = torch.from_numpy(objects.corners) + torch.tensor([shift, 0, shift, 0])
    return Detections(boxes, torch.linspace(0.9, 0.5, len(objects)), torch.from_numpy(objects.labels))


@pytest.fixture
def content(write_voc: Write) -> dict[str, object]:
    source = read_voc(str(write_voc()))
    pictures = source.train.pictures[:4]
    shifts = [0.0, 4.0, 0.0, 30.0]
    found = [found_in(*each) for each in zip(pictures, shifts, strict=True)]
    return gathered(pictures, found, source.classes, "map", draws=5)


def test_the_best_median_and_worst_image(content: dict[str, object]) -> None:
    chosen = content["pictures"]
    assert isinstance(chosen, list)
    assert [(each["title"], each["name"]) for each in chosen] == [
        ("best", "000000.png"), ("median", "000001.png"), ("worst", "000003.png"),
    ]  # fmt: skip
    assert [each["map"] for each in chosen] == sorted((each["map"] for each in chosen), reverse=True)


def test_all_arms_side_by_side(content: dict[str, object]) -> None:
    stored = json.loads(json.dumps(content))  # as it is kept
    shown = shown_examples({"monotone": stored, "ralr": stored})
    tables = [part for part in shown.parts if isinstance(part, ExampleTable)]
    images = [part for part in shown.parts if isinstance(part, ExampleImage)]
    assert [len(each.rows) for each in tables] == [2, 2, 3]
    charts = [part for part in shown.parts if isinstance(part, ExampleChart)]
    assert len(images) == 2 * 3
    assert [(each.title, list(each.lines)) for each in charts] == [
        (name, ["monotone", "ralr"]) for name in ("cat", "dog")
    ]
    assert [recall for recall, _ in charts[0].lines["ralr"]] == RECALLS
    assert [precision for _, precision in charts[0].lines["ralr"]] == stored["curves"]["cat"]


@pytest.mark.parametrize("damage", [{"classes": 3}, {"interval": [1]}, {"pictures": [{"title": "best"}]}])
def test_a_file_of_another_form_is_refused(content: dict[str, object], damage: dict[str, object]) -> None:
    with pytest.raises(DataError, match="examples of another form"):
        shown_examples({"ralr": content | damage})


def test_boxes_are_drawn_where_they_are(write_voc: Write) -> None:
    picture = read_voc(str(write_voc(size=(64, 48)))).train.pictures[1]
    far = Detections(torch.tensor([[30.0, 5.0, 60.0, 45.0]]), torch.tensor([0.5]), torch.tensor([1]))
    image = Image.open(BytesIO(drawn_boxes(picture, far, ("cat", "dog")))).convert("RGB")
    assert image.size == (64, 48)

    def close(pixel: tuple[int, int], colour: str) -> bool:
        wanted = tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5))
        return all(abs(a - b) < 60 for a, b in zip(image.getpixel(pixel), wanted, strict=True))

    assert close((1, 12), WANTED)
    assert close((31, 40), FOUND)


def test_the_best_detections() -> None:
    found = Detections(torch.zeros(3, 4), torch.tensor([0.2, 0.9, 0.5]), torch.tensor([0, 1, 2]))
    assert best_of(found, 2).labels.tolist() == [1, 2]
