"""The tables of reference/study_file.md, from the models and the JSON schema that `check` uses."""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, TypeAdapter

from ralr_tune.bounds import BOUNDS, Bounds
from ralr_tune.child.section import MetricTable
from ralr_tune.kinds.classification.section import ArraysData, DigitsData, FolderData, TorchvisionData
from ralr_tune.kinds.detection.section import CocoData, DetectionTraining, VocData
from ralr_tune.kinds.simulated.section import Effect, SimulatedData
from ralr_tune.kinds.translation import section as translation
from ralr_tune.schedules.curves import CURVES, OPTIONS
from ralr_tune.studyfile import models, registry
from ralr_tune.studyfile.budgets import SplitSection
from ralr_tune.studyfile.kind import Kind
from ralr_tune.studyfile.optimizer_keys import OptimizerTable
from ralr_tune.studyfile.optimizers import OPTIMIZER_SPECS
from ralr_tune.studyfile.sections import (
    AmplifySection,
    ArmSection,
    ConfirmSection,
    NoiseSection,
    ScheduleSection,
    SearchSection,
    StorageSection,
)

STUDIES = Path(__file__).parents[2] / "studies"

EXAMPLES: Mapping[str, Any] = {
    "betas": [0.9, 0.999],
    "eps": 1e-8,
    "lambd": 1e-4,
    "beta2_decay": -0.8,
    "d": 1.0,
    "ns_steps": 5,
    "adjust_lr_fn": "match_rms_adamw",
    "fallback_factor": 0.015,
    "optimizer_options": {"betas": [0.9, 0.99]},
    "optimizers": {"adamw": {"lr": {"low": 1e-4, "high": 1e-2, "log": True}}},
    "alpha": 0.99,
    "t0": 1e6,
    "step_size": 10,
    "start_from": "digits",
    "period": 0.25,
    "milestones": [0.5, 0.75],
    "mode": "triangular2",
    "clip_norm": 1.0,
    "ema_decay": 0.999,
    "weight_decay_schedule": "cosine",
    "weight_decay_end": {"low": 1e-3, "high": 0.5, "log": True},
    "weight_decay_follows": {"choices": ["rate", "base"]},
    "mixup_alpha": {"choices": [0.2, 1.0]},
    "rand_augment_magnitude": {"low": 3, "high": 15},
    "max_pixels": 200_000_000,
    "weights": "my_backbone.safetensors",
    "limit": 5000,
    "classes": ["cat", "dog"],
    "layout": "NCHW",
    "upper": {"low": 2.0, "high": 5.0},
    "url": "postgresql://me@db.example.org/tuning",
    "noise": {"amplitude": {"low": 0.1, "high": 0.9}},
    "schedule": {"name": "constant"},
    "training": {"epochs": 30},
    "sampler_options": {"n_startup_trials": 8},
    "pruner_options": {"n_warmup_steps": 3},
    "model_options": {"width": {"choices": [16, 32]}},
    "effects": {"weight_decay": {"best": 1e-4, "loss": 0.02, "log": True}},
    "best": 1e-4,
    "loss": 0.02,
    "multiplier": 2,
    "div_factor": 25.0,
    "final_div_factor": 1e4,
    "size": 128,
    "data": {},
    "lr_decay": 0.01,
    "FolderData.path": "my_images",
    "VocData.path": "my_boxes",
    "CocoData.path": "my_boxes",
    "CocoData.source": "coco",
    "one_based": False,
    "box_format": "xyxy",
    "DetectionSection.kind": "detection",
    "DetectionSection.model": "small_fcos",
    "DetectionTraining.augment": ["flip", "scale_jitter"],
    "backbone": "resnet18",
    "fpn_channels": 64,
    "head_convs": 2,
    "min_size": 160,
    "train_sizes": [128, 192],
    "StudySection.name": "my_images",
    "SimulatedSection.kind": "simulated",
    "momentum_decay": 0.004,
    "TranslationSection.kind": "translation",
    "TranslationSection.languages": ["en", "de"],
    "TranslationSection.data": {"source": "folder", "path": "text"},
    "VocabularyTable.model": "joint.model",
    "FilesData.path": "data/multi30k",
    "FilesData.train": ["train"],
    "FilesData.validation": "val",
    "FilesData.test": "test_2016_flickr",
    "TsvData.source": "tsv",
    "TsvData.path": "text",
    "TsvData.train": ["train.tsv"],
    "TsvData.validation": "validation.tsv",
    "TsvData.test": "test.tsv",
    "TsvData.columns": [2, 3],
    "epoch_metrics": {"loss": "minimize"},
    "CommandSection.kind": "command",
    "CommandSection.metric": {"name": "accuracy", "direction": "maximize", "unit": "share"},
    "FunctionSection.kind": "function",
    "FunctionSection.metric": {"name": "accuracy", "direction": "maximize", "unit": "share"},
    "target": "my_training:train",
    "command": ["python", "train.py", "--lr", "{lr}", "{nesterov:flag}"],
    "resume": ["--resume", "{checkpoint}"],
    "test": ["--test-only"],
    "files": ["train.py", "src/**/*.py"],
    "params": {"dropout": {"low": 0.0, "high": 0.5}},
    "variables": ["SLURM_TMPDIR"],
    "report_timeout": 600.0,
    "MetricTable.name": "accuracy",
    "direction": "maximize",
    "worst": 100.0,
    "budget": "12 device hours",
    "SplitSection.epochs": 600,
    "SplitSection.trials": 22,
    "SplitSection.seeds": 8,
}
"""Values for keys that no shipped study uses, or uses with another meaning; a name may be MODEL.KEY."""


def text() -> str:
    return "".join(sections())


def sections() -> Iterator[str]:
    kinds = {name: registry.find(name) for name in registry.BUILT_IN}
    classification = kinds["classification"]
    yield table("[study]", models.study_file(classification).model_fields["study"].annotation)
    yield "\n`metric` by kind of task (the first is the default):\n\n"
    yield rows(("kind", "metrics"), ((f"`{name}`", metrics_of(kind)) for name, kind in kinds.items()))
    for name, kind in kinds.items():
        yield table(f'[task], kind = "{name}"', kind.section)
    for source in (FolderData, TorchvisionData, ArraysData, DigitsData):
        yield table(f'task.data, source = "{source.model_fields["source"].annotation.__args__[0]}"', source)
    for source in (VocData, CocoData):
        name = source.model_fields["source"].annotation.__args__[0]
        yield table(f'task.data of detection, source = "{name}"', source)
    for text in (translation.FilesData, translation.TsvData, translation.FolderData):
        yield table(f'task.data of translation, source = "{text.model_fields["source"].annotation.__args__[0]}"', text)
    yield table("task.vocabulary of translation", translation.VocabularyTable)
    yield table("task.metric of the command and function kinds", MetricTable)
    yield table("task.data of the simulated kind", SimulatedData)
    yield table("task.data.effects.NAME", Effect)
    yield training(classification)
    yield table("[training] of the detection kind, besides the keys that all kinds share", DetectionTraining)
    yield table("[training.optimizers.NAME]", OptimizerTable)
    yield table("[schedule]", ScheduleSection, prefix="schedule.")
    yield "\nBase curves and their own options:\n\n"
    yield rows(("name", "options"), ((f"`{name}`", ", ".join(curve_options(name))) for name in CURVES))
    yield table("[arms.NAME]", ArmSection)
    yield table("amplify", AmplifySection, prefix="amplify.")
    yield table("noise", NoiseSection, prefix="noise.")
    yield table("[search]", SearchSection)
    yield table("[confirm]", ConfirmSection)
    yield table("[storage]", StorageSection)
    yield table("[split]", SplitSection)


def metrics_of(kind: Kind) -> str:
    return code(kind.metrics) if kind.metrics else "the one in `task.metric`"


def training(kind: Kind) -> str:
    defaults = {name: field.get_default() for name, field in models.training_config(kind).model_fields.items()}
    keys = models.study_file(kind).model_fields["training"].annotation
    made = table("[training]", keys, documented=(kind.training,), defaults=defaults)
    optimizers = ((f"`{name}`", f"`{spec.torch_name}`", code(sorted(spec.options))) for name, spec in specs())
    return f"{made}\nOptimizers and their own options; other defaults are torch's:\n\n" + rows(
        ("optimizer", "in torch.optim", "options"), optimizers
    )


def specs() -> Iterable[tuple[str, Any]]:
    return OPTIMIZER_SPECS.items()


def curve_options(name: str) -> Iterator[str]:
    for field in fields(CURVES[name]):
        if field.name in OPTIONS[name]:
            yield f"`{field.name}` ({'required' if field.default is MISSING else shown(field.default)})"


def table(
    title: str,
    model: Any,
    *,
    prefix: str = "",
    documented: tuple[type[BaseModel], ...] = (),
    defaults: Mapping[str, Any] | None = None,
) -> str:
    """A heading, what the table is for, and a row for each key."""
    schema = model.model_json_schema()
    meanings = meanings_of(model, *documented)
    body = []
    for key, field in model.model_fields.items():
        row = BOUNDS.get(prefix + key)
        meaning = sentence(meanings.get(key) or (of_row(row) if row else ""))
        if not meaning:
            raise ValueError(f"{model.__name__}.{key}: give it a docstring; the reference of the study file shows it")
        default = (defaults or {}).get(key, field.get_default(call_default_factory=True))
        needed = "required" if field.is_required() else shown(default)
        body.append(
            (f"`{key}`", meaning, allowed(schema["properties"][key], schema), needed, example(model, key, default))
        )
    head = ("key", "meaning", "allowed", "default", "example")
    return f"\n## {title}\n\n{about(model, title)}{rows(head, body)}"


def about(model: type[BaseModel], title: str) -> str:
    """The first paragraph of a model's docstring, without the name of the table."""
    described = " ".join((inspect.getdoc(model) or "").partition("\n\n")[0].split())
    text = re.sub(r"^\[[^:]*: ", "", described)
    return "" if text.startswith("[") else f"{sentence(text)}.\n\n"


def of_row(row: Bounds) -> str:
    return f"{row.unit} {row.meaning}" if row.meaning.startswith("of ") else row.meaning


def sentence(text: str) -> str:
    """Without references to the code, and with a capital letter unless it starts with a name."""
    short = re.sub(r" \(see [^)]*\)", "", text).replace("None:", "left out:").rstrip(".")
    return short if re.match(r"\w+_", short) else short[:1].upper() + short[1:]


def rows(head: tuple[str, ...], body: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *(tuple(cell.replace("|", "\\|") for cell in line) for line in body)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def meanings_of(*classes: type[BaseModel]) -> dict[str, str]:
    """The docstrings below the keys of a model, those of its bases included."""
    found: dict[str, str] = {}
    for cls in (base for each in classes for base in reversed(each.__mro__)):
        if cls.__module__.startswith("ralr_tune") and cls.__qualname__ in inspect.getsource(inspect.getmodule(cls)):
            found |= docstrings(cls)
    return found


def docstrings(cls: type) -> dict[str, str]:
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError):  # made by pydantic at run time: its bases have the docstrings
        return {}
    assert isinstance(definition, ast.ClassDef)
    pairs = zip(definition.body, definition.body[1:], strict=False)
    return {
        before.target.id: " ".join(after.value.value.split())
        for before, after in pairs
        if isinstance(before, ast.AnnAssign)
        and isinstance(before.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
    }


# ---------------------------------------------------------------- what is allowed


def allowed(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    """The allowed values of one key in words."""
    found = followed(schema, whole)
    alternatives = found.get("oneOf") or found.get("anyOf")
    if not alternatives:
        return plain(found, whole)
    forms = [followed(each, whole) for each in alternatives]
    searched = [form for form in forms if is_form(form)]
    fixed = [allowed(form, whole) for form in forms if form.get("type") != "null" and not is_form(form)]
    text = " or ".join(dict.fromkeys(fixed))
    if not searched:
        return text
    return f"{text}; {'range or choice' if any('low' in form['properties'] for form in searched) else 'or a choice'}"


def followed(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> Mapping[str, Any]:
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    return whole["$defs"][name] if name else schema


def is_form(schema: Mapping[str, Any]) -> bool:
    """Whether it is a range or a choice of another type."""
    return {"low", "high"} <= schema.get("properties", {}).keys() or schema.get("properties", {}).keys() == {"choices"}


WORDS = {
    "boolean": "`true`, `false`",
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "object": "table",
}


def plain(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{json.dumps(each)}`" for each in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        inner = schema.get("items") or next(iter(schema.get("prefixItems", [])), {})
        return f"list of {allowed(inner, whole)}" if inner else "list"
    return WORDS.get(schema.get("type", ""), "any") + limits(schema)


def limits(schema: Mapping[str, Any]) -> str:
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if low is None and above is None and high is None and below is None:
        return ""
    start = f"[{number(low)}" if low is not None else f"({number(above)}" if above is not None else "(-inf"
    end = f"{number(high)}]" if high is not None else f"{number(below)})" if below is not None else "inf)"
    return f" in `{start}, {end}`"


def number(value: Any) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


# ---------------------------------------------------------------- defaults and examples


def shown(value: Any) -> str:
    if value is None:
        return "none"
    plain_value = value.model_dump(exclude_none=True) if isinstance(value, BaseModel) else value
    return f"`{inline(plain_value)}`" if plain_value not in ({}, (), []) else "none"


def example(model: type[BaseModel], key: str, default: Any) -> str:
    return f"`{key} = {inline(example_of(model, key, default))}`"


def example_of(model: type[BaseModel], key: str, default: Any) -> Any:
    """A value that the key accepts: of a shipped study, otherwise from EXAMPLES, its default or its bounds."""
    field = TypeAdapter(model.model_fields[key].rebuild_annotation())
    candidates = [
        EXAMPLES.get(f"{model.__name__}.{key}"),
        *found_in_studies(key),
        EXAMPLES.get(key),
        default,
        0.5,
        1,
        True,
    ]
    for value in candidates:
        if value is not None and accepted(field, value):
            return value
    raise ValueError(f"{model.__name__}.{key}: no example is accepted; add one to EXAMPLES")


def accepted(field: TypeAdapter[Any], value: Any) -> bool:
    try:
        read = field.validate_python(value)
    except ValueError:
        return False
    return isinstance(value, bool) or not isinstance(read, bool)  # pydantic would read 1 as true


def found_in_studies(key: str) -> Iterator[Any]:
    for path in sorted(STUDIES.glob("*.toml")):
        yield from valued(tomllib.loads(path.read_text()), key)


def valued(tree: Any, key: str) -> Iterator[Any]:
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == key:
                yield value
            yield from valued(value, key)


def inline(value: Any) -> str:
    """A value in one line of TOML."""
    if isinstance(value, BaseModel):
        return inline(value.model_dump(exclude_none=True))
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {inline(each)}" for key, each in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(inline, value))}]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").strip()


def code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)
