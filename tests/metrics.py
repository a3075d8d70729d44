"""Metrics for tests: one of each direction and unit."""

from __future__ import annotations

from ralr_tune.metric import Metric

ACCURACY = Metric("accuracy", direction="maximize", unit="share", worst=0.0, default_margin=0.005)
LOSS = Metric("loss", direction="minimize")
BLEU = Metric("BLEU", direction="maximize", worst=0.0)
