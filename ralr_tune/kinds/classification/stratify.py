"""Seeded stratified subsets of labelled samples. Pure numpy.

Not scikit-learn's `train_test_split`: that refuses classes with a single sample, and its result may change between
versions, while a test split must never change.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


def stratified_split(labels: Rows, taken: int, *, seed: int) -> tuple[Rows, Rows]:
    """Positions in `labels` (N,) as (taken, left), both sorted; stratified by the largest remainder method.

    At least one sample of every class is left, so that the training data keep all classes. Raises ValueError if that is
    impossible.
    """
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if not 0 <= taken <= len(labels) - len(counts):
        raise ValueError(
            f"{taken} of {len(labels)} samples cannot be set aside: one of each of {len(counts)} classes must remain"
        )
    quotas = _quotas(counts, taken)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(labels))
    by_class = order[np.argsort(classes[order], kind="stable")]
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = rank < np.repeat(quotas, counts)
    return np.sort(by_class[chosen]), np.sort(by_class[~chosen])


def _quotas(counts: Rows, taken: int) -> Rows:
    """Number of samples to take from each class: proportional, at most all but one, `taken` in total."""
    total = int(counts.sum())
    quotas: Rows = counts * taken // max(1, total)  # below the counts, since taken is below the total
    for _ in range(taken - int(quotas.sum())):
        deficit = np.where(quotas < counts - 1, counts * taken - quotas * total, np.iinfo(np.int64).min)
        quotas[np.argmax(deficit)] += 1
    return quotas
