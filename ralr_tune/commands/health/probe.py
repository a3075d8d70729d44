"""A separate process of `devices.py`: imports torch, inspects it, and prints its facts as one line of JSON.

A broken installation of torch may kill the process instead of raising, and the import takes seconds, during which
`doctor` does the rest. Standard input holds the text of the study file whose data to check, or nothing.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import torch

from ralr_tune.errors import RalrTuneError
from ralr_tune.studyfile import StudySpec, parse_study
from ralr_tune.studyfile.contradictions import corners
from ralr_tune.studyfile.sections import TaskSection
from ralr_tune.training.precision import has_bfloat16


def facts(text: str) -> dict[str, Any]:
    """All facts; `text`: a study file, or ""."""
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
    """Why torchvision does not work with this torch; "" if it does."""
    try:
        import torchvision  # noqa: F401

        torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)  # compiled for one version of torch
    except (ImportError, RuntimeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _cuda_error() -> str:
    """Why torch cannot use CUDA; "" if it can."""
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
    """The study's data and the bytes of its network; downloads nothing, and imports no custom code."""
    try:
        return asdict(spec.kind.examine(_first(spec)))
    except RalrTuneError as error:
        return {"error": str(error), "fetched": spec.kind.downloads(spec.task)}


def _first(spec: StudySpec) -> TaskSection:
    """[task] with the first or lowest value of each searched key."""
    arm = next(iter(spec.arms))
    return spec.resolved_task(spec.configuration(arm, next(corners(spec.space(arm), ()))).task)


if __name__ == "__main__":
    print(json.dumps(facts(sys.stdin.read())))
