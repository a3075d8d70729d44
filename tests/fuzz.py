"""The number of damaged inputs that tests try: few by default, or as many as you ask for.

`RALR_TUNE_FUZZ=100000 pytest -k fuzz` runs longer, with new cases every time.
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
"""Maximum CPU seconds for one small input, far more than it needs."""


def cases(default: int) -> int:
    """Number of cases."""
    return default if _WANTED is None else int(_WANTED)


def chance() -> random.Random:
    """The same numbers every time, unless RALR_TUNE_FUZZ is set."""
    return random.Random() if AT_RANDOM else random.Random(0)


@contextmanager
def soon() -> Iterator[None]:
    """Fails if the block takes more than PATIENCE_S of CPU time."""
    began = time.process_time()
    yield
    assert time.process_time() - began < PATIENCE_S


def damaged(content: bytes, chance: random.Random) -> bytes:
    """A file with one to eight pieces overwritten, removed, doubled or inserted, or truncated."""
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
