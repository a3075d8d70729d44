"""Randomly mutated files of training: what a disk error, a bug or an attacker may do to them.

A case is (what it was made of, the bytes); everything is drawn from one `random.Random`.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import signal
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from ralr_tune.training import checkpoint
from ralr_tune.training.checkpoint import DIGEST_BYTES, MAGIC
from ralr_tune.training.weights import DIGEST, digest

HEADER = len(MAGIC) + 2 * DIGEST_BYTES
CASE_S = 60.0
"""A case that takes longer counts as hanging."""


class Bomb:
    """Creates a file when it is unpickled, by one of the ways in which pickles can call arbitrary functions."""

    def __init__(self, trace: Path, way: str) -> None:
        self.trace, self.way = str(trace), way

    def __reduce__(self) -> tuple[Any, ...]:
        ways: dict[str, tuple[Any, ...]] = {
            "system": (os.system, (f"touch '{self.trace}'",)),
            "eval": (eval, (f"open({self.trace!r}, 'w')",)),
            "exec": (exec, (f"open({self.trace!r}, 'w')",)),
            "getattr": (getattr, (os, "system")),
            "path": (Path.touch, (Path(self.trace),)),
        }
        return ways[self.way]


WAYS = ("system", "eval", "exec", "path")


# ---------------------------------------------------------------- bytes


def flipped(chance: random.Random, data: bytes, _: bytes) -> bytes:
    changed = bytearray(data)
    for _bit in range(chance.choice([1, 1, 1, 2, 8, 100])):
        place = chance.randrange(8 * len(changed))
        changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


def truncated(chance: random.Random, data: bytes, _: bytes) -> bytes:
    return data[: chance.choice([chance.randrange(len(data)), len(data) - 1, len(data) - chance.randrange(1, 100)])]


def lengthened(chance: random.Random, data: bytes, other: bytes) -> bytes:
    return data + chance.choice([b"\0", chance.randbytes(chance.randrange(1, 2000)), other, data])


def _range(chance: random.Random, data: bytes) -> tuple[int, int]:
    first = chance.randrange(len(data))
    return first, min(len(data), first + chance.choice([1, 8, 64, 512, 4096, len(data)]))


def zeroed(chance: random.Random, data: bytes, _: bytes) -> bytes:
    first, last = _range(chance, data)
    return data[:first] + bytes(last - first) + data[last:]


def scrambled(chance: random.Random, data: bytes, _: bytes) -> bytes:
    first, last = _range(chance, data)
    return data[:first] + chance.randbytes(last - first) + data[last:]


def cut_out(chance: random.Random, data: bytes, _: bytes) -> bytes:
    first, last = _range(chance, data)
    return data[:first] + data[last:]


def doubled(chance: random.Random, data: bytes, _: bytes) -> bytes:
    first, last = _range(chance, data)
    return data[:last] + data[first:last] + data[last:]


def spliced(chance: random.Random, data: bytes, other: bytes) -> bytes:
    """The beginning of one file and the end of another, as after a torn write."""
    place = chance.randrange(max(len(data), len(other)))
    pair = (data, other) if chance.random() < 0.5 else (other, data)
    return pair[0][:place] + pair[1][place:]


def patched(chance: random.Random, data: bytes, other: bytes) -> bytes:
    """Replaces a part of one file by the same part of another."""
    first, last = _range(chance, data)
    return data[:first] + other[first:last].ljust(last - first, b"\0") + data[last:]


def garbage(chance: random.Random, data: bytes, _: bytes) -> bytes:
    return chance.choice([b"", bytes(len(data)), chance.randbytes(chance.randrange(1, 2 * len(data)))])


BYTES: list[Callable[[random.Random, bytes, bytes], bytes]] = [
    flipped, truncated, lengthened, zeroed, scrambled, cut_out, doubled, spliced, patched, garbage,
]  # fmt: skip


# ---------------------------------------------------------------- torch's zip files


def _members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {member.filename: archive.read(member) for member in archive.infolist()}


def _zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def members_swapped(chance: random.Random, content: bytes, _: bytes) -> bytes:
    members = _members(content)
    one, two = chance.sample(sorted(members), 2)
    members[one], members[two] = members[two], members[one]
    return _zipped(members)


def member_lost(chance: random.Random, content: bytes, _: bytes) -> bytes:
    members = _members(content)
    members.pop(chance.choice(sorted(members)))
    return _zipped(members)


def member_mutated(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """Any member, the pickle more often than the others."""
    members = _members(content)
    pickles = [name for name in members if name.endswith("data.pkl")]
    name = chance.choice([*pickles, *sorted(members)][: len(pickles) + 3])
    members[name] = chance.choice(BYTES)(chance, members[name] or b"\0", other)
    return _zipped(members)


def compressed(chance: random.Random, content: bytes, _: bytes) -> bytes:
    return _zipped(_members(content), chance.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))


ZIPS = [members_swapped, member_lost, member_mutated, member_mutated, member_mutated, compressed]


# ---------------------------------------------------------------- cases


def sealed(owner: bytes, content: bytes) -> bytes:
    """A file with a correct digest for any content. `owner`: any file of the trial."""
    identity = owner[len(MAGIC) : len(MAGIC) + DIGEST_BYTES]
    return MAGIC + identity + checkpoint.digest(identity, content) + content


def bombs(chance: random.Random, good: bytes, trace: Path) -> tuple[str, bytes]:
    """A file that runs code when it is unpickled: a bare pickle, as torch writes it, and with a correct digest."""
    bomb = Bomb(trace, chance.choice(WAYS))
    stored: Any = chance.choice([bomb, {"model": bomb}, [bomb], {"format": 1, "curve": bomb}, {bomb.way: 1, "x": bomb}])
    buffer = io.BytesIO()
    torch.save(stored, buffer, _use_new_zipfile_serialization=chance.random() < 0.8)
    contents = [pickle.dumps(stored, chance.randrange(6)), buffer.getvalue()]
    content = chance.choice(contents)
    if chance.random() < 0.5:
        return "bomb with the right digest", sealed(good, content)
    return "bomb", content


def checkpoint_case(chance: random.Random, good: bytes, others: list[bytes], trace: Path) -> tuple[str, bytes]:
    """Mutates the file `good`; `others`: files to splice it with. Kinds with "right digest" may have any content."""
    kind = chance.random()
    other = chance.choice(others)
    if kind < 0.55:
        mutate = chance.choice(BYTES)
        return mutate.__name__, mutate(chance, good, other)
    if kind < 0.65:
        mutate = chance.choice(ZIPS)
        return mutate.__name__, good[:HEADER] + mutate(chance, good[HEADER:], other[HEADER:])
    if kind < 0.85:
        mutate = chance.choice([*BYTES, *ZIPS, *ZIPS])
        return (
            f"{mutate.__name__}, right digest",
            sealed(good, mutate(chance, good[HEADER:], other[HEADER:])),
        )
    return bombs(chance, good, trace)


def curve_case(chance: random.Random, good: bytes, others: list[bytes], trace: Path) -> tuple[str, bytes]:
    """Like `checkpoint_case`, for a simulated trial's JSON."""
    if chance.random() < 0.6:
        mutate = chance.choice(BYTES)
        return mutate.__name__, mutate(chance, good, chance.choice(others))
    if chance.random() < 0.7:
        stored = json.loads(good[HEADER:])
        record = chance.choice(stored)
        key = chance.choice(sorted(record))
        record[key] = chance.choice([None, True, "1", 1, 0, -1, 1e308, float("nan"), [], {}, 10**400, "x" * 9])
        return "number, right digest", sealed(good, json.dumps(stored).encode())
    if chance.random() < 0.5:
        return "nested, right digest", sealed(good, b"[" * 3000 + b"]" * 3000)
    return bombs(chance, good, trace)


def weights_case(chance: random.Random, good: bytes, others: list[bytes], trace: Path) -> tuple[str, bytes]:
    """Mutates a safetensors file."""
    kind = chance.random()
    if kind < 0.75:
        mutate = chance.choice(BYTES)
        return mutate.__name__, mutate(chance, good, chance.choice(others))
    if kind < 0.9:
        tensors = load(good)
        name = chance.choice(sorted(tensors))
        tensor = tensors.pop(name)
        changes = [{}, {name: tensor.double()}, {name: tensor.reshape(-1)[:0].clone()}, {f"{name}x": tensor}]
        tensors |= chance.choice(changes)
        return "tensor, right digest", save(tensors, metadata={DIGEST: digest(tensors)})
    return bombs(chance, good, trace)


@contextmanager
def no_hang() -> Iterator[None]:
    """Raises TimeoutError inside the block if it takes too long."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"hangs: more than {CASE_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, CASE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
