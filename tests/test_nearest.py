from __future__ import annotations

import pytest

from ralr_tune.nearest import nearest


@pytest.mark.parametrize(
    ("given", "known", "found"),
    [
        ("cifar10", ["CIFAR10", "CIFAR100", "MNIST"], "CIFAR10"),
        ("ResNet18", ["resnet18", "resnet34"], "resnet18"),
        ("SGD", ["sgd", "adamw"], "sgd"),
        ("fashion_mnist", ["FashionMNIST", "MNIST"], "FashionMNIST"),
        ("adm", ["adam", "sgd"], "adam"),
    ],
)
def test_capitals_hide_no_word(given: str, known: list[str], found: str) -> None:
    assert nearest(given, known) == [found]


def test_nothing_is_near_to_another_word() -> None:
    assert nearest("quick", ["sgd", "adam"]) == []
    assert nearest("mnist", ["MNIST", "QMNIST", "KMNIST", "x"], count=2) == ["MNIST", "QMNIST"]
