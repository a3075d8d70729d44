"""How many damaged inputs tests try: few each time, and as many as one likes.

`RALR_TUNE_FUZZ=100000 pytest -k fuzz` looks longer, at other cases every time.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

_WANTED = os.environ.get("RALR_TUNE_FUZZ")
AT_RANDOM = _WANTED is not None
PATIENCE_S = 5.0
"""CPU seconds that one small input may take, by far more than it ever does."""


def cases(default: int) -> int:
    """Number of cases."""
    return default if _WANTED is None else int(_WANTED)


def chance() -> random.Random:
    """The same numbers every time, unless somebody looks longer."""
    return random.Random() if AT_RANDOM else random.Random(0)


@contextmanager
def soon() -> Iterator[None]:
    """Inside, no more than PATIENCE_S of CPU time passes."""
    began = time.process_time()
    yield
    assert time.process_time() - began < PATIENCE_S


def damaged(content: bytes, chance: random.Random) -> bytes:
    """A file of which one to eight pieces are overwritten, lost, doubled or put in anew, or that ends too soon."""
    for _ in range(chance.randint(1, 8)):
        start = chance.randrange(len(content) + 1)
        end = min(len(content), start + chance.choice((1, 1, 2, 4, 8, 64)))
        piece = chance.choice(
            (
                chance.randbytes(end - start),
                b"",
                content[start:end] * 2,
                bytes([chance.choice((0, 1, 127, 128, 255))]) * (end - start),
                content[start:end] + chance.randbytes(4),
                bytes(byte ^ (1 << chance.randrange(8)) for byte in content[start:end]),
            )
        )
        content = content[:start] + piece + content[end:]
        if chance.random() < 0.05:
            content = content[: chance.randrange(len(content) + 1)]
    return content
