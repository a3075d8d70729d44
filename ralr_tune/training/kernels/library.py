"""The compiled kernels: built once with the machine's C++ compiler, for its processor, and cached for later runs."""

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

TIMEOUT_S = 120
"""Timeout of the compiler in seconds; g++ 12 takes 2."""

CPUINFO = Path("/proc/cpuinfo")


class Unavailable(Exception):
    """There are no kernels on this machine. The message gives the reason; it appears only in the log."""


class Kernels:
    """The functions of normalise.cpp, for each dtype. Arguments are addresses of tensors; results are written there."""

    def __init__(self, file: Path) -> None:
        """Raises OSError if the file is not a library of this machine."""
        library = ctypes.CDLL(str(file))
        address, integer, number = ctypes.c_void_p, ctypes.c_long, ctypes.c_double
        forward = (*[address] * 7, number, number, integer, integer, integer, ctypes.c_int, address, ctypes.c_int)
        evaluate = (*[address] * 7, number, integer, integer, integer, ctypes.c_int, ctypes.c_int)
        backward = (*[address] * 8, integer, integer, integer, ctypes.c_int, address, address, ctypes.c_int)
        self._functions = {}
        for dtype in ("float32", "bfloat16"):
            for name, types in (("forward", forward), ("evaluate", evaluate), ("backward", backward)):
                function = self._functions[f"{name}_{dtype}"] = getattr(library, f"{name}_{dtype}")
                function.argtypes, function.restype = types, ctypes.c_int

    def call(self, name: str, *arguments: float | None) -> None:
        """Calls a function. Raises MemoryError."""
        if self._functions[name](*arguments):
            raise MemoryError(f"no memory for the sums of {name}")


def kernels() -> Kernels:
    """The kernels; builds them if necessary. Raises Unavailable."""
    found = _load()
    if isinstance(found, Unavailable):
        raise found
    return found


@cache
def _load() -> Kernels | Unavailable:
    """Loads or builds the kernels once per process. Failures are cached too, since a failing compiler takes time."""
    try:
        folder, command = _folder(), compiler()
        file = folder / f"{_cache_key(command)}.so"
        if file.exists():
            with suppress(OSError):  # damaged: build it again
                return Kernels(file)
        _build(command, file)
        return Kernels(file)
    except Unavailable as reason:
        return reason
    except (OSError, RuntimeError, AttributeError) as error:  # RuntimeError: the user has no home folder
        return Unavailable(f"{type(error).__name__}: {error}")


def _folder() -> Path:
    """The user's cache folder (XDG Base Directory Specification); other users must not be able to write code there."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    folder = (named if named.is_absolute() else Path.home() / ".cache") / "ralr_tune"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise Unavailable(f"{folder}: other users may write there; `chmod 700` it, or set XDG_CACHE_HOME")
    return folder


def compiler() -> list[str]:
    """The C++ compiler of this machine, as a command. Raises Unavailable."""
    named = shlex.split(os.environ.get("CXX", ""))
    for name in [named[0]] if named else COMPILERS:
        if path := shutil.which(name):
            return [path, *named[1:]]
    raise Unavailable(f"no C++ compiler found: {named[0] if named else ', '.join(COMPILERS)}")


def _cache_key(command: Sequence[str]) -> str:
    """A hash of source, flags, compiler and processor: several machines may share a home folder."""
    path = Path(command[0]).resolve()
    identity = *command, str(path), str(path.stat().st_size), str(path.stat().st_mtime_ns)
    parts = [SOURCE.read_text(encoding="utf-8"), *FLAGS, *_extra_flags(), *identity, platform.platform(), _processor()]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]


def _extra_flags() -> tuple[str, ...]:
    """OpenMP, except for Apple's compiler, which does not support it: there the kernels use one thread."""
    return () if sys.platform == "darwin" else ("-fopenmp",)


def _processor() -> str:
    """The processor's name and instruction sets."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _build(compiler_command: Sequence[str], file: Path) -> None:
    """Raises Unavailable, and OSError if the file cannot be written. If two processes build, the later one wins."""
    name = compiler_command[0]
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        library = Path(folder) / file.name
        command = [*compiler_command, *FLAGS, *_extra_flags(), "-o", str(library), str(SOURCE)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"{name} took longer than {TIMEOUT_S} s") from error
        if done.returncode:
            raise Unavailable(f"{name} failed: {_error(done.stderr.decode(errors='replace'))}")
        library.replace(file)


def _error(output: str) -> str:
    """The first line of the compiler's output with an error, or the end of the output."""
    return next((line.strip() for line in output.splitlines() if "error" in line), f"{output.strip()[-200:]!r}")
