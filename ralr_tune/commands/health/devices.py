"""The devices that torch can use, and the study's data; a separate process (`probe.py`) inspects them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

from ralr_tune.commands.health.check import Check, make_check
from ralr_tune.commands.health.packages import pip
from ralr_tune.report.words import size

TIMEOUT_S = 180.0
NVIDIA = Path("/proc/driver/nvidia/version")

_REINSTALL = f"reinstall both from the same source: {pip()} install --force-reinstall torch torchvision"


class Probe:
    """The process that inspects torch and the data; it starts immediately, and `facts` waits for its result."""

    def __init__(self, study: str | None, out: Path = Path()) -> None:
        """`study`: the text of a study file, or None. `out`: its out folder, which need not exist."""
        # a file, not a pipe, which warnings could fill; open as long as the process runs
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ralr_tune.commands.health.probe", str(out.absolute())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            # importing torchvision creates this folder, so use one that exists
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": tempfile.gettempdir()},
        )
        self._lines: Queue[str] = Queue()
        Thread(target=self._exchange, args=(study or "",), daemon=True).start()
        self._study = study

    def facts(self, timeout_s: float = TIMEOUT_S) -> dict[str, Any] | str:
        """The facts, or the reason why there are none. Only the study's data may take longer than `timeout_s`."""
        try:
            found: dict[str, Any] = json.loads(self._lines.get(timeout=timeout_s))
            return found | {"data": json.loads(self._lines.get()) if self._study else None}
        except Empty:
            return f"no answer within {timeout_s:g} s: try again when the machine is less loaded"
        except ValueError:  # the process ended without a line of JSON
            return self._last_error_line()
        finally:
            self._process.kill()
            self._process.wait()
            self._errors.close()

    def _exchange(self, study: str) -> None:
        """Send the study file to the process, and queue the lines that it prints, then an empty line."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(study)
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _last_error_line(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1] if lines else f"exited with code {code}"


def device_checks(found: dict[str, Any] | str, driver: str) -> Iterator[Check]:
    """Checks of the probe's facts; `driver`: the NVIDIA driver's version, "" if there is none."""
    if isinstance(found, str):
        yield Check("torch", "problem", f"cannot be imported: {found}", _REINSTALL)
        return
    bfloat16 = "faster" if found["bfloat16"] else "not faster, so it is not used"
    broken = f"; torchvision: {found['torchvision']}" if found["torchvision"] else ""
    yield make_check(
        "torch",
        f"imports; {found['threads']} threads; bfloat16 is {bfloat16} on this CPU{broken}",
        problem=_REINSTALL if broken else "",
    )
    for index, gpu in enumerate(found["gpus"]):
        yield gpu_check(index, gpu, driver, found["cuda"])
    if not found["gpus"]:
        yield no_gpu_check(driver, found["cuda"], found["cuda_error"])


def gpu_check(index: int, gpu: dict[str, Any], driver: str, cuda: str) -> Check:
    """Check one GPU that torch can use."""
    bfloat16 = "bfloat16" if gpu["bfloat16"] else "no bfloat16"
    found = (
        f"{gpu['name']}, {size(gpu['total'])} ({size(gpu['free'])} free), compute capability {gpu['capability']}, "
        f"{bfloat16}; driver {driver or 'unknown'}, torch for CUDA {cuda}"
    )
    busy = "another program uses its memory (see nvidia-smi); stop that program, or exclude this GPU with --devices"
    return make_check(f"cuda:{index}", found, warning=busy if gpu["free"] < gpu["total"] / 2 else "")


def no_gpu_check(driver: str, cuda: str | None, error: str) -> Check:
    """Check a machine on which torch can use no GPU: "ok" unless it has one."""
    if not driver:
        return Check("gpu", "ok", "none: training on the CPU")
    if cuda is None:
        return Check("gpu", "problem", f"driver {driver}, but torch is built without CUDA", _REINSTALL)
    fix = "update the driver, or install torch for the CUDA version of the driver (see nvidia-smi)"
    return Check("gpu", "problem", f"driver {driver}, but torch for CUDA {cuda} cannot use it: {error}", fix)


def data_check(found: dict[str, Any]) -> Check:
    """Check the study's data as the probe found them."""
    if "error" not in found:
        network = f"; a network of {size(found['weights'])}" if found["weights"] else ""
        copies = found.get("copies") or []
        return make_check("data", f"{found['found']}{network}", warning=" ".join(copies))
    if found["fetched"]:
        return Check("data", "warning", found["error"], "`run` downloads the data, which needs internet access")
    return Check("data", "problem", found["error"], "put the data there, or correct [task] data in the study file")


def nvidia_driver(file: Path = NVIDIA) -> str:
    """Version of the NVIDIA driver; "" if there is none."""
    try:
        words = file.read_text().splitlines()[0].split()
    except (OSError, IndexError):
        return ""
    return next((word for word in words if word[0].isdigit() and "." in word), "unknown version")
