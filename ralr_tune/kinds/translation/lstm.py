"""An LSTM with attention: a bidirectional encoder, and a decoder whose outputs attend to it.

Source: Luong et al. 2015, arXiv 1508.04025, score "general".

Without Luong's input feeding, which would need a loop over the pieces of the targets in training.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ralr_tune.kinds.translation.translator import Decoding, Network, Translator


class AttentionLstm(Translator):
    """`heads`, `feedforward` and `norm` have no effect."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        width, layers = network.width, network.layers
        between = network.dropout if layers > 1 else 0.0
        self.encoder = nn.LSTM(width, width // 2, layers, dropout=between, bidirectional=True, batch_first=True)
        self.decoder = nn.LSTM(width, width, layers, dropout=between, batch_first=True)
        self.asking = nn.Linear(width, width, bias=False)
        self.combined = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(network.dropout)

    def encode(self, sources: Tensor) -> list[Tensor]:
        """The outputs (N, S, width), the mask of real pieces (N, S), and the decoder's first state (N, layers, width),
        twice: hidden and cell."""
        real = sources != self.network.pad
        packed = pack_padded_sequence(
            self.dropout(self.embedded(sources)), real.sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        outputs, state = self.encoder(packed)
        padded, _ = pad_packed_sequence(outputs, batch_first=True, total_length=sources.shape[1])
        return [padded, real, *(self._joined(part) for part in state)]

    def states(self, memory: Sequence[Tensor], targets: Tensor) -> Tensor:
        outputs, real, hidden, cell = memory
        found, _ = self.decoder(self.dropout(self.embedded(targets)), (_layers_first(hidden), _layers_first(cell)))
        return self._attended(found, outputs, real)

    def begin(self, memory: Sequence[Tensor], hypotheses: int) -> Decoding:
        outputs, real, *state = memory
        return Decoding([outputs, real], [part.repeat_interleave(hypotheses, dim=0) for part in state], hypotheses)

    def advance(self, decoding: Decoding, pieces: Tensor) -> Tensor:
        hidden, cell = map(_layers_first, decoding.caches)
        found, state = self.decoder(self.dropout(self.embedded(pieces[:, None])), (hidden, cell))
        decoding.caches = [part.transpose(0, 1) for part in state]
        outputs, real = decoding.memory
        return self._attended(found.view(len(outputs), -1, found.shape[-1]), outputs, real).flatten(0, 1)

    def _attended(self, found: Tensor, outputs: Tensor, real: Tensor) -> Tensor:
        """(N, T, width) from the decoder's outputs (N, T, width)."""
        scores = self.asking(found) @ outputs.transpose(1, 2)
        weights = scores.masked_fill(~real[:, None, :], float("-inf")).softmax(-1)
        attended: Tensor = self.dropout(torch.tanh(self.combined(torch.cat([weights @ outputs, found], dim=-1))))
        return attended

    def _joined(self, state: Tensor) -> Tensor:
        """The encoder's last state (2 * layers, N, width / 2) as (N, layers, width)."""
        forward, backward = state[0::2], state[1::2]
        return torch.cat([forward, backward], dim=-1).transpose(0, 1)


def _layers_first(state: Tensor) -> Tensor:
    return state.transpose(0, 1).contiguous()
