"""Run as a process of its own by `devices.py`: imports torch, looks, and prints what it found as one line of JSON.

Broken installations of torch end a process instead of raising, and its import takes seconds: meanwhile `doctor` does
the rest. On its standard input stands the study file whose data are looked for, or nothing.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from ralr_tune.errors import RalrTuneError
from ralr_tune.studyfile import StudySpec, parse_study
from ralr_tune.studyfile.imports import imports
from ralr_tune.training.precision import has_bfloat16


def facts(text: str) -> dict[str, Any]:
    """All that is looked at; `text`: a study file, or ""."""
    return {
        "threads": torch.get_num_threads(),
        "bfloat16": has_bfloat16("cpu"),
        "torchvision": _torchvision(),
        "cuda": torch.version.cuda,
        "cuda_error": _cuda_error(),
        "gpus": [_gpu(index) for index in range(torch.cuda.device_count())],
        "data": _data(parse_study(text)) if text else None,
    }


def _torchvision() -> str:
    """Why torchvision does not work with this torch; "" where it does."""
    try:
        import torchvision  # noqa: F401

        torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)  # compiled against one torch alone
    except (ImportError, RuntimeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _cuda_error() -> str:
    """Why torch cannot use CUDA; "" where it can."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return str(error).partition("\n")[0]
    return ""


def _gpu(index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    capability = f"{properties.major}.{properties.minor}"
    return {"name": properties.name, "free": free, "total": total, "capability": capability,
            "bfloat16": has_bfloat16("cuda")}  # fmt: skip


def _data(spec: StudySpec) -> dict[str, Any]:
    """What the study's data are, and how many bytes its network has; fetches nothing, imports no code of others."""
    if spec.task.kind == "simulated":
        return {"found": "a simulated task needs none", "weights": 0}
    try:
        return _source(spec)
    except RalrTuneError as error:
        return {"error": str(error), "fetched": bool(spec.task.data.get("download"))}


def _source(spec: StudySpec) -> dict[str, Any]:
    import numpy as np

    from ralr_tune.kinds.classification.sources import open_source
    from ralr_tune.models import registry

    task = spec.task
    source = open_source({key: False if key == "download" else value for key, value in task.data.items()})
    shape = source.train.take(np.arange(1)).load().shape[1:]
    found = f"{len(source.train):,} training images, {len(source.classes)} classes, {'x'.join(map(str, shape))}"
    weights = 0
    if not imports(task):
        model = registry.build(
            task.model,
            classes=len(source.classes),
            channels=shape[0],
            size=min(shape[1:]),
            options=task.model_options or {},
        )
        weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    return {"found": found, "weights": weights}


if __name__ == "__main__":
    print(json.dumps(facts(sys.stdin.read())))
