"""What training and decoding need from a network that translates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Network:
    """The shape of a network."""

    pieces: int
    pad: int
    layers: int
    width: int
    heads: int
    feedforward: int
    norm: str
    """"pre" or "post": before or after each part of a layer."""
    dropout: float


@dataclass
class Decoding:
    """Translations in progress of B sentences with K hypotheses each."""

    memory: Sequence[Tensor]
    """What the encoder found, (B, ...)."""
    caches: list[Tensor]
    """What the decoder keeps of the pieces so far, (B * K, ...); hypotheses of a sentence are consecutive."""
    hypotheses: int = 1

    def reorder(self, places: Tensor) -> None:
        """Keeps the hypotheses at these places of the B * K, (B * K,)."""
        self.caches = [cache.index_select(0, places) for cache in self.caches]

    def keep(self, sentences: Tensor) -> None:
        """Keeps only these sentences, (B',)."""
        self.memory = [part.index_select(0, sentences) for part in self.memory]
        places = sentences[:, None] * self.hypotheses + torch.arange(self.hypotheses, device=sentences.device)
        self.reorder(places.flatten())


class Translator(nn.Module, ABC):
    """A network with an encoder and a decoder that share their embeddings with the output layer.

    Embeddings are initialised with standard deviation width ** -0.5 and multiplied by sqrt(width), so that they enter
    the layers with variance 1 and give logits of variance 1 (Vaswani et al. 2017, section 3.4).
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.embedding = nn.Embedding(network.pieces, network.width, padding_idx=network.pad)
        nn.init.normal_(self.embedding.weight, std=network.width**-0.5)
        with torch.no_grad():
            self.embedding.weight[network.pad].zero_()

    def embedded(self, pieces: Tensor) -> Tensor:
        """(..., width)"""
        found: Tensor = self.embedding(pieces) * self.network.width**0.5
        return found

    def logits(self, states: Tensor) -> Tensor:
        """(..., pieces)"""
        return nn.functional.linear(states, self.embedding.weight)

    @abstractmethod
    def encode(self, sources: Tensor) -> list[Tensor]:
        """Memory of the sources (N, S): tensors (N, ...), which `forward` and `advance` read."""

    @abstractmethod
    def states(self, memory: Sequence[Tensor], targets: Tensor) -> Tensor:
        """(N, T, width): the state after each piece of the targets (N, T), from which the next piece is predicted."""

    @abstractmethod
    def begin(self, memory: Sequence[Tensor], hypotheses: int) -> Decoding:
        """Translations of which no piece is known yet."""

    @abstractmethod
    def advance(self, decoding: Decoding, pieces: Tensor) -> Tensor:
        """(B * K, width): the state after one more piece of each hypothesis, (B * K,). Changes `decoding`."""

    def forward(self, sources: Tensor, targets: Tensor) -> Tensor:
        """Logits (N, T, pieces) of the piece after each of the targets."""
        return self.logits(self.states(self.encode(sources), targets))
