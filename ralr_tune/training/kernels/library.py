"""The compiled kernels: built once by the machine's own C++ compiler, for its processor, and kept for later runs."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("normalise.cpp")

COMPILERS = ("c++", "g++", "clang++")

FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC")

LONGEST_S = 120
"""A compiler that takes longer is given up; g++ 12 takes 2."""

CPUINFO = Path("/proc/cpuinfo")


class Unavailable(Exception):
    """There are no kernels on this machine; the message says why, and never leaves the log."""


class Kernels:
    """The functions of normalise.cpp, by kind of number; addresses of tensors in, nothing out."""

    def __init__(self, file: Path) -> None:
        """Raises OSError where the file is no library of this machine."""
        library = ctypes.CDLL(str(file))
        address, whole, number = ctypes.c_void_p, ctypes.c_long, ctypes.c_double
        forward = (*[address] * 7, number, number, whole, whole, ctypes.c_int, address, ctypes.c_int)
        backward = (*[address] * 8, whole, whole, ctypes.c_int, address, address, ctypes.c_int)
        self._functions = {}
        for kind in ("float32", "bfloat16"):
            for way, takes in (("forward", forward), ("backward", backward)):
                function = self._functions[f"{way}_{kind}"] = getattr(library, f"{way}_{kind}")
                function.argtypes, function.restype = takes, ctypes.c_int

    def call(self, name: str, *given: float | None) -> None:
        """Raises MemoryError."""
        if self._functions[name](*given):
            raise MemoryError(f"no memory for the sums of {name}")


@cache
def kernels() -> Kernels:
    """Built where they are not yet. Raises Unavailable."""
    file = _folder() / f"{_key()}.so"
    try:
        if not file.exists():
            _build(file)
        return Kernels(file)
    except OSError as error:
        raise Unavailable(f"{file.name}: {error}") from error


def _folder() -> Path:
    """Of this user, as the XDG Base Directory Specification has it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ralr_tune"


def _key() -> str:
    """Of what is compiled, how, by what and for which processor: folders of users lie on many machines."""
    said = [SOURCE.read_text(), *FLAGS, *_more_flags(), _compiler(), platform.platform(), _processor()]
    return hashlib.sha256("\x1f".join(said).encode()).hexdigest()[:32]


def _compiler() -> str:
    named = os.environ.get("CXX")
    found = next(filter(None, map(shutil.which, [named] if named else COMPILERS)), None)
    if found is None:
        raise Unavailable(f"no C++ compiler here: {named or ', '.join(COMPILERS)}")
    return found


def _more_flags() -> tuple[str, ...]:
    """Apple's compiler comes without OpenMP: there one thread does it all."""
    return () if sys.platform == "darwin" else ("-fopenmp",)


def _processor() -> str:
    """Its name and abilities."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _build(file: Path) -> None:
    """Raises Unavailable, and OSError where there is no place for it. Where two processes build, the later wins."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        made = Path(folder) / file.name
        command = [_compiler(), *FLAGS, *_more_flags(), "-o", str(made), str(SOURCE)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"{_compiler()} took longer than {LONGEST_S} s") from error
        if done.returncode:
            raise Unavailable(f"{_compiler()} failed: {_last_line(done.stderr)}")
        made.replace(file)


def _last_line(said: str) -> str:
    return next((line.strip() for line in said.splitlines() if "error" in line), f"{said.strip()[-200:]!r}")
