"""The compiled kernels: built once by the machine's own C++ compiler, for its processor, and kept for later runs."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
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
        forward = (*[address] * 7, number, number, whole, whole, whole, ctypes.c_int, address, ctypes.c_int)
        evaluate = (*[address] * 7, number, whole, whole, whole, ctypes.c_int, ctypes.c_int)
        backward = (*[address] * 8, whole, whole, whole, ctypes.c_int, address, address, ctypes.c_int)
        self._functions = {}
        for kind in ("float32", "bfloat16"):
            for way, takes in (("forward", forward), ("evaluate", evaluate), ("backward", backward)):
                function = self._functions[f"{way}_{kind}"] = getattr(library, f"{way}_{kind}")
                function.argtypes, function.restype = takes, ctypes.c_int

    def call(self, name: str, *given: float | None) -> None:
        """Raises MemoryError."""
        if self._functions[name](*given):
            raise MemoryError(f"no memory for the sums of {name}")


def kernels() -> Kernels:
    """Built where they are not yet. Raises Unavailable."""
    found = _found()
    if isinstance(found, Unavailable):
        raise found
    return found


@cache
def _found() -> Kernels | Unavailable:
    """Once in a process, failures too: a compiler that fails takes its time."""
    try:
        folder, by = _folder(), compiler()
        file = folder / f"{_key(by)}.so"
        if file.exists():
            with suppress(OSError):  # damaged, and built anew
                return Kernels(file)
        _build(by, file)
        return Kernels(file)
    except Unavailable as reason:
        return reason
    except (OSError, RuntimeError, AttributeError) as error:  # RuntimeError: a user without a home
        return Unavailable(f"{type(error).__name__}: {error}")


def _folder() -> Path:
    """Of this user, as the XDG Base Directory Specification has it; nobody else may put code there."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    folder = (named if named.is_absolute() else Path.home() / ".cache") / "ralr_tune"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise Unavailable(f"{folder}: others may write there; `chmod 700` it, or set XDG_CACHE_HOME")
    return folder


def compiler() -> list[str]:
    """The C++ compiler of this machine, as a command. Raises Unavailable."""
    named = shlex.split(os.environ.get("CXX", ""))
    for name in [named[0]] if named else COMPILERS:
        if path := shutil.which(name):
            return [path, *named[1:]]
    raise Unavailable(f"no C++ compiler here: {named[0] if named else ', '.join(COMPILERS)}")


def _key(by: Sequence[str]) -> str:
    """Of what is compiled, how, by what and for which processor: homes of users lie on many machines."""
    path = Path(by[0]).resolve()
    which = *by, str(path), str(path.stat().st_size), str(path.stat().st_mtime_ns)
    said = [SOURCE.read_text(encoding="utf-8"), *FLAGS, *_more_flags(), *which, platform.platform(), _processor()]
    return hashlib.sha256("\x1f".join(said).encode()).hexdigest()[:32]


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


def _build(by: Sequence[str], file: Path) -> None:
    """Raises Unavailable, and OSError where there is no place for it. Where two processes build, the later wins."""
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        made = Path(folder) / file.name
        command = [*by, *FLAGS, *_more_flags(), "-o", str(made), str(SOURCE)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=LONGEST_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"{by[0]} took longer than {LONGEST_S} s") from error
        if done.returncode:
            raise Unavailable(f"{by[0]} failed: {_error(done.stderr.decode(errors='replace'))}")
        made.replace(file)


def _error(said: str) -> str:
    return next((line.strip() for line in said.splitlines() if "error" in line), f"{said.strip()[-200:]!r}")
