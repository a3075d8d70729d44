from __future__ import annotations

from collections import Counter
from functools import partial

import pytest

from tests.calibration import __main__ as everything
from tests.calibration.tables import Counted, Promise, Table, scaled, show

FEW_WRONG = Promise(("better", "worse"), 0.05)
OFTEN_SEEN = Promise(("better", "worse"), 0.8, at_least=True)


def row(studies: int, better: float) -> Counted:
    counts = Counter(better=round(better * studies), inconclusive=studies - round(better * studies))
    return Counted(f"{better:g} of them", studies, counts, 0.0, (FEW_WRONG,), {"pairs": "5"})


def table(*shares: float) -> Table:
    columns = {"better or worse": ("better", "worse"), "equivalent": ("equivalent",)}
    return Table("Rows", [partial(row, better=share) for share in shares], columns, 300, more=("pairs",))


@pytest.mark.parametrize(("count", "broken"), [(15, False), (28, False), (29, True)])
def test_an_upper_bound_allows_for_chance_and_no_more(count: int, broken: bool) -> None:
    assert FEW_WRONG.broken(Counted("", 300, Counter(better=10, worse=count - 10), 0.0)) == broken


@pytest.mark.parametrize(("count", "broken"), [(240, False), (218, False), (217, True)])
def test_a_lower_bound_allows_for_chance_and_no_more(count: int, broken: bool) -> None:
    assert OFTEN_SEEN.broken(Counted("", 300, Counter(better=count), 0.0)) == broken


def test_tables_are_markdown_and_name_what_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    assert show([table(0.04), table(0.2)], processes=2) == [
        "0.2 of them: better or worse at most 5%, found 20.0% of 300"
    ]
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "Rows, 300 studies per row"
    assert lines[3] == "|  | better or worse | equivalent | pairs | promised | CPU s |"
    assert lines[5] == "| 0.04 of them | 4.0% | 0.0% | 5 | better or worse at most 5% | 0.0 |"
    assert lines[-1] == "| 0.2 of them | 20.0% | 0.0% | 5 | better or worse at most 5% **broken** | 0.0 |"


def test_the_number_of_studies_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RALR_TUNE_CALIBRATE", raising=False)
    assert (scaled(1000), scaled(300)) == (1000, 300)
    monkeypatch.setenv("RALR_TUNE_CALIBRATE", "50")
    assert (scaled(1000), scaled(300), scaled(10)) == (50, 15, 1)


def test_a_broken_promise_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(everything.verdicts, "TABLES", [])
    monkeypatch.setattr(everything.searches, "TABLE", table(0.2))
    monkeypatch.setattr(everything.recorded, "table", lambda: table(0.04))
    monkeypatch.setattr(everything.importance, "table", lambda names: table(0.04))
    monkeypatch.setattr(everything.recorded_importance, "tables", lambda: [table(0.03), table(0.04)])
    assert everything.main() == 1
    assert capsys.readouterr().err == "error: 0.2 of them: better or worse at most 5%, found 20.0% of 300\n"
    monkeypatch.setattr(everything.searches, "TABLE", table(0.03))
    assert everything.main() == 0
