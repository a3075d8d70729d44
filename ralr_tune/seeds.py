"""Seeds: every random stream of a study is a pure function of its purpose and key.

Seeds are derived by hashing, never by adding: neighbouring study seeds, ordinals or epochs give unrelated streams
(timm's `seed + epoch` gives the same stream, shifted).
"""

from __future__ import annotations

import hashlib

SEED_BITS = 48  # exact as a JSON number, and accepted by torch, numpy and random


def derive_seed(purpose: str, *key: int | str) -> int:
    """A seed in [0, 2**48) for one purpose ("init", "order", "augment", "amplify", "sampler", ...) and key.

    Our choice: SHA-256 of the purpose and the key, so equal arguments give equal seeds on every machine.
    """
    text = "\x1f".join([purpose, *(f"{type(part).__name__}:{part}" for part in key)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[: SEED_BITS // 8], "big")
