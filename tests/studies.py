"""Study files for tests: a small simulated task whose tables can be changed."""

from __future__ import annotations

import tomllib
from typing import Any

import tomli_w

from ralr_tune.search.tasks import Tasks
from ralr_tune.studyfile import StudySpec, parse_study

AMPLIFY = {
    "probability": {"low": 0.05, "high": 0.6},
    "lower": {"low": 1.0, "high": 2.0},
    "width": {"low": 0.0, "high": 4.0},
}

TABLES: dict[str, dict[str, Any]] = {
    "study": {"name": "sim", "baseline": "monotone", "seed": 0},
    "task": {"kind": "simulated", "data": {"optimum": 0.1}},
    "training": {
        "epochs": 4,
        "batch_size": 32,
        "lr": {"low": 1e-3, "high": 1.0, "log": True},
        "weight_decay": {"low": 1e-5, "high": 1e-2, "log": True},
    },
    "schedule": {"name": "cosine"},
    "arms": {"monotone": {}, "ralr": {"amplify": AMPLIFY}},
    "search": {"trials": 4},
    "confirm": {"top": 2, "seeds": 3},
    "storage": {"lease_s": 60},  # no busy machine lets it run out by chance; tests that want that say so
}


def simulated_text(**changes: dict[str, Any]) -> str:
    """TOML of the small simulated study; keys of `changes` replace keys of the table of that name (arms: the table)."""
    tables = {
        name: changes[name] if name == "arms" and name in changes else table | changes.get(name, {})
        for name, table in TABLES.items()
    }
    return tomli_w.dumps(tables)


def budgeted_text(budget: object, **changes: dict[str, Any]) -> str:
    """The same with `search.budget` in place of the trials and the seeds, which `changes` may give."""
    search = {"budget": budget, **changes.pop("search", {})}
    confirm = {"top": 2, **changes.pop("confirm", {})}
    tables = {**tomllib.loads(simulated_text(**changes)), "search": search, "confirm": confirm}
    return tomli_w.dumps(tables)


def simulated(**changes: dict[str, Any]) -> StudySpec:
    """The study of `simulated_text`."""
    return parse_study(simulated_text(**changes))


def loaded_task(spec: StudySpec, *, device: str = "cpu") -> Any:
    """The one task of a study."""
    return Tasks(spec, device=device).of({})
