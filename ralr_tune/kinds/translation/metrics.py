"""The metrics of a translation. No torch: a study file is checked without it."""

from __future__ import annotations

from collections.abc import Mapping

from ralr_tune.metric import Metric

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("bleu", direction="maximize", worst=0.0, default_margin=0.3, label="BLEU"),
        Metric("chrf", direction="maximize", worst=0.0, default_margin=0.3, label="chrF"),
        Metric("loss", direction="minimize"),
    )
}
"""By name (`study.metric`); the first is the default. `scores.py` computes them.

bleu    corpus BLEU of sacrebleu, 0 to 100
chrf    corpus chrF2 of sacrebleu, 0 to 100
loss    mean cross-entropy per target piece, end of sentence included, without label smoothing, in nats

The margin of 0.3 points is our choice: about the standard deviation of BLEU between seeds on test sets of 1,000 to
3,000 sentences.
"""


def epoch_metrics(judged: Metric) -> Mapping[str, Metric]:
    """What is measured every epoch besides the metric that judges.

    The loss costs one pass and chrF nothing, once there are translations. With the loss as the metric nothing is
    translated until the last epoch of confirm, so BLEU is not measured every epoch.
    """
    if judged.name == "loss":
        return {}
    return {name: metric for name, metric in METRICS.items() if name != judged.name}
