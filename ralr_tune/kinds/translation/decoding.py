"""Translates: beam search with a length penalty over a cache of keys and values; one hypothesis makes it greedy.

Score of a hypothesis: log-probability / ((5 + length) / 6) ** penalty (Wu et al. 2016, arXiv 1609.08144, equation 14,
without coverage); the length includes the end piece. A sentence is done when no open hypothesis can still beat the best
finished one, and then leaves the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from ralr_tune.kinds.translation.translator import Translator

LENGTH_FACTOR, LENGTH_MORE = 1.5, 10
"""Longest translation in pieces, from the length of the source (our choice; fairseq's default is 200 for all)."""


@dataclass(frozen=True)
class Search:
    """How to translate."""

    beam: int
    penalty: float
    begin: int
    end: int
    pad: int


GREEDY = 1


@dataclass
class _Open:
    """The hypotheses of the sentences that are not done: B sentences with K hypotheses each."""

    rows: Tensor
    """(B,): places of the sentences in the batch."""
    pieces: Tensor
    """(B, K, t)"""
    scores: Tensor
    """(B, K): log-probabilities."""
    best: Tensor
    """(B,): score of the best finished hypothesis; -inf without one."""
    longest: Tensor
    """(B,): pieces that a translation may have."""


@torch.no_grad()
def translate(
    model: Translator, sources: Tensor, search: Search, autocast: Callable[[], AbstractContextManager[object]]
) -> list[list[int]] | None:
    """The pieces of each translation, without special ones; None if the network's outputs are not finite.

    sources: (N, S), padded on the right.
    """
    found: list[list[int]] = [[] for _ in range(len(sources))]
    with autocast():
        memory = model.encode(sources)
        decoding = model.begin(memory, search.beam)
    state = _opened(sources, search)
    for length in range(1, int(state.longest.max()) + 1):
        with autocast():
            logits = model.logits(model.advance(decoding, state.pieces[..., -1].flatten()))
        chances = logits.float().log_softmax(-1).view(-1, search.beam, logits.shape[-1])
        parents = _extend(state, chances, length, search, found)
        if bool(state.scores[:, 0].isnan().any()):  # one NaN makes all of log_softmax NaN, and topk puts NaN first
            return None
        if search.beam > 1:
            decoding.reorder(parents)
        open_ = _not_done(state, length, search)
        if not bool(open_.any()):
            break
        if int(open_.sum()) <= 0.75 * len(open_):  # rarely: each time costs a copy of the cache
            _keep(state, open_.nonzero()[:, 0])
            decoding.keep(open_.nonzero()[:, 0])
    return found


def _opened(sources: Tensor, search: Search) -> _Open:
    count, device = len(sources), sources.device
    scores = torch.full((count, search.beam), -math.inf, device=device)
    scores[:, 0] = 0.0  # all hypotheses are the same before the first piece: only one may be continued
    lengths = (sources != search.pad).sum(1)
    return _Open(
        rows=torch.arange(count, device=device),
        pieces=torch.full((count, search.beam, 1), search.begin, device=device),
        scores=scores,
        best=torch.full((count,), -math.inf, device=device),
        longest=(LENGTH_FACTOR * lengths).long() + LENGTH_MORE,
    )


def _extend(state: _Open, chances: Tensor, length: int, search: Search, found: list[list[int]]) -> Tensor:
    """Adds one piece to the hypotheses, of which the likeliest stay open; returns the place (B * K,) of each one's
    parent. `chances`: (B, K, pieces), changed."""
    beam, size = search.beam, chances.shape[-1]
    chances[..., [search.pad, search.begin]] = -math.inf
    last = length >= state.longest  # (B,): only the end may follow
    if bool(last.any()):
        ends = chances[last][..., search.end]
        chances[last] = -math.inf
        chances[last.nonzero()[:, 0], :, search.end] = ends
    totals = (state.scores[..., None] + chances).flatten(1)
    scores, places = totals.topk(min(2 * beam, totals.shape[1]))  # of 2 K candidates, at most K end
    parents, pieces = places // size, places % size
    ended = pieces == search.end
    _finish(state, scores.masked_fill(~ended, -math.inf)[:, :beam], parents, length, search, found)
    scores, order = scores.masked_fill(ended, -math.inf).topk(beam)
    parents, pieces = parents.gather(1, order), pieces.gather(1, order)
    earlier = state.pieces.gather(1, parents[..., None].expand(-1, -1, state.pieces.shape[-1]))
    state.pieces, state.scores = torch.cat([earlier, pieces[..., None]], dim=-1), scores
    return (parents + beam * torch.arange(len(parents), device=parents.device)[:, None]).flatten()


def _finish(state: _Open, ended: Tensor, parents: Tensor, length: int, search: Search, found: list[list[int]]) -> None:
    """Stores the translation of each sentence whose best ended hypothesis is its best so far. `ended`: (B, K)."""
    scores, places = (ended / _divisor(length, search)).max(1)
    better = (scores > state.best).nonzero()[:, 0]
    state.best = torch.maximum(state.best, scores)
    if len(better):
        chosen = state.pieces[better, parents[better, places[better]], 1:]
        for row, pieces in zip(state.rows[better].tolist(), chosen.tolist(), strict=True):
            found[row] = pieces


def _not_done(state: _Open, length: int, search: Search) -> Tensor:
    """(B,): whether an open hypothesis may still beat the best finished one: its log-probability can only fall, and
    its divisor grows up to the longest length."""
    reachable = state.scores[:, 0] / ((5 + state.longest) / 6) ** search.penalty
    return (reachable > state.best) & (state.longest > length)


def _divisor(length: int, search: Search) -> float:
    return float(((5 + length) / 6) ** search.penalty)


def _keep(state: _Open, sentences: Tensor) -> None:
    state.rows, state.pieces = state.rows[sentences], state.pieces[sentences]
    state.scores, state.best, state.longest = (
        state.scores[sentences],
        state.best[sentences],
        state.longest[sentences],
    )
