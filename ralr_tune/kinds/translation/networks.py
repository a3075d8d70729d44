"""The networks by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ralr_tune.errors import UsageError
from ralr_tune.kinds.translation.lstm import AttentionLstm
from ralr_tune.kinds.translation.section import TranslationSection
from ralr_tune.kinds.translation.transformer import Transformer
from ralr_tune.kinds.translation.translator import Network, Translator

SHAPES: Mapping[str, Mapping[str, Any]] = {
    "transformer_tiny": {"layers": 4, "width": 128, "heads": 4, "feedforward": 256, "norm": "post"},
    "transformer_small": {"layers": 6, "width": 512, "heads": 4, "feedforward": 1024, "norm": "post"},
    "transformer_base": {"layers": 6, "width": 512, "heads": 8, "feedforward": 2048, "norm": "post"},
    "lstm": {"layers": 2, "width": 256, "heads": 1, "feedforward": 1, "norm": "post"},
}
"""tiny: Wu et al. 2021 (arXiv 2105.14462) for Multi30k; small: fairseq's transformer_iwslt_de_en; base: Vaswani et al.
2017, table 3; lstm: our choice."""

SMALLEST = {"layers": 1, "width": 2, "heads": 1, "feedforward": 1}


def shape_of(section: TranslationSection, *, pieces: int, pad: int) -> Network:
    """The network that `section` describes, in numbers. Raises UsageError, naming option, value and what is allowed."""
    given = {**SHAPES[str(section.model)], **section.model_options}
    for name, low in SMALLEST.items():
        if type(given[name]) is not int or given[name] < low:
            raise UsageError(f"task.model_options.{name} = {given[name]!r}: must be an integer, at least {low}")
    if given["norm"] not in ("pre", "post"):
        raise UsageError(f"task.model_options.norm = {given['norm']!r}: allowed: pre, post")
    if given["width"] % (2 * given["heads"]):
        raise UsageError(
            f"task.model_options.width = {given['width']}: must be a multiple of twice the heads, {given['heads']}"
        )
    return Network(pieces=pieces, pad=pad, dropout=float(str(section.dropout)), **given)


def build(section: TranslationSection, *, pieces: int, pad: int) -> Translator:
    """The network with weights from torch's global generator. Raises UsageError."""
    return build_network(str(section.model), shape_of(section, pieces=pieces, pad=pad))


def build_network(model: str, shape: Network) -> Translator:
    """The network of this name with weights from torch's global generator."""
    return AttentionLstm(shape) if model == "lstm" else Transformer(shape)
