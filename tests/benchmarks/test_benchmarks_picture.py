"""The README's second picture: drawn from the stored summary, which is pooled from a benchmark's results."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from benchmarks.decisions.measures import DIFFERENCES, Outcome, figures
from benchmarks.decisions.picture import HEIGHT, LETTER, PICTURE, WIDTH, Shown, Summary, draw


def test_the_picture_shows_the_summary() -> None:
    assert PICTURE.read_text(encoding="utf-8") == draw(Summary.read())


def outcomes(claims: int, right: int, epochs: int) -> list[Outcome]:
    """Ten replays at each difference."""
    return [
        Outcome(d, number < (right if d else claims), bool(d) and number < right, False, 0.0, {"search": epochs})
        for d in DIFFERENCES
        for number in range(10)
    ]


def results(**policies: tuple[int, int, int]) -> dict[str, Any]:
    rows = [asdict(figures(name, outcomes(*numbers))) for name, numbers in policies.items()]
    as_stored = [row | {"right": _text(row["right"]), "total": _text(row["total"])} for row in rows]
    return {"policies": as_stored}


def _text(by_difference: dict[float, Any]) -> dict[str, Any]:
    """Keys as JSON has them."""
    return {str(key): value for key, value in by_difference.items()}


def test_worlds_are_pooled() -> None:
    found = Summary.of({"one": results(slow=(1, 8, 500), quick=(10, 9, 70)), "other": results(slow=(0, 5, 700))})
    assert found == Summary(("one", "other"), (Shown("quick", 10, 70, 10, 9), Shown("slow", 20, 600, 1, 13)))


def test_labels_stay_inside_and_apart() -> None:
    crowd = [Shown(f"ralr_tune, policy {n}", 200, 300 * 1.15**n, n, 100 + n) for n in range(9)]
    tree = ElementTree.fromstring(draw(Summary(("table, arm",), tuple(crowd))))
    labels = [each for each in tree.iter() if (each.text or "").startswith("policy ")]
    assert len(labels) == 2 * len(crowd)
    boxes = []
    for each in labels:
        x, y = float(each.get("x", "nan")), float(each.get("y", "nan"))
        assert 0 <= x <= WIDTH - LETTER * len(each.text or "")
        assert 0 <= y <= HEIGHT
        boxes.append((x, y))
    near = [(a, b) for n, a in enumerate(boxes) for b in boxes[:n] if abs(a[0] - b[0]) < 40 and abs(a[1] - b[1]) < 10]
    assert near == []
