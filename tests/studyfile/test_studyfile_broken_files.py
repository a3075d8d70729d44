"""Thousands of broken files: a study or a StudyFileError, never anything else, and quickly (see tests/fuzz.py)."""

from __future__ import annotations

import math
import random
import tomllib
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ralr_tune.errors import StudyFileError
from ralr_tune.schedules.curves import CURVES, OPTIONS
from ralr_tune.studyfile import StudySpec, load_study_file, parse_study
from ralr_tune.studyfile.changes import changes
from ralr_tune.studyfile.optimizer_keys import OPTIMIZERS
from ralr_tune.studyfile.values import Choice, Domain
from tests.fuzz import AT_RANDOM, cases, chance, damaged, soon

EXAMPLES = cases(1000)

many = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not AT_RANDOM,
    database=None,
    suppress_health_check=list(HealthCheck),
)
fewer = settings(many, max_examples=EXAMPLES // 4)
"""For slower tests."""

RIVALS = """
[study]
name = "rivals"
baseline = "plain"

[task]
kind = "simulated"
data = { optimum = 0.1, noise = 0.01 }

[training]
epochs = { choices = [5, 10] }
batch_size = { low = 16, high = 64, step = 16 }
lr = 0.1
optimizer = { choices = ["sgd", "adamw"] }
nesterov = true
momentum = 0.9
betas = { choices = [[0.9, 0.999], [0.8, 0.9]] }

[arms.plain]

[arms.cycle]
schedule = { name = "one_cycle", peak_at = { low = 0.1, high = 0.5 }, warmup = 0.05 }

[arms.noise]
noise = { amplitude = 0.5, std = { low = 0.1, high = 1.0 }, law = "normal" }
schedule = { name = { choices = ["step", "cyclic"] }, step_size = 2, period = 3 }

[arms.ralr]
amplify = { probability = 0.2, width = { choices = [1.0, 2.0] }, law = { choices = ["uniform", "loguniform"] } }
training = { epochs = { low = 4, high = 8 }, weight_decay = 1e-4 }

[search]
trials = 9
sampler = "qmc"
pruner_options = { n_startup_trials = 3 }
start = [{ optimizer = "sgd" }, { "schedule.name" = "step", "amplify.width" = 2.0 }]
"""

BASES = ((Path(__file__).parent / "design.toml").read_text(encoding="utf-8"), RIVALS)
KEYS = sorted(
    {
        *parse_study(BASES[0]).parameters,
        "low",
        "high",
        "log",
        "step",
        "choices",
        "kind",
        "source",
        "path",
        "start",
        "seed",
        "training",
    }
)
WORDS = sorted({*OPTIMIZERS, *CURVES, *KEYS, "uniform", "normal", "step", "tpe", "none", "folder", "arrays"})
NUMBERS = (
    0,
    1,
    2,
    3,
    -1,
    0.5,
    0.0,
    -0.0,
    1e-320,
    1e308,
    2**31,
    2**63 - 1,
    2**64,
    10**300,
    math.nan,
    math.inf,
    -math.inf,
)

scalars = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(WORDS),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.text(max_size=8),
    st.dates(),
    st.times(),
    st.datetimes(),
)
keys = st.sampled_from(KEYS) | st.text(max_size=5)
ranges = st.fixed_dictionaries(
    {"low": scalars, "high": scalars}, optional={"log": st.booleans() | scalars, "step": scalars, "choices": scalars}
)
choices = st.fixed_dictionaries({"choices": st.lists(scalars, max_size=4)}, optional={"low": scalars})
values = st.one_of(
    scalars,
    ranges,
    choices,
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=6,
    ),
)


def places(table: Any) -> Iterator[tuple[Any, Any]]:
    """Every (table or list, key or index) of a tree."""
    for key, value in list(table.items() if isinstance(table, dict) else enumerate(table)):
        yield table, key
        if isinstance(value, dict | list):
            yield from places(value)


def delete(raw: Any, draw: st.DrawFn) -> None:
    table, key = draw(st.sampled_from(list(places(raw)) or [({"": 0}, "")]))
    del table[key]


def replace(raw: Any, draw: st.DrawFn) -> None:
    table, key = draw(st.sampled_from(list(places(raw)) or [(raw, "study")]))
    table[key] = draw(values)


def rename(raw: Any, draw: st.DrawFn) -> None:
    table, key = draw(st.sampled_from(list(places(raw)) or [({"": 0}, "")]))
    if isinstance(table, dict):
        table[draw(keys)] = table.pop(key)


def insert(raw: Any, draw: st.DrawFn) -> None:
    tables = [raw, *(table[key] for table, key in places(raw) if isinstance(table[key], dict))]
    draw(st.sampled_from(tables))[draw(keys)] = draw(values)


def copy(raw: Any, draw: st.DrawFn) -> None:
    """The value of one place copied to another."""
    found = list(places(raw)) or [({"": 0}, "")]
    (source, name), (table, key) = draw(st.sampled_from(found)), draw(st.sampled_from(found))
    table[key] = deepcopy(source[name])


@st.composite
def broken_tables(draw: st.DrawFn) -> str:
    """A study file with one to four of its values deleted, renamed, replaced, ...; still valid TOML."""
    raw: dict[str, Any] = tomllib.loads(draw(st.sampled_from(BASES)))
    for change in draw(st.lists(st.sampled_from([delete, replace, rename, insert, copy]), min_size=1, max_size=4)):
        change(raw, draw)
    return tomli_w.dumps(raw)


@st.composite
def broken_texts(draw: st.DrawFn) -> str:
    """A study file with pieces of its text deleted, doubled or inserted: rarely valid TOML."""
    text = draw(st.sampled_from(BASES))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 40)))
        piece = draw(
            st.sampled_from(["", "", text[start:end] * 2, "\n" + text[start:end], *"[]{}=\"'.,\n#"])
            | st.text(max_size=9)
        )
        text = text[:start] + piece + text[end:]
    return text


def assert_study_or_problems(text: str) -> StudySpec | None:
    with soon():
        try:
            return parse_study(text, source="x.toml")
        except StudyFileError as error:
            assert_told(error.problems)
    return None


def assert_told(problems: Sequence[str], source: str = "x.toml") -> None:
    assert problems
    assert all(line.isprintable() and line.startswith(f"{source}: ") and len(line) > 12 for line in problems)
    assert len(set(problems)) == len(problems)


def assert_meaningful(spec: StudySpec) -> None:
    """Everything that a study offers can be read."""
    assert parse_study(spec.text).fingerprint == spec.fingerprint
    assert changes(spec, spec) == []
    assert spec.study.baseline in spec.arms
    assert spec.task.kind in {"classification", "simulated"}
    columns = spec.columns()
    for arm in spec.arms:
        assert spec.space(arm).keys() <= columns.keys()
        spec.configuration(arm, {name: low(domain) for name, domain in spec.space(arm).items()}).learning_rate(
            1, seed=0
        )


def low(domain: Domain) -> Any:
    return domain.describe()["choices"][0] if isinstance(domain, Choice) else domain.low


@many
@given(broken_tables())
def test_broken_tables(text: str) -> None:
    spec = assert_study_or_problems(text)
    if spec is not None:
        assert_meaningful(spec)


@many
@given(broken_texts() | st.text(max_size=30))
def test_broken_texts(text: str) -> None:
    spec = assert_study_or_problems(text)
    if spec is not None:
        assert_meaningful(spec)


def test_broken_bytes(tmp_path: Path) -> None:
    """As from a disk: not UTF-8, NULs, truncated files."""
    draw, path = chance(), tmp_path / "x.toml"
    for _ in range(EXAMPLES):
        path.write_bytes(damaged(draw.choice(BASES).encode(), draw))
        with soon():
            try:
                load_study_file(path)
            except StudyFileError as error:
                assert_told(error.problems, str(path))


# ---------------------------------------------------------------- accepted studies can be trained

shares = st.sampled_from([0.05, 0.1, 0.3, 0.5, 0.8, 0.95])
epochs = st.sampled_from([1, 2, 3, 5, 10])
factors = st.sampled_from([1e-6, 0.01, 0.5, 1.0])


def searched(value: Any, step: Any = None) -> Any:
    """One of the three forms of a number."""
    range_of = st.tuples(value, value).filter(lambda ends: ends[0] != ends[1]).map(sorted)
    tables = range_of.map(lambda ends: {"low": ends[0], "high": ends[1]} | ({"step": step} if step else {}))
    logs = range_of.filter(lambda ends: ends[0] > 0).map(lambda ends: {"low": ends[0], "high": ends[1], "log": True})
    return value | tables | (tables if step else logs) | chosen(value)


def chosen(value: Any) -> Any:
    return st.lists(value, min_size=1, max_size=3, unique_by=str).map(lambda several: {"choices": several})


lengths = searched(shares) | searched(epochs, step=1) | st.just({"choices": [0, 0.3, 2]})
positions = st.lists(st.one_of(shares, epochs), min_size=1, max_size=3)
OPTION = {
    "milestones": positions | chosen(positions),
    "step_size": lengths,
    "gamma": searched(factors),
    "power": searched(st.sampled_from([0.1, 1.0, 9.0])),
    "end_factor": searched(shares),
    "period": lengths,
    "multiplier": searched(st.integers(1, 4)),
    "low_factor": searched(shares),
    "mode": st.sampled_from(["triangular", "triangular2"]),
    "peak_at": lengths,
    "div_factor": searched(st.sampled_from([1.0, 25.0, 1e300])),
    "final_div_factor": searched(st.sampled_from([1.0, 1e4, 1e300])),
}
granularities = st.sampled_from(["epoch", "step"])
windows = st.sampled_from([[0.0, 1.0], [0.25, 0.5], [0.9, 1.0]])
amplifications = st.fixed_dictionaries(
    {"probability": searched(st.sampled_from([0.0, 0.2, 1.0])), "width": searched(st.sampled_from([0.0, 1.0, 1e6]))},
    optional={
        "lower": searched(st.sampled_from([1.0, 2.0, 1e6])),
        "law": chosen(st.sampled_from(["uniform", "loguniform"])),
        "granularity": chosen(granularities),
        "window": windows | chosen(windows),
    },
)
noises = st.fixed_dictionaries(
    {},
    optional={
        "amplitude": searched(st.sampled_from([0.01, 0.5, 0.99])),
        "std": searched(st.sampled_from([0.001, 1.0, 1000.0])),
        "law": st.just("normal") | chosen(st.sampled_from(["normal", "uniform"])),
        "granularity": granularities,
    },
)


@st.composite
def schedules(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(sorted(CURVES)), min_size=1, max_size=3, unique=True))
    needed = {"step": {"step_size"}, "cyclic": {"period"}}
    table: dict[str, Any] = {"name": names[0] if len(names) == 1 else {"choices": names}}
    for key in sorted(frozenset().union(*(OPTIONS[name] for name in names))):
        if any(key in needed.get(name, ()) for name in names) or draw(st.booleans()):
            table[key] = draw(OPTION[key])
    optional = {"warmup": lengths, "warmup_factor": searched(factors), "granularity": granularities}
    table.update(draw(st.fixed_dictionaries({}, optional=optional)))
    return table


arms = st.fixed_dictionaries({}, optional={"schedule": schedules()}).flatmap(
    lambda arm: (
        st.just(arm)
        | amplifications.map(lambda table: arm | {"amplify": table})
        | noises.map(lambda table: arm | {"noise": table})
    )
)
studies = st.fixed_dictionaries(
    {
        "study": st.just({"name": "x", "baseline": "a"}),
        "task": st.just({"kind": "simulated"}),
        "training": st.fixed_dictionaries(
            {
                "epochs": searched(epochs),
                "batch_size": st.just(1),
                "lr": searched(st.sampled_from([1e-300, 1e-3, 1.0, 1e6])),
            }
        ),
        "schedule": schedules(),
        "arms": st.fixed_dictionaries({"a": arms, "b": arms}),
        "search": st.just({"trials": 1}),
    }
)


def corner(domain: Domain, chance: random.Random) -> Any:
    if isinstance(domain, Choice):
        return chance.choice(domain.describe()["choices"])
    whole = isinstance(domain.low, int)
    inside = chance.randint(domain.low, domain.high) if whole else chance.uniform(domain.low, domain.high)
    ends = [domain.low, domain.high]
    return chance.choice(ends if domain.step is not None else [*ends, inside])


def test_every_configuration_of_an_accepted_study_can_be_trained() -> None:
    """Every corner of an accepted space has a finite rate: no trial fails for a reason that the check could find."""
    tried = 0

    @fewer
    @given(studies, st.randoms(use_true_random=False))
    def sample(tables: dict[str, Any], chance: random.Random) -> None:
        nonlocal tried
        spec = assert_study_or_problems(tomli_w.dumps(tables))
        if spec is None:
            return
        tried += 1
        for arm in spec.arms:
            point = {name: corner(domain, chance) for name, domain in spec.space(arm).items()}
            assert all(spec.space(arm)[name].contains(value) for name, value in point.items())
            configuration = spec.configuration(arm, point)
            trace = configuration.learning_rate(steps_per_epoch=2, seed=chance.getrandbits(48)).trace()
            assert trace.shape == (configuration.training.epochs, 2)
            assert np.isfinite(trace).all()
            assert (trace >= 0).all()

    sample()
    assert tried > EXAMPLES / 20, "most of the files were refused: nothing was tried"
