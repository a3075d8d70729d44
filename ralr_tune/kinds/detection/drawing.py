"""Draws boxes on images."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

from ralr_tune.kinds.detection.annotated import Objects, Picture
from ralr_tune.kinds.detection.loading import PictureLoader
from ralr_tune.kinds.detection.scores import Detections

SIDE = 480
"""Shorter side of a drawn image in pixels; its file has about 40 kB."""

WANTED, FOUND = "#19a974", "#ff6300"
"""Colours of the ground truth and of detections."""


def best_of(found: Detections, count: int) -> Detections:
    """The `count` detections with the highest scores."""
    chosen = found.scores.argsort(descending=True, stable=True)[:count]
    return Detections(found.boxes[chosen], found.scores[chosen], found.labels[chosen])


def drawn_boxes(picture: Picture, found: Detections, classes: Sequence[str], max_pixels: int | None = None) -> bytes:
    """A JPEG of the image with its objects and with detections; crowds and difficult objects are not drawn."""
    decoded = PictureLoader(SIDE, 2 * SIDE, max_pixels).load(picture)
    canvas = Image.fromarray(decoded.image.permute(1, 2, 0).numpy())
    draw, scale = ImageDraw.Draw(canvas), [*decoded.scale, *decoded.scale]
    objects = counted(picture.objects)
    for corners in objects.corners.tolist():
        draw.rectangle(_scaled(corners, scale), outline=WANTED, width=3)
    for corners, score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True):
        box = _scaled(corners, scale)
        draw.rectangle(box, outline=FOUND, width=2)
        _write(draw, (box[0] + 2, box[1] + 1), f"{classes[label]} {score:.2f}")
    file = BytesIO()
    canvas.save(file, "JPEG", quality=80)
    return file.getvalue()


def counted(objects: Objects) -> Objects:
    """Those that the metric counts."""
    return objects.take(~(objects.crowd | objects.difficult))


def _scaled(corners: Sequence[float], scale: Sequence[float]) -> list[float]:
    return [value * factor for value, factor in zip(corners, scale, strict=True)]


def _write(draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str) -> None:
    """White on the colour of detections."""
    font = ImageFont.load_default(11)
    draw.rectangle(draw.textbbox(place, text, font=font), fill=FOUND)
    draw.text(place, text, fill="white", font=font)
