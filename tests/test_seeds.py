"""A different seed for each purpose and key."""

from __future__ import annotations

import os
import subprocess
import sys

from ralr_tune.seeds import SEED_BITS, derive_seed


def test_seeds_never_change() -> None:
    """Stored studies resume with them: with a new value, old studies cannot be resumed."""
    assert derive_seed("init", 0) == 25678978195821
    assert derive_seed("trial", 0, 1, 2) == 106007448243103
    assert derive_seed("sampler", 7, "ralr", 0, 23) == 191720357806356


def test_another_process_gets_the_same_seed() -> None:
    """hash() of a text would differ by process."""
    code = "from ralr_tune.seeds import derive_seed; print(derive_seed('order', 3, 'ralr', 4))"
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }
    assert answers == {str(derive_seed("order", 3, "ralr", 4))}


def test_seeds_are_in_the_allowed_range() -> None:
    seeds = [derive_seed("init", number) for number in range(1000)]
    assert all(0 <= seed < 2**SEED_BITS for seed in seeds)
    assert max(seeds) > 2 ** (SEED_BITS - 1)  # all bits are used


def test_any_difference_gives_another_seed() -> None:
    keys: list[tuple[str, tuple[int | str, ...]]] = [
        ("init", ()),
        ("init", (0,)),
        ("init", ("0",)),
        ("init", (0, 0)),
        ("init", (1, 23)),
        ("init", (12, 3)),
        ("init", ("",)),
        ("init", ("a", "b")),
        ("init", ("ab",)),
        ("ini", ("t",)),
        ("order", (0,)),
        ("init", (-1,)),
    ]
    assert len({derive_seed(purpose, *key) for purpose, key in keys}) == len(keys)


def test_neighbouring_seeds_are_independent() -> None:
    """timm adds seed and epoch: its seed 42 at epoch t + 1 is seed 43 at epoch t. Here no two of a grid are equal."""
    grid = {derive_seed("order", seed, epoch) for seed in range(100) for epoch in range(100)}
    assert len(grid) == 100 * 100
