"""BLEU and chrF by sacrebleu. Their signatures say how they were computed, and are shown with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ralr_tune.kinds.translation.section import TranslationSection

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric as SacreMetric


class Bootstrapped(NamedTuple):
    """A score of one set of outputs, resampled over sentences: one seed, so not an interval of the method."""

    score: float
    half_width: float | None
    """Of the 95% interval over samples of sentences."""
    p_value: float | None
    """Of a difference from the first system; None for that one."""


class Scorer(NamedTuple):
    """How translations are scored."""

    tokenize: str
    lowercase: bool

    def scores(self, outputs: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Corpus BLEU and chrF, 0 to 100, of one reference for each output."""
        return {name: self._score(metric, outputs, references) for name, metric in self._metrics().items()}

    def signatures(self) -> dict[str, str]:
        """By metric, sacrebleu's own description of how it is computed; known after the first score."""
        for metric in self._metrics().values():
            self._score(metric, ["a"], ["a"])
        return {name: str(metric.get_signature()) for name, metric in self._metrics().items()}

    def token_counts(self, lines: Sequence[str]) -> list[int]:
        """Tokens of each line as BLEU counts them: languages without spaces have no words to count."""
        metric: Any = self._metrics()["bleu"]
        return [int(metric.corpus_score([line], [[line]]).ref_len) for line in lines]

    def sentences(self, outputs: Sequence[str], references: Sequence[str]) -> list[float]:
        """chrF of each output alone: BLEU of a single sentence is mostly 0 or smoothing."""
        metric: Any = self._metrics()["chrf"]
        return [metric.sentence_score(out, [ref]).score for out, ref in zip(outputs, references, strict=True)]

    def paired_bootstrap(
        self, outputs: Mapping[str, Sequence[str]], references: Sequence[str], samples: int = 1000
    ) -> dict[str, Bootstrapped]:
        """BLEU of each system, and how it compares with the first one (Koehn 2004), as sacrebleu computes it."""
        from sacrebleu.significance import PairedTest

        metrics = {"BLEU": self._metrics()["bleu"]}
        _, found = PairedTest(list(outputs.items()), metrics, [list(references)], "bs", samples, n_jobs=1)()
        results: Sequence[Any] = found["BLEU"]
        return {
            name: Bootstrapped(result.score, result.ci, result.p_value)
            for name, result in zip(outputs, results, strict=True)
        }

    def _metrics(self) -> Mapping[str, SacreMetric]:
        return _metrics(self.tokenize, self.lowercase)

    @staticmethod
    def _score(metric: SacreMetric, outputs: Sequence[str], references: Sequence[str]) -> float:
        # one list of all references: given the other way round, sacrebleu silently scores the first pairs only
        if len(outputs) != len(references):
            raise ValueError(f"{len(outputs)} outputs and {len(references)} references")
        return float(metric.corpus_score(list(outputs), [list(references)]).score)


def scorer_of(section: TranslationSection) -> Scorer:
    return Scorer(section.tokenize, section.lowercase)


@cache
def _metrics(tokenize: str, lowercase: bool) -> Mapping[str, SacreMetric]:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    return {"bleu": BLEU(tokenize=tokenize, lowercase=lowercase), "chrf": CHRF(lowercase=lowercase)}
