"""Additive spline regression: the share of the variance of y that one column explains beyond all others.

Symbols: y (n,); B_j (n, k_j) the basis of column j (natural cubic splines of its value or its logarithm, dummies of a
choice), centred; Q (n, m) an orthonormal basis of the intercept and all columns but j. The share of j is what B_j
explains of y beyond Q, less what k_j columns of noise would explain. Its null band comes from permuting the rows of B_j
alone: permuting y instead would drown a weak column in the effect of a dominant one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Scale = Literal["linear", "log", "choice"]

DRAWS = 500  # permutations of the null, and resamples of the interval
BAND = (2.5, 97.5)  # percent, of null and of interval
MOST_DEGREES = 4  # a spline with more bends after the noise of a study's 20 to 100 trials
NOISE_DEGREES = 10  # residual degrees of freedom that are enough ...
SPARE_DEGREES = 3  # ... and fewer than these say nothing about the noise


class Column(NamedTuple):
    """The n values of one parameter and how it is measured."""

    scale: Scale
    values: Sequence[Any]


class Share(NamedTuple):
    """One column's share of the variance of y, clipped to [0, 1]."""

    value: float
    interval: tuple[float, float]
    """95%, over the noise of the same rows."""
    null: tuple[float, float]
    """Where 95% of the values fall when the column has no effect."""


def shares(columns: Mapping[str, Column], y: Array, *, seed: int = 0) -> dict[str, Share]:
    """Share of each column that can be judged; deterministic for a given seed.

    Left out: columns of one value, columns that the others determine, and all where n is too small for the fit.
    """
    n = len(y)
    varying = {name: column for name, column in columns.items() if len(set(column.values)) > 1}
    # Half of the rows, or all but ten, are the fit's, dealt out evenly; a hump, as rates have, needs two or three.
    degrees = min(MOST_DEGREES, max(1, (max(n // 2, n - NOISE_DEGREES) - 1) // max(1, len(varying))))
    bases = {name: _basis(column, degrees) for name, column in varying.items()}
    if n - 1 - sum(basis.shape[1] for basis in bases.values()) < SPARE_DEGREES or np.ptp(y) == 0:
        return {}
    found = {}
    for index, (name, basis) in enumerate(bases.items()):
        others = np.hstack([np.ones((n, 1)), *(bases[other] for other in bases if other != name)])
        q = _orthonormal(others, size=float(np.linalg.norm(others)))
        own = _orthonormal(_beyond(q, basis), size=float(np.linalg.norm(basis)))
        if own.shape[1]:
            found[name] = _share(q, basis, own, y, np.random.default_rng([seed, index]))
    return found


def _share(q: Array, basis: Array, own: Array, y: Array, rng: np.random.Generator) -> Share:
    """The column with this basis (n, k), of which own (n, k') lies beyond the others' q (n, m)."""
    value = float(_explained(q, own, y[None])[0])
    null = np.percentile(_explained_by_chance(q, basis, y, rng), BAND)
    resampled = _explained(q, own, _resamples(np.hstack([q, own]), y, rng))
    # Refitting the fit adds a little to every resample; the interval is moved back by that.
    low, high = np.percentile(resampled + value - resampled.mean(), BAND)
    return Share(_clip(value), (_clip(min(low, value)), _clip(max(high, value))), (_clip(null[0]), _clip(null[1])))


def _explained(q: Array, own: Array, ys: Array) -> Array:
    """Share of the variance of each of ys (r, n) that own (n, k), orthonormal and beyond q, explains; shape (r,)."""
    rest = ys - (ys @ q) @ q.T
    gains = np.square(rest @ own).sum(axis=1)
    totals = np.square(ys - ys.mean(axis=1, keepdims=True)).sum(axis=1)
    return _ratios(gains, np.square(rest).sum(axis=1), totals, q.shape, own.shape[1])


def _explained_by_chance(q: Array, basis: Array, y: Array, rng: np.random.Generator) -> Array:
    """The same share of y (n,) for DRAWS permutations of the rows of basis (n, k); shape (DRAWS,)."""
    shuffles = rng.permuted(np.tile(np.arange(len(y)), (DRAWS, 1)), axis=1)
    permuted, _ = np.linalg.qr(_beyond(q, basis[shuffles]))
    rest = y - q @ (q.T @ y)
    gains = np.square(np.einsum("n,rnk->rk", rest, permuted)).sum(axis=1)
    return _ratios(gains, np.square(rest).sum(), np.square(y - y.mean()).sum(), q.shape, basis.shape[1])


def _ratios(gains: Array, rest: Array, totals: Array, shape: tuple[int, ...], k: int) -> Array:
    """Sums of squares that k columns explain of totals, less what k columns of noise would; at least 0, below 1.

    The m columns of the others soak up m / n of any effect by chance, which is given back (to the noise as well); where
    they happened to soak up less, the total is what effect and noise then add up to. It grows with the gain, always.
    """
    n, m = shape
    noise = (rest - gains) / (n - m - k)
    effects = np.clip(gains - k * noise, 0, None) * (n - 1) / (n - m)
    return np.asarray(effects / np.maximum(totals, effects + (n - 1) * noise))


def _resamples(q: Array, y: Array, rng: np.random.Generator) -> Array:
    """Wild bootstrap (Wu 1986), shape (DRAWS, n): the fit plus residuals with random signs.

    It keeps noise that is larger in some places; resampling whole rows would repeat some and fit them twice.
    """
    fit = q @ (q.T @ y)
    leverage = np.clip(np.square(q).sum(axis=1), 0.0, 0.99)
    signs = rng.choice([-1.0, 1.0], size=(DRAWS, len(y)))
    return np.asarray(fit + signs * (y - fit) / np.sqrt(1 - leverage))


def _basis(column: Column, degrees: int) -> Array:
    """Basis (n, k) of one column of at least two values, without the constant."""
    if column.scale == "choice":
        basis = _dummies(column.values)
    else:
        x = np.asarray(column.values, dtype=float)
        basis = _natural_spline(np.log(x) if column.scale == "log" else x, degrees)
    return np.asarray(basis - basis.mean(axis=0))


def _dummies(values: Sequence[Any]) -> Array:
    """One column a choice but the first."""
    levels = sorted({str(value) for value in values})
    return np.array([[str(value) == level for level in levels[1:]] for value in values], dtype=float)


def _natural_spline(x: Array, degrees: int) -> Array:
    """Natural cubic spline basis (Hastie, Tibshirani, Friedman 2009, eq. 5.4 and 5.5), knots at quantiles of x."""
    x = (x - x.min()) / np.ptp(x)
    distinct = np.unique(x)
    knots = np.quantile(distinct, np.linspace(0, 1, min(degrees, len(distinct) - 1) + 1))

    def bend(knot: float) -> Array:
        cubes = np.clip(x - knot, 0, None) ** 3 - np.clip(x - knots[-1], 0, None) ** 3
        return np.asarray(cubes / (knots[-1] - knot))

    return np.stack([x, *(bend(knot) - bend(knots[-2]) for knot in knots[:-2])], axis=1)


def _beyond(q: Array, bases: Array) -> Array:
    """What is left of bases (..., n, k) beyond q (n, m)."""
    return np.asarray(bases - q @ (q.T @ bases))


def _orthonormal(columns: Array, size: float) -> Array:
    """Orthonormal basis of the span of columns, without directions that are mere rounding errors of size."""
    u, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(u[:, sizes > 1e-9 * size])


def _clip(value: float) -> float:
    return float(min(1.0, max(0.0, value)))
