"""What the report shows of the winners' translations: scores, BLEU by length, and sentences side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from ralr_tune.errors import DataError
from ralr_tune.kinds.translation.files import Pairs
from ralr_tune.kinds.translation.scores import Bootstrapped, Scorer, scorer_of
from ralr_tune.kinds.translation.section import TranslationSection
from ralr_tune.metric import MINUS
from ralr_tune.seeds import derive_seed
from ralr_tune.tasks.examples import Examples, ExampleTable

MAX_KEPT = 5000
"""Pairs that are kept of a validation split, evenly spaced (our choice)."""
EACH = 5
"""Sentences of each kind that are shown (our choice)."""
BINS = 4


class _Kept(TypedDict):
    sources: list[str]
    references: list[str]
    outputs: list[str]
    signatures: dict[str, str]


_FORM = TypeAdapter(_Kept)


def kept_examples(pairs: Pairs, outputs: Sequence[str], scorer: Scorer) -> Mapping[str, Any]:
    """What is kept of one arm."""
    rows = np.unique(np.linspace(0, len(pairs) - 1, min(MAX_KEPT, len(pairs))).astype(np.int64)).tolist()
    return {
        "sources": [pairs.sources[row] for row in rows],
        "references": [pairs.targets[row] for row in rows],
        "outputs": [outputs[row] for row in rows],
        "signatures": scorer.signatures(),
    }


@dataclass(frozen=True)
class _Arms:
    """The outputs of all arms for the same sentences; the first arm is the one that others are compared with."""

    sources: Sequence[str]
    references: Sequence[str]
    outputs: Mapping[str, Sequence[str]]
    scorer: Scorer

    @property
    def base(self) -> str:
        return next(iter(self.outputs))

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each reference."""
        return self.scorer.token_counts(self.references)


def shown_examples(section: TranslationSection, by_arm: Mapping[str, Mapping[str, Any]]) -> Examples:
    """The baseline is the first of the arms. Raises DataError if what was kept is not as expected."""
    kept = {arm: _read(content) for arm, content in by_arm.items()}
    first = next(iter(kept.values()))
    same = {arm: each for arm, each in kept.items() if each["sources"] == first["sources"]}
    arms = _Arms(
        first["sources"], first["references"], {arm: each["outputs"] for arm, each in same.items()}, scorer_of(section)
    )
    tables = [_scores(arms), *_by_length(arms)]
    for arm in list(arms.outputs)[1:]:
        tables += _side_by_side(arms, arm)
    if len(arms.outputs) == 1:
        tables.append(_random(arms))
    return Examples(_statement(section, arms, first["signatures"]), tuple(tables))


def _read(content: Mapping[str, Any]) -> _Kept:
    try:
        found = _FORM.validate_python(content)
    except ValidationError as error:
        raise DataError(f"not written by this release: {error.error_count()} values are missing or wrong") from error
    if not len(found["sources"]) == len(found["references"]) == len(found["outputs"]) > 0:
        raise DataError("not as many outputs as sources and references")
    return found


def _statement(section: TranslationSection, arms: _Arms, signatures: Mapping[str, str]) -> str:
    one, other = section.languages
    signed = "; ".join(f"{name}: {text}" for name, text in signatures.items())
    return (
        f"{len(arms.sources):,} validation pairs, {one} to {other}, translated by one network of each arm: its winner, "
        f"trained with the first judged seed on the train split. Beam search, {section.beam} hypotheses, length "
        f"penalty {section.length_penalty:g}. The bootstrap resamples sentences: it shows how much these scores depend "
        f"on the choice of sentences, and not on the seed; the verdict rests on the seeds. Signatures: {signed}."
    )


def _scores(arms: _Arms) -> ExampleTable:
    resampled = arms.scorer.paired_bootstrap(arms.outputs, arms.references)
    rows = tuple(_score_row(arms, arm, found) for arm, found in resampled.items())
    caption = f"Scores of these networks, and sacrebleu's paired bootstrap against {arms.base}."
    return ExampleTable(caption, ("arm", "BLEU", "95% interval", "p", "chrF", "length ratio"), rows)


def _score_row(arms: _Arms, arm: str, found: Bootstrapped) -> tuple[str, ...]:
    outputs = arms.outputs[arm]
    tokens = sum(arms.scorer.token_counts(outputs))
    return (
        arm,
        f"{found.score:.2f}",
        "" if found.half_width is None else f"±{found.half_width:.2f}",
        "" if found.p_value is None else f"{found.p_value:.3f}",
        f"{arms.scorer.scores(outputs, arms.references)['chrf']:.2f}",
        f"{tokens / max(1, sum(arms.lengths)):.3f}",
    )


def _by_length(arms: _Arms) -> list[ExampleTable]:
    """BLEU of sentences of similar length; none if there are too few sentences."""
    lengths = np.array(arms.lengths)
    parts = [part for part in np.array_split(np.argsort(lengths, kind="stable"), BINS) if len(part)]
    if len(lengths) < 10 * BINS:
        return []
    rows = tuple(
        (arm, *(_bleu_of(arms, outputs, part.tolist()) for part in parts)) for arm, outputs in arms.outputs.items()
    )
    head = tuple(f"{lengths[part].min()} to {lengths[part].max()} tokens" for part in parts)
    return [
        ExampleTable(
            "BLEU by the length of the reference in BLEU's tokens, in four parts of equal size.", ("arm", *head), rows
        )
    ]


def _bleu_of(arms: _Arms, outputs: Sequence[str], rows: Sequence[int]) -> str:
    some = [outputs[row] for row in rows], [arms.references[row] for row in rows]
    return f"{arms.scorer.scores(*some)['bleu']:.1f}"


def _side_by_side(arms: _Arms, arm: str) -> list[ExampleTable]:
    """The sentences that gained and lost most, and random ones."""
    scores = {name: arms.scorer.sentences(arms.outputs[name], arms.references) for name in (arms.base, arm)}
    gains = np.array(scores[arm]) - np.array(scores[arms.base])
    order = np.argsort(-gains, kind="stable")
    better = [row for row in order[:EACH].tolist() if gains[row] > 0]
    worse = [row for row in order[::-1][:EACH].tolist() if gains[row] < 0]
    kinds = (
        (f"Most improved in {arm} against {arms.base}, by chrF of the sentence.", better),
        (f"Most worsened in {arm} against {arms.base}.", worse),
        (f"Random sentences, {arm} and {arms.base}.", _drawn(len(gains))),
    )
    return [_sentences(arms, caption, rows, (arms.base, arm), gains.tolist()) for caption, rows in kinds if rows]


def _random(arms: _Arms) -> ExampleTable:
    return _sentences(arms, "Random sentences.", _drawn(len(arms.sources)), (arms.base,), None)


def _drawn(count: int) -> list[int]:
    generator = np.random.Generator(np.random.PCG64(derive_seed("examples", count)))
    drawn: list[int] = generator.permutation(count)[:EACH].tolist()
    return drawn


def _sentences(
    arms: _Arms, caption: str, rows: Sequence[int], names: Sequence[str], gains: Sequence[float] | None
) -> ExampleTable:
    head = ("source", "reference", *names, *(() if gains is None else ("chrF",)))
    cells = tuple(
        (
            arms.sources[row],
            arms.references[row],
            *(arms.outputs[name][row] for name in names),
            *(() if gains is None else (f"{gains[row]:+.1f}".replace("-", MINUS),)),
        )
        for row in rows
    )
    return ExampleTable(caption, head, cells, left=2 + len(names))
