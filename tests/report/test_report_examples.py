"""The examples of a kind: escaped, and bounded in size."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from ralr_tune.report.examples import (
    MAX_CELL,
    MAX_CHARTS,
    MAX_IMAGE_BYTES,
    MAX_ROWS,
    ShownExamples,
    example_figures,
    examples_html,
)
from ralr_tune.report.style import arm_styles
from ralr_tune.tasks.examples import ExampleChart, ExampleImage, Examples, ExampleTable

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"
Part = ExampleTable | ExampleChart | ExampleImage
HOSTILE = "</table><script>alert(1)</script>\" onload='x' \ud800"


class Elements(HTMLParser):
    """The names of all elements and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}


STYLES = arm_styles(["monotone", HOSTILE])


def html(*parts: Part, statement: str = "What this is.", missing: tuple[str, ...] = ()) -> str:
    shown = ShownExamples(Examples(statement, parts), missing)
    return examples_html("digits", shown, example_figures(shown, STYLES))


def chart(title: str = "cat", points: tuple[tuple[float, float], ...] = ((0.0, 1.0), (1.0, 0.5))) -> ExampleChart:
    return ExampleChart(title, title, title, title, {"monotone": points, HOSTILE: points})


@pytest.mark.parametrize(
    "part",
    [
        ExampleTable(HOSTILE, (HOSTILE, "n"), ((HOSTILE, "1"),)),
        chart(HOSTILE),
        ExampleImage(HOSTILE, PNG, HOSTILE),
        ExampleImage(HOSTILE, b"<svg onload=alert(1)>", HOSTILE),
    ],
)
def test_all_texts_are_escaped(part: Part) -> None:
    text = html(part, statement=HOSTILE, missing=(HOSTILE,))
    found = Elements()
    found.feed(text)
    assert found.names.isdisjoint({"script", "svg"})
    assert "onload" not in found.attributes
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


def test_charts_are_figures_in_the_colours_of_the_arms() -> None:
    [drawn] = example_figures(ShownExamples(Examples("Some.", (chart(),))), STYLES)
    assert [line.line.color for line in drawn.plot.data] == [style.colour for style in STYLES.values()]
    assert list(drawn.plot.data[0].y) == [1.0, 0.5]
    assert drawn.data is not None
    assert drawn.data.rows[:2] == [("monotone", 0.0, 1.0), ("monotone", 1.0, 0.5)]


def test_charts_stand_in_their_place_up_to_a_number() -> None:
    table = ExampleTable("A table.", ("name",), (("x",),))
    text = html(chart(), table, *[chart()] * MAX_CHARTS)
    assert text.index('id="example-1"') < text.index("A table.") < text.index('id="example-2"')
    assert text.count('class="plot"') == MAX_CHARTS
    assert "1 further charts are left out." in text
