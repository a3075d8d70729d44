"""Batches by tokens: every pair once, within the limit, in an order of (seed, epoch)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ralr_tune.kinds.translation.batches import Accumulated, Side, TranslationBatch, cut_by_tokens, epoch_rows
from ralr_tune.training.memory import micro_batches
from tests.fuzz import AT_RANDOM

EXAMPLES = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=not AT_RANDOM)


@EXAMPLES
@given(st.lists(st.integers(1, 40), min_size=1, max_size=80), st.integers(1, 200), st.integers(0, 5))
def test_an_epoch_holds_every_pair_once_within_the_limit(lengths: list[int], tokens: int, epoch: int) -> None:
    known = np.array(lengths)
    batches = epoch_rows(known, tokens, seed=1, epoch=epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(len(rows) * known[rows].max() <= tokens or len(rows) == 1 for rows in batches)


@EXAMPLES
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 200))
def test_batches_are_as_large_as_the_limit_allows(lengths: list[int], tokens: int) -> None:
    known = np.sort(np.array(lengths))
    batches = cut_by_tokens(np.arange(len(known)), known, tokens)
    assert all((len(rows) + 1) * known[after[0]] > tokens for rows, after in pairwise(batches))


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    lengths = np.random.default_rng(0).integers(2, 30, 500)
    orders = {
        (seed, epoch): [rows.tolist() for rows in epoch_rows(lengths, 100, seed=seed, epoch=epoch)]
        for seed in (1, 2)
        for epoch in (0, 1)
    }
    assert [rows.tolist() for rows in epoch_rows(lengths, 100, seed=1, epoch=1)] == orders[1, 1]
    assert len({str(order) for order in orders.values()}) == 4


def test_similar_lengths_meet_and_batches_do_not_come_by_length() -> None:
    lengths = np.random.default_rng(0).integers(2, 60, 3000)
    batches = epoch_rows(lengths, 600, seed=0, epoch=0)
    padded = sum(len(rows) * lengths[rows].max() for rows in batches)
    assert lengths.sum() > 0.85 * padded
    means = np.array([lengths[rows].mean() for rows in batches])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


def test_padded_rows() -> None:
    side = Side.of([np.array(line, dtype=np.int32) for line in ([5, 6], [], [7, 8, 9])])
    assert side.padded(np.array([2, 0, 1]), pad=1).tolist() == [[7, 8, 9], [5, 6, 1], [1, 1, 1]]


def batch(*lengths: int) -> TranslationBatch:
    tensor = torch.arange(len(lengths) * 8).view(len(lengths), 8)
    return TranslationBatch(tensor, tensor + 100, lengths)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_split_keeps_pairs_and_weights(parts: int) -> None:
    whole = batch(3, 4, 5, 6, 7)
    split = whole.split(parts)
    assert torch.equal(torch.cat([part.sources for part in split]), whole.sources)
    assert sum(part.weight for part in split) == whole.weight == 25
    assert [len(part) for part in split] == [len(part.lengths) for part in split]


def test_accumulated_batches_are_processed_part_by_part() -> None:
    whole = Accumulated([batch(3, 4), batch(5, 6, 7)])
    assert whole.weight == 25
    assert [len(part) for part in micro_batches(whole, None)] == [2, 3]
    assert [len(part) for part in micro_batches(whole, 1)] == [1] * 5
