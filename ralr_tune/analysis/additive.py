"""Additive spline regression: the share of the variance of y that one column explains beyond all others.

Symbols: y (n,); B_j (n, k_j) the basis of column j (natural cubic splines of its value or its logarithm, dummies of a
choice), orthonormal, straight line first, then finer and finer terms; Q (n, m) an orthonormal basis of the intercept
and of those spline terms of the other columns that AICc keeps (selected without column j; with few rows, each column
that enters is charged, see `_charge`). The gain of j is what B_j explains of y beyond Q, minus twice what noise columns
would explain (AIC), at the resolution that maximises it; its share is the gain divided by the variance of y. The null
band permutes the rows of B_j alone and selects the resolution again for each permutation: permuting y instead would
hide a weak column behind the effect of a dominant one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]
Scale = Literal["linear", "log", "choice"]

DRAWS = 500  # permutations of the null, and resamples of the interval
BAND = (2.5, 97.5)  # percent, of null and of interval
RESOLUTIONS = (1, 2, 4, 8)  # degrees of freedom of a spline; the knots are nested
ROWS_PER_DEGREE = 5  # of the tested column
MAX_NUISANCE = 0.5  # columns of Q per row of y
MIN_OWN = 0.05  # share of a column's coarsest resolution that must lie beyond the others, otherwise it is not tested
EPSILON = 1e-9  # residual length below which a column counts as rounding error
CHUNK = 2_000_000  # most numbers in the permuted bases at a time


class Column(NamedTuple):
    """The values of one parameter and how it is measured."""

    scale: Scale
    values: Sequence[Any]
    rows: Rows | None = None
    """Indices of the rows that have the parameter, one per value; None: all n rows."""


class Share(NamedTuple):
    """One column's share of the variance of y, clipped to [0, 1]."""

    value: float
    interval: tuple[float, float]
    """95%, over the noise of the same rows."""
    null: tuple[float, float]
    """Where 95% of the values fall when the column has no effect."""


class _Basis(NamedTuple):
    columns: Array
    """(n, k), orthonormal; 0 in the rows that lack the parameter."""
    steps: tuple[int, ...]
    """Number of leading columns that each resolution uses."""
    rows: Rows


class _Target(NamedTuple):
    """One column against the others' q (n, m): its basis, limited to the resolutions that the number of rows allows."""

    q: Array
    basis: _Basis


def shares(columns: Mapping[str, Column], y: Array, *, seed: int = 0) -> dict[str, Share]:
    """Share of each column that can be tested; deterministic for a given seed.

    Left out: columns with one value or too few rows, columns that the others determine, and all if y is constant.
    """
    bases = {
        name: _basis(column, len(y)) for name, column in columns.items() if len({str(one) for one in column.values}) > 1
    }
    found = {}
    for index, (name, basis) in enumerate(bases.items()):
        target = _target(basis, [bases[other] for other in bases if other != name], y)
        if target is not None:
            found[name] = _share(target, y, np.random.default_rng([seed, index]))
    return found


def _target(basis: _Basis, others: Sequence[_Basis], y: Array) -> _Target | None:
    """None if the column cannot be tested."""
    steps = tuple(step for step in basis.steps if step * ROWS_PER_DEGREE <= len(basis.rows))
    if not steps or np.ptp(y) == 0:
        return None
    q = _nuisance(others, y, _constants(basis.rows, len(y)))
    if np.square(_beyond(q, basis.columns[:, : steps[0]])).sum() < MIN_OWN * steps[0]:
        return None
    return _Target(q, _Basis(basis.columns[:, : steps[-1]], steps, basis.rows))


def _constants(rows: Rows, n: int) -> Array:
    """The intercept and, if some rows lack the parameter, an indicator of the rows that have it; orthonormal."""
    has = np.zeros(n)
    has[rows] = 1
    return _orthonormal(np.stack([np.ones(n), has], axis=1))


def _nuisance(bases: Sequence[_Basis], y: Array, start: Array) -> Array:
    """Q: start, plus the resolutions of the bases that lower the criterion, added greedily one at a time.

    The criterion is AICc, plus `_charge` for each basis that enters.
    """
    q, taken, charge = start, [0] * len(bases), _charge(bases, len(y))
    while True:
        rest = y - q @ (q.T @ y)
        best, chosen = _aicc(float(np.square(rest).sum()), *q.shape), None
        for index, basis in enumerate(bases):
            entry = 0.0 if taken[index] else charge
            for step in basis.steps:
                if step <= taken[index] or q.shape[1] + step - taken[index] > MAX_NUISANCE * len(y):
                    continue
                own = _orthonormal(_beyond(q, basis.columns[:, taken[index] : step]))
                left = float(np.square(rest).sum() - np.square(own.T @ rest).sum())
                if (score := _aicc(left, len(y), q.shape[1] + own.shape[1]) + entry) < best - 1e-9:
                    best, chosen = score, (index, step, own)
        if chosen is None:
            return q
        index, taken[chosen[0]] = chosen[0], chosen[1]
        q = np.hstack([q, chosen[2]])


def _charge(bases: Sequence[_Basis], n: int) -> float:
    """2 log p if p, the number of columns to select from, exceeds what Q may hold; otherwise 0.

    The best of p columns of noise fits by a chi-squared of about 2 log p, which is the price of the risk inflation
    criterion (Foster and George 1994). AICc alone admits bases that only fit by chance, and they explain part of what
    the tested column does. Charged once for a basis, because its columns enter in a fixed order (our choice).
    With many rows no charge (our choice): chance takes a smaller part, but a basis that acts weakly and was left out
    makes the columns that correlate with it matter, the more rows the more often.
    """
    p = sum(basis.columns.shape[1] for basis in bases)
    return 2 * math.log(p) if p > MAX_NUISANCE * n else 0.0


def _aicc(left: float, n: int, m: int) -> float:
    """Akaike's criterion for small samples (Hurvich and Tsai 1989): m columns, residual sum of squares `left`."""
    return n * math.log(max(left, 1e-300)) + 2 * m * n / (n - m - 1)


def _share(target: _Target, y: Array, rng: np.random.Generator) -> Share:
    """Value, interval and null band of one column."""
    own = _in_order(_beyond(target.q, target.basis.columns))
    value = float(_explained(target, own, y[None])[0])
    null = np.percentile(_explained_by_chance(target, y, rng), BAND)
    resampled = _explained(target, own, _resamples(np.hstack([target.q, own]), y, rng))
    # Refitting a fitted curve biases every resample slightly upwards; shift the interval back by that bias.
    low, high = np.percentile(resampled + value - resampled.mean(), BAND)
    return Share(_clip(value), (_clip(min(low, value)), _clip(max(high, value))), (_clip(null[0]), _clip(null[1])))


def _explained(target: _Target, own: Array, ys: Array) -> Array:
    """Share of the variance of each of ys (r, n) that own (n, k), orthonormal and beyond q, explains; shape (r,)."""
    rest = ys - (ys @ target.q) @ target.q.T
    totals = np.square(ys - ys.mean(axis=1, keepdims=True)).sum(axis=1)
    return _ratios(target, np.square(rest @ own), np.square(rest).sum(axis=1), totals)


def _explained_by_chance(target: _Target, y: Array, rng: np.random.Generator) -> Array:
    """The same share of y (n,) for DRAWS permutations of the basis among the rows that have it; shape (DRAWS,)."""
    n, k = target.basis.columns.shape
    rest = y - target.q @ (target.q.T @ y)
    stacked = np.vstack([target.q.T, rest])
    gains = []
    for draws in _chunks(max(1, CHUNK // (n * k))):
        rows = np.tile(np.arange(n), (draws, 1))
        rows[:, target.basis.rows] = rng.permuted(rows[:, target.basis.rows], axis=1)
        along = stacked @ target.basis.columns[rows]
        # A permuted basis stays orthonormal, so the Gram matrix of its part beyond q replaces a QR decomposition.
        beyond = (1 + EPSILON) * np.eye(k) - along[:, :-1].transpose(0, 2, 1) @ along[:, :-1]
        gains.append(np.square(np.linalg.solve(np.linalg.cholesky(beyond), along[:, -1:].transpose(0, 2, 1))[..., 0]))
    return _ratios(target, np.concatenate(gains), np.square(rest).sum(), np.square(y - y.mean()).sum())


def _chunks(size: int) -> list[int]:
    """DRAWS in parts of at most this size."""
    return [min(size, DRAWS - done) for done in range(0, DRAWS, size)]


def _ratios(target: _Target, gains: Array, rest: Array, totals: Array) -> Array:
    """Shares of totals that k columns explain, from the sum of squares of each column, (r, k); at least 0, below 1.

    The m columns of the others absorb m / n of any effect by chance; effect and noise are scaled up to correct it. If
    they absorbed less, the total is the sum of the scaled effect and noise. The share always grows with the gain.
    """
    n, m = target.q.shape
    summed = np.cumsum(gains, axis=1)
    noise = (rest - summed[:, -1]) / (n - m - summed.shape[1])
    net = np.max([summed[:, step - 1] - 2 * step * noise for step in target.basis.steps], axis=0)
    effects = np.clip(net, 0, None) * (n - 1) / (n - m)
    return np.asarray(effects / np.maximum(totals, effects + (n - 1) * noise))


def _resamples(q: Array, y: Array, rng: np.random.Generator) -> Array:
    """Wild bootstrap (Wu 1986), shape (DRAWS, n): the fit plus residuals with random signs.

    It preserves heteroscedastic noise; resampling whole rows would duplicate some and fit them twice.
    """
    fit = q @ (q.T @ y)
    leverage = np.clip(np.square(q).sum(axis=1), 0.0, 0.99)
    signs = rng.choice([-1.0, 1.0], size=(DRAWS, len(y)))
    return np.asarray(fit + signs * (y - fit) / np.sqrt(1 - leverage))


def _basis(column: Column, n: int) -> _Basis:
    """Basis of one column of at least two values, without the constant."""
    rows = np.arange(n) if column.rows is None else column.rows
    finer = [_dummies(column.values)] if column.scale == "choice" else _splines(column)
    own, steps = np.empty((len(rows), 0)), []
    for columns in finer:
        own = np.hstack([own, _orthonormal(_beyond(own, columns - columns.mean(axis=0)))])
        steps.append(own.shape[1])
    placed = np.zeros((n, own.shape[1]))
    placed[rows] = own
    return _Basis(placed, tuple(steps), rows)


def _dummies(values: Sequence[Any]) -> Array:
    """One column per choice except the first."""
    levels = sorted({str(value) for value in values})
    return np.array([[str(value) == level for level in levels[1:]] for value in values], dtype=float)


def _splines(column: Column) -> list[Array]:
    """A numeric column at each resolution that its distinct values allow."""
    x = np.asarray(column.values, dtype=float)
    x = np.log(x) if column.scale == "log" else x
    x = (x - x.min()) / np.ptp(x)
    distinct = np.unique(x)
    allowed = [degrees for degrees in RESOLUTIONS if degrees < len(distinct)]
    return [_natural_spline(x, np.quantile(distinct, np.linspace(0, 1, degrees + 1))) for degrees in allowed]


def _natural_spline(x: Array, knots: Array) -> Array:
    """Natural cubic spline basis (Hastie, Tibshirani, Friedman 2009, eq. 5.4 and 5.5) without its constant."""

    def cubic(knot: float) -> Array:
        cubes = np.clip(x - knot, 0, None) ** 3 - np.clip(x - knots[-1], 0, None) ** 3
        return np.asarray(cubes / (knots[-1] - knot))

    return np.stack([x, *(cubic(knot) - cubic(knots[-2]) for knot in knots[:-2])], axis=1)


def _beyond(q: Array, bases: Array) -> Array:
    """Residual of bases (..., n, k) after projection onto q (n, m)."""
    return np.asarray(bases - q @ (q.T @ bases))


def _in_order(columns: Array) -> Array:
    """Orthonormal columns (..., n, k), each the residual beyond those before it; 0 if nothing is left."""
    q, r = np.linalg.qr(columns)
    sizes = np.abs(np.diagonal(r, axis1=-2, axis2=-1))
    return np.asarray(q * (sizes > EPSILON)[..., None, :])


def _orthonormal(columns: Array) -> Array:
    """Orthonormal basis of the span of columns, without directions that are rounding errors."""
    u, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(u[:, sizes > EPSILON])


def _clip(value: float) -> float:
    return float(min(1.0, max(0.0, value)))
