"""The metrics of a classification against scikit-learn's, batch by batch, for one network and for several at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn
from torch import Tensor

from ralr_tune.errors import UsageError
from ralr_tune.kinds.classification.metrics import METRICS
from ralr_tune.kinds.classification.scores import check_classes, make_score

CLASSES, IMAGES, SLOTS = 8, 203, 3
LABELS = range(CLASSES)

EXPECTED: dict[str, Callable[[Tensor, Tensor], float]] = {
    "accuracy": lambda outputs, labels: sklearn.accuracy_score(labels, outputs.argmax(1)),
    "balanced_accuracy": lambda outputs, labels: sklearn.balanced_accuracy_score(labels, outputs.argmax(1)),
    "top5_accuracy": lambda outputs, labels: sklearn.top_k_accuracy_score(labels, outputs, k=5, labels=LABELS),
    "loss": lambda outputs, labels: sklearn.log_loss(labels, outputs.double().softmax(1), labels=LABELS),
}


def drawn(seed: int, classes: range = LABELS) -> tuple[Tensor, Tensor]:
    """Outputs (IMAGES, SLOTS, CLASSES) that correlate with the labels, which are of these classes."""
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(rng.choice(classes, IMAGES, p=(weights := rng.dirichlet(np.ones(len(classes))))))
    assert weights.max() > 1 / len(classes)  # the classes are of unequal sizes
    outputs = torch.from_numpy(rng.normal(size=(IMAGES, SLOTS, CLASSES)).astype(np.float32))
    return outputs + 1.5 * torch.nn.functional.one_hot(labels, CLASSES)[:, None], labels


def scored(metric: str, outputs: Tensor, labels: Tensor, batch: int = 50) -> list[float]:
    score = make_score(metric, CLASSES, outputs.shape[1], "cpu")
    for some, known in zip(outputs.split(batch), labels.split(batch), strict=True):
        score.add(some, known)
    return [float(value) for value in score.values()]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_metrics_equal_scikit_learns(metric: str, seed: int) -> None:
    outputs, labels = drawn(seed)
    expected = [EXPECTED[metric](outputs[:, slot], labels) for slot in range(SLOTS)]
    assert scored(metric, outputs, labels) == pytest.approx(expected, rel=1e-6)
    assert len(set(expected)) > 1


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_do_not_depend_on_slots_or_batches(metric: str) -> None:
    outputs, labels = drawn(7)
    whole = scored(metric, outputs, labels, batch=IMAGES)
    assert scored(metric, outputs, labels, batch=1) == pytest.approx(whole, rel=1e-12)
    assert [scored(metric, outputs[:, [slot]], labels)[0] for slot in range(SLOTS)] == pytest.approx(whole, rel=1e-12)


def test_classes_missing_from_the_split_are_ignored() -> None:
    outputs, labels = drawn(1, range(2, 5))
    expected = [
        sklearn.recall_score(labels, outputs[:, n].argmax(1), labels=[2, 3, 4], average="macro") for n in (0, 1)
    ]
    assert scored("balanced_accuracy", outputs, labels)[:2] == pytest.approx(expected)


def test_an_infinite_loss_is_nan() -> None:
    outputs, labels = torch.zeros(4, 2, CLASSES), torch.zeros(4, dtype=torch.int64)
    outputs[2, 1, 0], outputs[2, 1, 1] = -3e38, 3e38  # finite, but their difference is not
    first, second = scored("loss", outputs, labels)
    assert first == pytest.approx(np.log(CLASSES))
    assert np.isnan(second)


def test_top5_accuracy_needs_more_than_five_classes() -> None:
    with pytest.raises(UsageError, match=r"^study.metric = 'top5_accuracy': 5 classes; needs 6 or more"):
        check_classes("top5_accuracy", 5)
    check_classes("top5_accuracy", 6)
    check_classes("accuracy", 2)
