"""Workers on one GPU: an equal share for each, less if other programs use the memory, no start if none is left."""

from __future__ import annotations

import pytest

from ralr_tune.errors import UsageError
from ralr_tune.kinds.classification import pool as classification
from ralr_tune.machine.sharing import MIN_SHARE, OVERHEAD, free_on, is_shared, take_share
from tests.cards import GIB, Card, remove

MIB = 2**20


@pytest.mark.parametrize(("sharing", "share"), [(2, 40 * GIB), (4, 20 * GIB), (7, 80 * GIB // 7)])
def test_each_worker_gets_an_equal_share(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, sharing: int, share: int
) -> None:
    card = Card(free=79 * GIB).insert(monkeypatch)
    take_share("cuda:1", sharing)
    assert card.bound == share - OVERHEAD
    assert sharing * (card.bound + OVERHEAD) <= card.total
    assert is_shared("cuda:1")
    assert caplog.text == ""


@pytest.mark.parametrize(
    "card",
    [
        Card(free=20 * GIB - 300 * MIB),  # the other workers hold their shares; this one's context uses some memory
        Card(free=5 * GIB, reserved=15 * GIB),  # this process already holds a part of its share
    ],
    ids=["last worker to start", "part already reserved"],
)
def test_the_limit_is_the_whole_share_if_it_is_available(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, card: Card
) -> None:
    card.insert(monkeypatch)
    take_share("cuda:1", 4)
    assert card.bound == 20 * GIB - OVERHEAD
    assert caplog.text == ""


def test_a_worker_continues_with_less_than_its_share_and_logs_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    card = Card(free=3 * GIB).insert(monkeypatch)
    take_share("cuda:1", 4)
    assert card.bound == 3 * GIB
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    message = record.getMessage()
    assert "cuda:1: 3 GiB of 80 GiB free; one of 4 workers may use 19 GiB" in message
    assert "continuing with 3 GiB" in message
    assert "start fewer --workers" in message


@pytest.mark.parametrize(
    ("card", "sharing", "message"),
    [
        (Card(free=MIN_SHARE - 1), 4, r"cuda:1: 0\.25 GiB of 80 GiB free; one of 4 workers may use 19 GiB"),
        (Card(free=4 * GIB, total=4 * GIB), 8, "cuda:1: 4 GiB of 4 GiB free; one of 8 workers may use 0 GiB"),
        (Card(free=4 * GIB, total=4 * GIB), 16, "cuda:1: 4 GiB of 4 GiB free; one of 16 workers may use 0 GiB"),
    ],
    ids=["used by other programs", "share equals the overhead", "share below the overhead"],
)
def test_a_worker_refuses_to_start_with_too_little_memory(
    monkeypatch: pytest.MonkeyPatch, card: Card, sharing: int, message: str
) -> None:
    card.insert(monkeypatch)
    with pytest.raises(
        UsageError, match=message + r" and needs at least 0\.25 GiB: start fewer --workers, or end other"
    ):
        take_share("cuda:1", sharing)
    assert card.fraction == 1


def test_the_minimum_share_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(free=MIN_SHARE).insert(monkeypatch)
    take_share("cuda:1", 2)
    assert card.bound == MIN_SHARE


def test_free_memory_is_limited_by_the_share_and_by_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(free=70 * GIB, reserved=4 * GIB, fraction=0.125).insert(monkeypatch)
    assert free_on("cuda:1") == 6 * GIB
    card.free = 2 * GIB
    assert free_on("cuda:1") == 2 * GIB
    card.reserved = 11 * GIB
    assert free_on("cuda:1") == 0


def test_a_single_worker_has_all_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(free=70 * GIB, reserved=9 * GIB).insert(monkeypatch)
    take_share("cuda:1", 1)
    assert card.fraction == 1
    assert free_on("cuda:1") == 70 * GIB
    assert not is_shared("cuda:1")


def test_images_are_kept_on_the_gpu_if_they_fit_into_half_of_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(free=70 * GIB).insert(monkeypatch)
    assert classification._fits_on_device(35 * GIB, "cuda:1")
    card.fraction = 0.125
    assert classification._fits_on_device(5 * GIB, "cuda:1")
    assert not classification._fits_on_device(5 * GIB + 1, "cuda:1")


def test_a_cpu_is_not_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    remove(monkeypatch)
    monkeypatch.setattr("ralr_tune.machine.sharing.free_bytes", lambda: 7)
    take_share("cpu", 4)
    assert free_on("cpu") == 7
    assert not is_shared("cpu")
    assert classification._fits_on_device(10**15, "cpu")


def test_cuda_without_a_number_is_the_first_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("torch.cuda.get_per_process_memory_fraction", lambda index: asked.append(index) or 0.5)
    assert is_shared("cuda")
    assert asked == [0]
