"""Draws boxes on images and precision-recall curves, with Pillow alone: pure functions from values to files' bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

from ralr_tune.kinds.detection.annotated import Objects, Picture
from ralr_tune.kinds.detection.loading import PictureLoader
from ralr_tune.kinds.detection.scores import Detections

SIDE = 480
"""Shorter side of a drawn image in pixels; its file has about 40 kB."""

WANTED, FOUND = "#19a974", "#ff6300"
"""Colours of the ground truth and of detections."""

CURVE_COLOURS = (
    "#1f77b4",
    "#ff7f0e",
    "#2ca02c",
    "#d62728",
    "#9467bd",
    "#8c564b",
    "#e377c2",
    "#7f7f7f",
    "#bcbd22",
    "#17becf",
)
"""Of classes, plotly's: a chart shows at most so many."""

CHART, MARGIN = (460, 340), 44
"""Width and height of a chart, and the space around its axes, in pixels."""


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


def drawn_curves(curves: Mapping[str, Sequence[float]]) -> bytes:
    """A PNG of precision (n values, 0 to 1) at equally spaced recalls from 0 to 1, one line for each class."""
    (width, height), font = CHART, ImageFont.load_default(12)
    canvas = Image.new("RGB", CHART, "white")
    draw = ImageDraw.Draw(canvas)

    def at(recall: float, precision: float) -> tuple[float, float]:
        return MARGIN + recall * (width - 2 * MARGIN), height - MARGIN - precision * (height - 2 * MARGIN)

    for tenth in range(0, 11, 2):
        share = tenth / 10
        draw.line([at(share, 0), at(share, 1)], fill="#dddddd")
        draw.line([at(0, share), at(1, share)], fill="#dddddd")
        draw.text(at(share, 0), f"{share:g}", fill="black", font=font, anchor="ma")
        draw.text((at(0, share)[0] - 4, at(0, share)[1]), f"{share:g}", fill="black", font=font, anchor="rm")
    draw.text((width / 2, height - 14), "recall", fill="black", font=font, anchor="mm")
    draw.text((MARGIN, MARGIN - 16), "precision at IoU 0.5", fill="black", font=font, anchor="lm")
    for number, (name, values) in enumerate(list(curves.items())[: len(CURVE_COLOURS)]):
        points = [at(place / max(1, len(values) - 1), value) for place, value in enumerate(values)]
        draw.line(points, fill=CURVE_COLOURS[number], width=2)
        place = (width - MARGIN - 6, MARGIN + 8 + 15 * number)
        draw.text(place, name[:24], fill=CURVE_COLOURS[number], font=font, anchor="rm")
    file = BytesIO()
    canvas.save(file, "PNG", optimize=True)
    return file.getvalue()
