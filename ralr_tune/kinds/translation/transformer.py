"""The Transformer of Vaswani et al. 2017 on torch's `scaled_dot_product_attention`.

Not `nn.Transformer`: its nested-tensor path truncates, its training and evaluation paths differ, and it has no cache
for decoding. Here both modes run the same operations. Every source has at least its end piece, and padding follows on
the right, so that no row of an attention mask is empty.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ralr_tune.kinds.translation.translator import Decoding, Network, Translator


class Transformer(Translator):
    """Encoder and decoder of equally many layers, with sinusoidal positions."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.encoder = nn.ModuleList(EncoderLayer(network) for _ in range(network.layers))
        self.decoder = nn.ModuleList(DecoderLayer(network) for _ in range(network.layers))
        last = nn.LayerNorm if network.norm == "pre" else _Same  # a post-norm layer ends with its own normalisation
        self.encoder_norm, self.decoder_norm = last(network.width), last(network.width)
        self.dropout = nn.Dropout(network.dropout)

    def encode(self, sources: Tensor) -> list[Tensor]:
        """The outputs (N, S, width) and the mask of real pieces (N, S)."""
        real = sources != self.network.pad
        x = self._entered(sources, 0)
        for layer in self.encoder:
            x = layer(x, real[:, None, None, :])
        return [self.encoder_norm(x), real]

    def states(self, memory: Sequence[Tensor], targets: Tensor) -> Tensor:
        x, (outputs, real) = self._entered(targets, 0), memory
        for layer in self._decoder_layers():
            x = layer(x, layer.cross.keys_and_values(outputs), real[:, None, None, :])
        normed: Tensor = self.decoder_norm(x)
        return normed

    def begin(self, memory: Sequence[Tensor], hypotheses: int) -> Decoding:
        """Memory: the mask, then keys and values of each layer. Caches: keys and values of each layer."""
        outputs, real = memory
        crossed = [part for layer in self._decoder_layers() for part in layer.cross.keys_and_values(outputs)]
        empty = outputs.new_zeros(len(outputs) * hypotheses, self.network.heads, 0, self._head)
        return Decoding([real, *crossed], [empty] * (2 * len(self.decoder)), hypotheses)

    def advance(self, decoding: Decoding, pieces: Tensor) -> Tensor:
        x = self._entered(pieces[:, None], decoding.caches[0].shape[2])
        real, *crossed = decoding.memory
        caches: list[Tensor] = []
        for place, layer in enumerate(self._decoder_layers()):
            pair = slice(2 * place, 2 * place + 2)
            x, kept = layer.advance(x, decoding.caches[pair], crossed[pair], real, decoding.hypotheses)
            caches += kept
        decoding.caches = caches
        normed: Tensor = self.decoder_norm(x)
        return normed[:, 0]

    def _decoder_layers(self) -> Iterator[DecoderLayer]:
        """`decoder`, whose elements torch declares as modules."""
        return (cast(DecoderLayer, layer) for layer in self.decoder)

    @property
    def _head(self) -> int:
        return self.network.width // self.network.heads

    def _entered(self, pieces: Tensor, first: int) -> Tensor:
        x = self.embedded(pieces)
        entered: Tensor = self.dropout(x + positions(first, pieces.shape[1], self.network.width, x))
        return entered


def positions(first: int, count: int, width: int, like: Tensor) -> Tensor:
    """(count, width): sine and cosine of geometric wavelengths (Vaswani et al. 2017, section 3.5), from `first` on."""
    place = torch.arange(first, first + count, device=like.device, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, device=like.device, dtype=torch.float32) * (-math.log(10_000) / width))
    return torch.cat([(place * rate).sin(), (place * rate).cos()], dim=1)[:, :width].to(like.dtype)


class _Same(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


class Attention(nn.Module):
    """Multi-head attention; queries from one sequence, keys and values from another or the same."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.heads, self.dropout = network.heads, network.dropout
        self.queries = nn.Linear(network.width, network.width)
        self.memory = nn.Linear(network.width, 2 * network.width)
        self.output = nn.Linear(network.width, network.width)
        for part in (self.queries.weight, *self.memory.weight.chunk(2), self.output.weight):
            nn.init.xavier_uniform_(part)
        for layer in (self.queries, self.memory, self.output):
            nn.init.zeros_(layer.bias)

    def keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both (N, heads, T, head)."""
        keys, values = self.memory(x).chunk(2, dim=-1)
        return self._split(keys), self._split(values)

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """(N, T, width) from queries of `x`, (N, T, width), and keys and values (N, heads, S, head).

        `mask`: True where a key may be read (scaled_dot_product_attention's meaning, not nn.Transformer's)."""
        mixed = F.scaled_dot_product_attention(
            self._split(self.queries(x)),
            keys,
            values,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal,
        )
        found: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return found

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)


class _Layer(nn.Module):
    """Parts with a residual connection and a normalisation before or after each."""

    def __init__(self, network: Network, parts: int) -> None:
        super().__init__()
        self.pre = network.norm == "pre"
        self.norms = nn.ModuleList(nn.LayerNorm(network.width) for _ in range(parts))
        self.dropout = nn.Dropout(network.dropout)
        self.widen = nn.Linear(network.width, network.feedforward)
        self.narrow = nn.Linear(network.feedforward, network.width)
        for layer in (self.widen, self.narrow):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def entering(self, part: int, x: Tensor) -> Tensor:
        """(N, T, width): what this part of the layer reads; `x`: the residual stream, of the same shape."""
        return self.norms[part](x) if self.pre else x

    def leaving(self, part: int, x: Tensor, change: Tensor) -> Tensor:
        """(N, T, width): the residual stream after this part, which adds `change`."""
        x = x + self.dropout(change)
        return x if self.pre else self.norms[part](x)

    def fed_forward(self, part: int, x: Tensor) -> Tensor:
        inner = self.dropout(F.relu(self.widen(self.entering(part, x))))
        return self.leaving(part, x, self.narrow(inner))


class EncoderLayer(_Layer):
    def __init__(self, network: Network) -> None:
        super().__init__(network, 2)
        self.attention = Attention(network)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(N, S, width) from the same shape; `mask`: (N, 1, 1, S), True for real pieces."""
        entered = self.entering(0, x)
        x = self.leaving(0, x, self.attention(entered, *self.attention.keys_and_values(entered), mask))
        return self.fed_forward(1, x)


class DecoderLayer(_Layer):
    def __init__(self, network: Network) -> None:
        super().__init__(network, 3)
        self.attention, self.cross = Attention(network), Attention(network)

    def forward(self, x: Tensor, crossed: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """(N, T, width) from the same shape. `crossed`: keys and values of the memory, (N, heads, S, head); `mask`: its
        real pieces, (N, 1, 1, S).

        Padding of the targets is on the right: a causal mask alone keeps real pieces from reading it.
        """
        entered = self.entering(0, x)
        x = self.leaving(0, x, self.attention(entered, *self.attention.keys_and_values(entered), causal=True))
        x = self.leaving(1, x, self.cross(self.entering(1, x), *crossed, mask))
        return self.fed_forward(2, x)

    def advance(
        self, x: Tensor, cache: Sequence[Tensor], crossed: Sequence[Tensor], real: Tensor, hypotheses: int
    ) -> tuple[Tensor, list[Tensor]]:
        """The next state (B * K, 1, width), and the cache with its key and value."""
        entered = self.entering(0, x)
        newest = self.attention.keys_and_values(entered)
        kept = [torch.cat([old, new], dim=2) for old, new in zip(cache, newest, strict=True)]
        x = self.leaving(0, x, self.attention(entered, *kept))
        # the hypotheses of a sentence read its memory as K queries of one sequence: it is not copied for each
        asking = self.entering(1, x).view(-1, hypotheses, x.shape[-1])
        found = self.cross(asking, *crossed, real[:, None, None, :])
        x = self.leaving(1, x, found.reshape(x.shape))
        return self.fed_forward(2, x), kept
