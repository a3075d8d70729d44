"""The examples of a kind: escaped, and bounded in size."""

from __future__ import annotations

import pytest

from ralr_tune.report.examples import MAX_CELL, MAX_IMAGE_BYTES, MAX_ROWS, examples_html
from ralr_tune.tasks.examples import ExampleImage, Examples, ExampleTable

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"
HOSTILE = "</table><script>alert(1)</script>\" onload='x' \ud800"


def html(*parts: ExampleTable | ExampleImage, statement: str = "What this is.", missing: tuple[str, ...] = ()) -> str:
    return examples_html(Examples(statement, parts), missing)


@pytest.mark.parametrize(
    "part",
    [
        ExampleTable(HOSTILE, (HOSTILE, "n"), ((HOSTILE, "1"),)),
        ExampleImage(HOSTILE, PNG, HOSTILE),
        ExampleImage(HOSTILE, b"<svg onload=alert(1)>", HOSTILE),
    ],
)
def test_all_texts_are_escaped(part: ExampleTable | ExampleImage) -> None:
    text = html(part, statement=HOSTILE, missing=(HOSTILE,))
    assert "<script" not in text
    assert "onload='" not in text
    assert "<svg" not in text
    text.encode("utf-8")


def test_arms_without_examples_are_named() -> None:
    assert "No examples of ralr, other in this folder." in html(missing=("ralr", "other"))


def test_long_tables_and_cells_are_cut() -> None:
    rows = tuple((f"row {number}", "x" * 2 * MAX_CELL) for number in range(MAX_ROWS + 5))
    text = html(ExampleTable("Some.", ("name", "text"), rows))
    assert text.count("<tr>") == 1 + MAX_ROWS
    assert "5 further rows are left out." in text
    assert "x" * (MAX_CELL - 1) + "…" in text
    assert "x" * MAX_CELL not in text


def test_images_are_embedded_up_to_a_size() -> None:
    large = PNG + bytes(MAX_IMAGE_BYTES - 10)
    text = html(
        ExampleImage("one", JPEG, "first"), ExampleImage("two", large, "second"), ExampleImage("three", PNG, "")
    )
    assert text.count("<img src=") == 1
    assert 'src="data:image/jpeg;base64,' in text
    assert "Further images are left out" in text
