from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ralr_tune.errors import UsageError
from ralr_tune.kinds.classification.section import AUGMENTATIONS
from ralr_tune.records import Generation, Identity, SourceFile
from ralr_tune.report.export import FORMS, exported, render
from ralr_tune.schedules.curves import OPTIONS
from ralr_tune.studyfile.exported import Exported, parse_exported
from ralr_tune.studyfile.optimizer_keys import OPTIMIZERS
from tests.exports import Records, configuration
from tests.studies import simulated


@pytest.fixture
def records() -> Records:
    """Two arms of three trials; ralr's trial 1 is judged and tested, and so is its twin."""
    made = Records(simulated())
    made.search("monotone", 0.90, 0.91, 0.92)
    made.search("ralr", 0.90, 0.95, 0.94)
    made.fresh("ralr", "judge", 1, 0.92, 0.94, 0.96)
    made.fresh("ralr", "judge", 1, 0.1, 0.1, 0.1, role="twin")
    made.fresh("ralr", "judge", 2, 0.2, 0.2, 0.2)
    made.fresh("ralr", "test", 1, 0.91, 0.91, 0.91)
    return made


def made(records: Records, arm: str = "ralr", trial: int = 1) -> Exported:
    row = next(row for row in records.rows if (row.arm, row.stage, row.trial) == (arm, "search", trial))
    return exported(records.record(), records.spec, arm, row)


def test_a_trial_with_its_full_provenance(records: Records) -> None:
    found = made(records)
    row = records.rows[4]
    assert found.configuration() == records.spec.configuration("ralr", row.params)
    assert found.task == records.spec.task
    where = found.provenance
    assert (where.study, where.arm, where.block, where.trial) == ("sim", "ralr", 1, 1)
    assert (where.metric, where.value, where.study_seed, where.seed) == ("accuracy", 0.95, 0, row.seed)
    assert where.fingerprint == records.spec.fingerprint
    assert where.created == date(2023, 11, 14)
    assert where.packages == {"torch": "2.15.0", "python": "3.11.7"}


def test_files_that_the_trials_read_are_named_by_their_hash(records: Records) -> None:
    files = (SourceFile("task.weights", "weights a.pt", ("0f",)), SourceFile("task.pretrained", "weights b.pth"))
    record = replace(records.record(), generations=(Generation(1, 0.0, Identity(files=files)),))
    assert exported(record, records.spec, "ralr", records.rows[4]).provenance.files == {"weights a.pt": ("0f",)}


def test_the_scores_are_those_of_this_configuration(records: Records) -> None:
    where = made(records).provenance
    assert where.confirmed is not None
    assert where.confirmed.mean == pytest.approx(0.94)
    assert where.confirmed.std == pytest.approx(0.02)
    assert where.confirmed.seeds == (70, 71, 72)
    assert where.tested is not None
    assert where.tested.mean == pytest.approx(0.91)
    assert made(records, trial=0).provenance.confirmed is None
    assert made(records, arm="monotone").provenance.tested is None


def test_one_seed_has_no_spread(records: Records) -> None:
    records.fresh("monotone", "judge", 2, 0.9)
    confirmed = made(records, arm="monotone", trial=2).provenance.confirmed
    assert confirmed is not None
    assert confirmed.std is None


def test_the_file_depends_only_on_what_is_stored(records: Records) -> None:
    assert render(made(records), "toml") == render(made(records), "toml")


def test_a_trial_without_a_value_is_refused(records: Records) -> None:
    records.add("ralr", "search", 3, None, state="held", outcome=None)
    with pytest.raises(ValueError, match="is held; allowed: a complete search row"):
        made(records, trial=3)


# ---------------------------------------------------------------- the forms

PLAIN = st.one_of(st.text(max_size=8), st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False))
KEY = st.text(max_size=4).filter(lambda key: key not in ("low", "high"))
"""Of a table that is one value: with `low` or `high`, it would be a range."""
OPTION = st.one_of(PLAIN, st.booleans(), st.lists(PLAIN, max_size=3), st.dictionaries(KEY, PLAIN))
MODEL = st.text().filter(lambda name: ":" not in name) | st.sampled_from(["torchvision:resnet18", "nets.own:Net"])
"""Any name of a registry to come, and both forms with a colon; a colon elsewhere is no import path."""
POSITIVE = st.floats(1e-12, 1e6)
SHARE = st.floats(0, 0.999)
LENGTHS = st.integers(1, 7)
CURVES: dict[str, dict[str, Any]] = {
    "milestones": st.lists(LENGTHS, min_size=1, max_size=3), "step_size": LENGTHS, "period": LENGTHS,
    "gamma": st.floats(0.01, 1), "power": st.floats(0.1, 5), "end_factor": st.floats(0, 1), "peak_at": LENGTHS,
    "multiplier": LENGTHS, "low_factor": st.floats(0, 1), "div_factor": st.floats(1, 99),
    "final_div_factor": st.floats(1, 99), "mode": st.just("exp_range"),
}  # fmt: skip
WARM_UP = {"inverse_sqrt": {"warmup": 0.25}}
"""The curve that needs one."""
OPTIMIZER_OPTIONS: dict[str, Any] = {
    "betas": st.tuples(SHARE, SHARE).map(list), "nesterov": st.just(False), "amsgrad": st.booleans(),
    "centered": st.booleans(), "decoupled_weight_decay": st.booleans(), "eps": POSITIVE, "t0": POSITIVE,
    "beta2_decay": st.floats(-1, 0), "d": st.floats(1, 9), "ns_steps": st.integers(1, 9), "fallback_factor": POSITIVE,
    "adjust_lr_fn": st.just("original"),
}  # fmt: skip


@st.composite
def options_of(draw: st.DrawFn, names: frozenset[str], known: dict[str, Any]) -> dict[str, Any]:
    return {name: draw(known.get(name, SHARE)) for name in sorted(names)}


@st.composite
def data_tables(draw: st.DrawFn) -> dict[str, Any]:
    source = draw(st.sampled_from(["digits", "torchvision", "folder", "arrays"]))
    own = {"torchvision": "dataset", "folder": "path", "arrays": "path"}
    data: dict[str, Any] = {"source": source}
    if source in own:
        data[own[source]] = draw(st.text())
    if draw(st.booleans()):
        data["classes"] = draw(st.lists(st.one_of(st.text(), st.integers(0, 99)), min_size=2, max_size=4))
        data["limit"] = draw(st.integers(1, 10**6))
    return data


@st.composite
def configurations(draw: st.DrawFn) -> Exported:
    optimizer = draw(st.sampled_from(sorted(OPTIMIZERS)))
    curve = draw(st.sampled_from(sorted(OPTIONS)))
    tables: dict[str, Any] = {
        "task": {
            "data": draw(data_tables()),
            "model": draw(MODEL),
            "model_options": draw(st.dictionaries(st.text(max_size=6), OPTION, max_size=3)),
        },
        "training": {
            "lr": draw(POSITIVE),
            "weight_decay": draw(POSITIVE),
            "optimizer": optimizer,
            "augment": draw(st.lists(st.sampled_from(AUGMENTATIONS), max_size=3, unique=True)),
            "clip_norm": draw(st.none() | POSITIVE),
            "channels_last": draw(st.just("auto") | st.booleans()),
            "options": draw(options_of(OPTIMIZERS[optimizer], OPTIMIZER_OPTIONS)),
        },
        "schedule": {"name": curve, "options": draw(options_of(OPTIONS[curve], CURVES)), **WARM_UP.get(curve, {})},
        "provenance": {
            "value": draw(st.floats(-1e9, 1e9)),
            "confirmed": draw(st.none() | st.just({"mean": 0.5, "std": 1e-7, "seeds": [1, 2**47]})),
            "packages": draw(st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=2)),
        },
    }
    perturbed = draw(st.sampled_from(["amplify", "noise", None]))
    if perturbed == "amplify":
        tables["amplify"] = {"probability": draw(SHARE), "width": draw(SHARE), "window": [draw(SHARE), 1.0]}
    elif perturbed == "noise":
        tables["noise"] = {"std": draw(st.floats(0.1, 9)), "granularity": "step"}
    return configuration(**tables)


@settings(deadline=None)
@given(configurations())
def test_toml_round_trips(made: Exported) -> None:
    assert parse_exported(render(made, "toml")) == made


@settings(deadline=None)
@given(configurations())
def test_every_form_says_the_same(made: Exported) -> None:
    tables = tomllib.loads(render(made, "toml"))
    assert yaml.safe_load(render(made, "yaml")) == tables
    assert json.loads(render(made, "json")) == json.loads(json.dumps(tables, default=str))


@pytest.mark.parametrize("lr", [1e-3, 1e-5, 1e-12, 1.0, 3e4])
def test_numbers_stay_numbers(lr: float) -> None:
    """PyYAML reads 1e-3 as a text."""
    made = configuration(training={"lr": lr, "weight_decay": lr})
    for text, read in ((render(made, "yaml"), yaml.safe_load), (render(made, "toml"), tomllib.loads)):
        assert read(text)["training"]["lr"] == lr
        assert isinstance(read(text)["training"]["weight_decay"], float)


def test_toml_is_readable() -> None:
    made = configuration(
        schedule={"name": "multistep", "options": {"milestones": [0.5, 6]}}, amplify={"probability": 0.3, "width": 2.0}
    )
    lines = render(made, "toml").splitlines()
    assert lines[0] == "# Found by ralr_tune: study digits, arm ralr, trial 17."
    assert lines[2].endswith("python -m ralr_tune train THIS_FILE")
    assert "milestones = [0.5, 6]" in lines
    assert "augment = []" in lines
    tables = [line for line in lines if line.startswith("[")]
    assert tables == [
        "[task]",
        "[task.data]",
        "[training]",
        "[schedule]",
        "[schedule.options]",
        "[amplify]",
        "[provenance]",
    ]


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(UsageError, match="--format yam: did you mean 'yaml'"):
        render(configuration(), "yam")
    assert FORMS == ("toml", "json", "yaml", "python")
