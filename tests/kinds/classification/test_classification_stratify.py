from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ralr_tune.kinds.classification.stratify import stratified_split


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=6), share=st.floats(0, 1), seed=st.integers(0, 2**48 - 1)
)
def test_split_is_a_stratified_partition(counts: list[int], share: float, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    taken = int(share * (len(labels) - len(counts)))
    chosen, left = stratified_split(labels, taken, seed=seed)
    assert len(chosen) == taken
    assert sorted([*chosen, *left]) == list(range(len(labels)))
    assert set(labels[left]) == set(labels)
    for number, count in enumerate(counts):
        quota = min(count * taken / len(labels), count - 1)
        # if small classes give less than their share, the others give more
        assert (labels[chosen] == number).sum() > quota - 1


def test_class_shares_are_exact_within_one_sample() -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 21])
    chosen, _ = stratified_split(labels, 20, seed=0)
    assert np.abs(np.bincount(labels[chosen]) - np.array([50, 30, 21]) * 20 / 101).max() < 1


def test_the_split_depends_on_the_seed() -> None:
    labels = np.repeat([0, 1], 50)
    one, again, other = (stratified_split(labels, 20, seed=seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("taken", [-1, 5])
def test_impossible_sizes_are_refused(taken: int) -> None:
    with pytest.raises(ValueError, match=rf"{taken} of 6 samples cannot be set aside: one of each of 2 classes"):
        stratified_split(np.array([0, 0, 0, 1, 1, 1]), taken, seed=0)
