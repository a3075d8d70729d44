"""Workers on one GPU: an equal share for each, less where others took it, and no start where nothing is left."""

from __future__ import annotations

import pytest

from ralr_tune.errors import UsageError
from ralr_tune.kinds.classification import task as classification
from ralr_tune.machine.sharing import LEAST, OUTSIDE, free_on, is_shared, take_share
from tests.cards import GIB, Card, remove

MIB = 2**20


@pytest.mark.parametrize(("sharing", "share"), [(2, 40 * GIB), (4, 20 * GIB), (7, 80 * GIB // 7)])
def test_each_worker_gets_an_equal_share(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, sharing: int, share: int
) -> None:
    card = Card(free=79 * GIB).insert(monkeypatch)
    take_share("cuda:1", sharing)
    assert card.bound == share - OUTSIDE
    assert sharing * (card.bound + OUTSIDE) <= card.total
    assert is_shared("cuda:1")
    assert caplog.text == ""


@pytest.mark.parametrize(
    "card",
    [
        Card(free=20 * GIB - 300 * MIB),  # the others hold theirs, and its own context takes some already
        Card(free=5 * GIB, reserved=15 * GIB),  # it holds some of its share itself
    ],
    ids=["the last to come", "what it holds itself"],
)
def test_a_share_that_is_there_is_taken_whole(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, card: Card
) -> None:
    card.insert(monkeypatch)
    take_share("cuda:1", 4)
    assert card.bound == 20 * GIB - OUTSIDE
    assert caplog.text == ""


def test_a_worker_goes_on_with_what_others_left_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    card = Card(free=3 * GIB).insert(monkeypatch)
    take_share("cuda:1", 4)
    assert card.bound == 3 * GIB
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    said = record.getMessage()
    assert "cuda:1: 3 GiB of 80 GiB free; one of 4 workers may take 19 GiB" in said
    assert "going on with 3 GiB" in said
    assert "start fewer --workers" in said


@pytest.mark.parametrize(
    ("card", "sharing", "said"),
    [
        (Card(free=LEAST - 1), 4, r"cuda:1: 0\.25 GiB of 80 GiB free; one of 4 workers may take 19 GiB"),
        (Card(free=4 * GIB, total=4 * GIB), 8, "cuda:1: 4 GiB of 4 GiB free; one of 8 workers may take 0 GiB"),
        (Card(free=4 * GIB, total=4 * GIB), 16, "cuda:1: 4 GiB of 4 GiB free; one of 16 workers may take 0 GiB"),
    ],
    ids=["taken by others", "nothing beside the context", "less than nothing"],
)
def test_no_worker_begins_with_hardly_anything(
    monkeypatch: pytest.MonkeyPatch, card: Card, sharing: int, said: str
) -> None:
    card.insert(monkeypatch)
    with pytest.raises(UsageError, match=said + r", and needs 0\.25 GiB at least: start fewer --workers, or end what"):
        take_share("cuda:1", sharing)
    assert card.fraction == 1


def test_the_least_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(free=LEAST).insert(monkeypatch)
    take_share("cuda:1", 2)
    assert card.bound == LEAST


def test_free_is_what_the_share_and_the_card_have_left(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(free=70 * GIB, reserved=4 * GIB, fraction=0.125).insert(monkeypatch)
    assert free_on("cuda:1") == 6 * GIB
    card.free = 2 * GIB
    assert free_on("cuda:1") == 2 * GIB
    card.reserved = 11 * GIB
    assert free_on("cuda:1") == 0


def test_a_worker_alone_has_all_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(free=70 * GIB, reserved=9 * GIB).insert(monkeypatch)
    take_share("cuda:1", 1)
    assert card.fraction == 1
    assert free_on("cuda:1") == 70 * GIB
    assert not is_shared("cuda:1")


def test_images_lie_on_the_card_where_half_of_the_share_holds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(free=70 * GIB).insert(monkeypatch)
    assert classification._fits(35 * GIB, "cuda:1")
    card.fraction = 0.125
    assert classification._fits(5 * GIB, "cuda:1")
    assert not classification._fits(5 * GIB + 1, "cuda:1")


def test_a_cpu_is_asked_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    remove(monkeypatch)
    monkeypatch.setattr("ralr_tune.machine.sharing.free_bytes", lambda: 7)
    take_share("cpu", 4)
    assert free_on("cpu") == 7
    assert not is_shared("cpu")
    assert classification._fits(10**15, "cpu")


def test_a_bare_cuda_is_the_first_card(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("torch.cuda.get_per_process_memory_fraction", lambda index: asked.append(index) or 0.5)
    assert is_shared("cuda")
    assert asked == [0]
