"""What the report shows of each arm's winner: metrics by class and size, curves, detections next to the ground truth.

`gathered` measures one network and returns JSON values, `shown_examples` formats those of all arms.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from ralr_tune.errors import DataError
from ralr_tune.kinds.detection.annotated import Picture
from ralr_tune.kinds.detection.drawing import best_of, counted, drawn_boxes
from ralr_tune.kinds.detection.scores import RECALLS, SIZES, Detections, precisions, resampled
from ralr_tune.seeds import derive_seed
from ralr_tune.tasks.examples import ExampleChart, ExampleImage, Examples, ExampleTable

DRAWS = 100
"""Samples of the bootstrap over images (our choice): each is a whole evaluation, of half a second for 100 images."""

INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap that the report shows."""

BY_CLASS = ("map", "map_50")


def gathered(
    pictures: Sequence[Picture], found: Sequence[Detections], classes: Sequence[str], metric: str, *, draws: int = DRAWS
) -> dict[str, Any]:
    """Everything that the report shows of one network's detections in some images."""
    objects = [each.objects for each in pictures]
    measured = precisions(found, objects)
    low, high = np.percentile(resampled(found, objects, metric, draws=draws, seed=derive_seed("bootstrap")), INTERVAL)
    curves = {name: measured.curve(label) for label, name in enumerate(classes)}
    return {
        "metric": metric,
        "images": len(pictures),
        "value": measured.value(metric),
        "interval": [float(low), float(high)],
        "draws": draws,
        "classes": {name: [measured.of_class(each, label) for each in BY_CLASS] for label, name in enumerate(classes)},
        "sizes": {size: measured.of_size(size) for size in SIZES},
        "curves": {name: curve for name, curve in curves.items() if curve is not None},
        "pictures": list(_chosen(pictures, found, classes)),
    }


def _chosen(
    pictures: Sequence[Picture], found: Sequence[Detections], classes: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """The best, the median and the worst image by its own `map`, among those with objects."""
    scored = sorted(
        (precisions([detected], [picture.objects]).value("map"), place)
        for place, (picture, detected) in enumerate(zip(pictures, found, strict=True))
        if len(counted(picture.objects))
    )
    ranks = {"best": len(scored) - 1, "median": len(scored) // 2, "worst": 0} if scored else {}
    for title, rank in ranks.items():
        value, place = scored[rank]
        picture = pictures[place]
        count = len(counted(picture.objects))
        image = drawn_boxes(picture, best_of(found[place], count), classes)
        name = picture.file.replace("\\", "/").rpartition("/")[2]
        yield {"title": title, "name": name, "map": value, "objects": count, "jpeg": base64.b64encode(image).decode()}


def shown_examples(by_arm: Mapping[str, Mapping[str, Any]]) -> Examples:
    """The examples of all arms. Raises DataError if a file is not as `gathered` makes it."""
    try:
        parts: tuple[ExampleTable | ExampleChart | ExampleImage, ...] = (
            _summary(by_arm),
            _table("class", by_arm, "classes"),
            _sizes(by_arm),
            *_charts(by_arm),
            *_pictures(by_arm),
        )
        images = max(int(content["images"]) for content in by_arm.values())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"examples of another form: {type(error).__name__}: {error}") from error
    statement = (
        f"The winner of each arm, trained on one seed, on {images:,} validation images, with which it was not trained. "
        "An interval is a bootstrap over images for this network: it says how much the value depends on the images, "
        "not whether the arms differ; verdicts are over seeds. Images are the best, the median and the worst by their "
        "own mAP: objects in green, and in orange as many of the best detections, with class and score."
    )
    return Examples(statement, parts)


def _summary(by_arm: Mapping[str, Mapping[str, Any]]) -> ExampleTable:
    rows = []
    for arm, content in by_arm.items():
        low, high = content["interval"]
        rows.append((arm, str(content["metric"]), _percent(content["value"]), f"{_percent(low)} to {_percent(high)}"))
    draws = next(iter(by_arm.values()))["draws"]
    caption = f"Value on the validation images, and the middle 95% of {draws} bootstrap samples of images."
    return ExampleTable(caption, ("arm", "metric", "value", "over images"), tuple(rows), left=2)


def _table(kind: str, by_arm: Mapping[str, Mapping[str, Any]], key: str) -> ExampleTable:
    names = dict.fromkeys(name for content in by_arm.values() for name in content[key])
    head = (kind, *(f"{arm}: {metric}" for arm in by_arm for metric in BY_CLASS))
    rows = [
        (name, *(_percent(value) for content in by_arm.values() for value in content[key].get(name) or (None, None)))
        for name in names
    ]
    return ExampleTable("By class; a class without objects has none and is in no mean.", head, tuple(rows))


def _sizes(by_arm: Mapping[str, Mapping[str, Any]]) -> ExampleTable:
    rows = tuple((size, *(_percent(content["sizes"][size]) for content in by_arm.values())) for size in SIZES)
    caption = "mAP by the size of objects: areas below 32 x 32 pixels, up to 96 x 96, above (COCO's ranges)."
    return ExampleTable(caption, ("size", *by_arm), rows)


def _percent(value: Any) -> str:
    return "–" if value is None else f"{100 * float(value):.1f}%"


def _charts(by_arm: Mapping[str, Mapping[str, Any]]) -> Iterator[ExampleChart]:
    """One for each class, in the order of the baseline."""
    for name in dict.fromkeys(name for content in by_arm.values() for name in content["curves"]):
        curves = {arm: content["curves"][name] for arm, content in by_arm.items() if name in content["curves"]}
        lines = {arm: list(zip(RECALLS, map(float, curve), strict=True)) for arm, curve in curves.items()}
        yield ExampleChart(name, "Precision against recall at IoU 0.5", "Recall", "Precision", lines)


def _pictures(by_arm: Mapping[str, Mapping[str, Any]]) -> Iterator[ExampleImage]:
    """The best of each arm, then the median and the worst: arms next to each other."""
    for rank in zip_longest(*([(arm, each) for each in content["pictures"]] for arm, content in by_arm.items())):
        yield from (_picture(*found) for found in rank if found is not None)


def _picture(arm: str, each: Mapping[str, Any]) -> ExampleImage:
    text = f"{arm}, {each['title']}: {each['name']}, mAP {_percent(each['map'])}, {each['objects']} objects."
    words = f"{each['name']} with {each['objects']} annotated boxes in green and detections of {arm} in orange."
    return ExampleImage(text, base64.b64decode(each["jpeg"], validate=True), words)
