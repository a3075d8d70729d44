"""What torch can use, and the study's data: looked at by a process of its own (`probe.py`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ralr_tune.commands.health.check import Check, judged
from ralr_tune.commands.health.packages import pip
from ralr_tune.report.words import size

TIMEOUT_S = 180.0
NVIDIA = Path("/proc/driver/nvidia/version")

_REINSTALL = f"install both anew, from one place: {pip()} install --force-reinstall torch torchvision"


class Probe:
    """The process that looks; it is started at once and asked later."""

    def __init__(self, study: str | None) -> None:
        """`study`: the text of a study file, or None."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ralr_tune.commands.health.probe"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # torchvision makes this folder when it is imported: one that is there already
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": tempfile.gettempdir()},
        )
        self._study = study or ""

    def facts(self, timeout_s: float = TIMEOUT_S) -> dict[str, Any] | str:
        """What it found, or why it found nothing."""
        try:
            out, errors = self._process.communicate(self._study, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return f"no answer within {timeout_s:g} s: try again when the machine is less busy"
        finally:
            self._process.kill()
            self._process.wait()
        if self._process.returncode:
            said = errors.strip().splitlines() or [f"ended with code {self._process.returncode}"]
            return said[-1]
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found


def device_checks(found: dict[str, Any] | str, driver: str) -> Iterator[Check]:
    """What the probe's facts mean; `driver`: the NVIDIA driver's version, "" where there is none."""
    if isinstance(found, str):
        yield Check("torch", "problem", f"cannot be imported: {found}", _REINSTALL)
        return
    bfloat16 = "faster" if found["bfloat16"] else "no faster, so it is not used"
    broken = f"; torchvision: {found['torchvision']}" if found["torchvision"] else ""
    yield judged(
        "torch",
        f"imports; {found['threads']} threads; bfloat16 is {bfloat16} on this CPU{broken}",
        problem=_REINSTALL if broken else "",
    )
    for index, gpu in enumerate(found["gpus"]):
        yield gpu_check(index, gpu, driver, found["cuda"])
    if not found["gpus"]:
        yield no_gpu_check(driver, found["cuda"], found["cuda_error"])


def gpu_check(index: int, gpu: dict[str, Any], driver: str, cuda: str) -> Check:
    """One GPU that torch can use."""
    bfloat16 = "bfloat16" if gpu["bfloat16"] else "no bfloat16"
    found = (
        f"{gpu['name']}, {size(gpu['total'])} ({size(gpu['free'])} free), compute capability {gpu['capability']}, "
        f"{bfloat16}; driver {driver or 'unknown'}, torch for CUDA {cuda}"
    )
    busy = "something else holds its memory (nvidia-smi shows what); leave it out with --devices, or stop that"
    return judged(f"cuda:{index}", found, warning=busy if gpu["free"] < gpu["total"] / 2 else "")


def no_gpu_check(driver: str, cuda: str | None, error: str) -> Check:
    """No GPU that torch can use: well, unless the machine has one."""
    if not driver:
        return Check("gpu", "ok", "none: training on the CPU")
    if cuda is None:
        return Check("gpu", "problem", f"driver {driver}, and a torch without CUDA", _REINSTALL)
    mend = "update the driver, or install a torch for the CUDA that it has (nvidia-smi shows it)"
    return Check("gpu", "problem", f"driver {driver}, and torch for CUDA {cuda} cannot use it: {error}", mend)


def data_check(found: dict[str, Any]) -> Check:
    """The study's data, as the probe found them."""
    if "error" not in found:
        network = f"; a network of {size(found['weights'])}" if found["weights"] else ""
        return Check("data", "ok", f"{found['found']}{network}")
    if found["fetched"]:
        return Check("data", "warning", found["error"], "`run` fetches them, which takes the network")
    return Check("data", "problem", found["error"], "put them there, or correct [task] data in the study file")


def nvidia_driver(file: Path = NVIDIA) -> str:
    """Version of the driver; "" where there is none."""
    try:
        words = file.read_text().splitlines()[0].split()
    except (OSError, IndexError):
        return ""
    return next((word for word in words if word[0].isdigit() and "." in word), "of unknown version")
