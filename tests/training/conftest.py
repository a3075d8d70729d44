from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from ralr_tune.kinds.classification.task import ClassificationTask
from ralr_tune.studyfile import Configuration
from tests.training import trials


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Such small images are not worth two threads: on a busy machine they mostly wait for each other."""
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
