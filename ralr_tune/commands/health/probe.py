"""`devices.py` runs this as a separate process: it imports torch, inspects it, and prints one line of JSON about
the machine and one about the study's data, which may take minutes.

A broken installation of torch may kill the process instead of raising, and the import takes seconds, during which
`doctor` runs the other checks. Standard input is the text of the study file whose data to check, or empty.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ralr_tune.analysis.copies import MANY_COPIES, copies_sentences
from ralr_tune.errors import RalrTuneError
from ralr_tune.studyfile import parse_study
from ralr_tune.studyfile.tasks import first_task
from ralr_tune.training.precision import has_bfloat16


def facts() -> dict[str, Any]:
    """What torch can use on this machine."""
    return {
        "threads": torch.get_num_threads(),
        "bfloat16": has_bfloat16("cpu"),
        "torchvision": _torchvision(),
        "cuda": torch.version.cuda,
        "cuda_error": _cuda_error(),
        "gpus": [_gpu(index) for index in range(torch.cuda.device_count())],
    }


def _torchvision() -> str:
    """Why torchvision does not work with this torch; "" if it does."""
    try:
        import torchvision  # noqa: F401

        torch.ops.torchvision.nms(
            torch.zeros(1, 4), torch.zeros(1), 0.5
        )  # its compiled code works with only one version of torch
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


def data(text: str, out: Path) -> dict[str, Any]:
    """The data and the size of its network in bytes. Downloads nothing; imports no network code of the user."""
    spec = parse_study(text)
    task = first_task(spec)
    try:
        found = asdict(spec.kind.examine(task))
        inventory = spec.kind.inventory(task, seed=spec.study.seed, cache=out / "data")
    except RalrTuneError as error:
        return {"error": str(error), "fetched": spec.kind.downloads(spec.task)}
    copies = copies_sentences(inventory, MANY_COPIES)
    return found | {"inventory": None if inventory is None else asdict(inventory), "copies": copies}


if __name__ == "__main__":
    print(json.dumps(facts()), flush=True)
    if study := sys.stdin.read():
        print(json.dumps(data(study, Path(sys.argv[1]))))
