"""The CSV behind each figure's "data" link: it has the results of the study, and no spreadsheet runs it."""

from __future__ import annotations

import base64
import csv
import io
import math
import zlib
from collections.abc import Mapping

import numpy as np
import pytest
from synthetic_study import make_record

from ralr_tune.analysis.facts import study_facts
from ralr_tune.report.data import Data, csv_text, metric_column, packed
from ralr_tune.report.figures import figures

Rows = list[dict[str, str]]


def parsed(text: str) -> Rows:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.fixture(scope="module")
def tables() -> Mapping[str, Rows]:
    """The parsed data of every figure of a study of two blocks."""
    record = make_record(blocks=2)
    drawn = figures(record, study_facts(record))
    return {figure.name: parsed(csv_text(figure.data)) for figure in drawn if figure.data}


def numbers(rows: Rows, column: str, **where: str) -> list[float]:
    return [float(row[column]) for row in rows if all(row[key] == value for key, value in where.items())]


def test_scores_are_the_confirmed_ones(tables: Mapping[str, Rows]) -> None:
    facts = study_facts(make_record(blocks=2))
    for name, arm in facts.arms.items():
        assert arm.confirm is not None
        own = {"arm": name, "amplification": "as found"}
        assert tuple(numbers(tables["scores"], "test_accuracy_share", **own)) == arm.confirm.values
        assert tuple(numbers(tables["scores"], "seed", **own)) == arm.confirm.seeds
    twin = facts.arms["ralr"].twin
    assert twin is not None
    found = numbers(tables["scores"], "test_accuracy_share", arm="ralr", amplification="off")
    assert tuple(found) == twin.values


def test_importance_has_every_parameter_of_every_arm(tables: Mapping[str, Rows]) -> None:
    facts = study_facts(make_record(blocks=2))
    found = {(row["arm"], row["parameter"]): row for row in tables["importance"]}
    assert set(found) == {(arm, name) for arm, parameters in facts.importance.items() for name in parameters}
    lr = facts.importance["ralr"]["lr"]
    row = found["ralr", "lr"]
    assert (float(row["share_explained"]), float(row["chance_high"])) == (lr.value, lr.null[1])
    assert (row["verdict"], int(row["trials"])) == (lr.verdict, lr.trials)


def test_trials_are_all_finished_ones_with_their_parameters(tables: Mapping[str, Rows]) -> None:
    record = make_record(blocks=2)
    rows = [row for arm in record.arms.values() for row in arm.search()]
    found = {(row["arm"], row["block"], row["trial"]): row for row in tables["parameter-weight_decay"]}
    assert len(found) == len(rows) == 96
    for row in rows:
        own = found[row.arm, str(row.block), str(row.trial)]
        assert float(own["lr"]) == row.params["lr"]
        assert own["outcome"] == row.outcome
        assert own["validation_accuracy_share"] == ("" if row.outcome == "diverged" else repr(row.value))
        assert own["amplify.width"] == (repr(row.params["amplify.width"]) if row.arm == "ralr" else "")


def test_curves_are_every_epoch(tables: Mapping[str, Rows]) -> None:
    record = make_record(blocks=2)
    expected = {
        (str(row.block), str(row.trial), str(epoch.epoch)): epoch.value
        for row in record.arms["ralr"].search()
        for epoch in row.curve
    }
    found = {
        (row["block"], row["trial"], row["epoch"]): float(row["validation_accuracy_share"])
        for row in tables["curves-ralr"]
    }
    assert found == expected


def test_rates_are_those_of_the_epochs(tables: Mapping[str, Rows]) -> None:
    rows = [row for row in tables["rates"] if row["arm"] == "ralr"]
    assert [int(row["epoch"]) for row in rows] == list(range(1, 13))
    judged = make_record(blocks=2).arms["ralr"].stage("judge")
    lr = [float(row["lr"]) for row in rows]
    assert any([epoch.lr for epoch in run.curve] == lr for run in judged)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-300, -5e-324, 1.7976931348623157e308, 2**63, np.float64(0.7), True])
def test_numbers_round_trip(value: float) -> None:
    text = parsed(csv_text(Data("x", ("a",), [(value,)])))[0]["a"]
    assert {"true": 1.0}.get(text) == value or float(text) == value


def test_unknown_values_are_empty_and_non_finite_ones_are_written() -> None:
    row = parsed(csv_text(Data("x", ("a", "b", "c"), [(None, math.nan, -math.inf)])))[0]
    assert (row["a"], row["b"], row["c"]) == ("", "nan", "-inf")


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=cmd|' /C calc'!A0",
        "  =1",
        '=HYPERLINK("http://x","y")',
        "＝1",
    ],
)
def test_no_text_begins_like_a_formula(text: str) -> None:
    written = csv_text(Data("x", (text,), [(text,)]))
    for row in csv.reader(io.StringIO(written, newline="")):
        assert row == [f"'{text}"]


@pytest.mark.parametrize(
    "text", ['a "quoted" word', "a,b", "two\nlines", "two\r\nlines", "'", "ä – 漢", "", "a=b", "a\0b"]
)
def test_other_texts_round_trip(text: str) -> None:
    (_, row) = csv.reader(io.StringIO(csv_text(Data("x", ("a", "b"), [(text, 1)])), newline=""))
    assert row == [text, "1"]


def test_negative_numbers_stay_numbers() -> None:
    assert parsed(csv_text(Data("x", ("a",), [(-0.5,)])))[0]["a"] == "-0.5"


def test_an_unpaired_surrogate_is_replaced() -> None:
    csv_text(Data("x", ("\ud800",), [("\udfff",)])).encode()


def test_packed_is_the_same_text_deflated() -> None:
    data = Data("x", ("a",), [(number / 7,) for number in range(2000)])
    text = packed(data)
    assert zlib.decompress(base64.b64decode(text)).decode() == csv_text(data)
    assert len(text) < 0.7 * len(csv_text(data))


def test_shares_are_called_shares() -> None:
    facts = study_facts(make_record())
    assert metric_column(facts, "best_validation") == "best_validation_accuracy_share"
