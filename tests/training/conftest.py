from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from ralr_tune.kinds.classification.task import ClassificationTask
from ralr_tune.studyfile import Configuration
from tests.training import trials


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Images this small are no work for two: on a busy machine they wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_images() -> Callable[..., ClassificationTask]:
    return trials.images


@pytest.fixture
def configure() -> Callable[..., Configuration]:
    return trials.configuration


@pytest.fixture
def make_line() -> Callable[..., trials.LineTask]:
    return trials.LineTask
