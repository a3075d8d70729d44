"""Rank 0 talks for all: what every rank gets of it. tests/own/test_own_torchrun.py runs real processes."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from ralr_tune.client import Refused
from ralr_tune.own import distributed


class Group:
    """torch.distributed as one of two ranks sees it; what rank 0 sends is in `sent`."""

    def __init__(self, rank: int, sent: list[bytes]) -> None:
        self.rank, self.sent = rank, sent

    def get_rank(self) -> int:
        return self.rank

    def broadcast_object_list(self, shared: list[Any], src: int) -> None:
        assert src == 0
        if self.rank == 0:
            self.sent.append(pickle.dumps(shared))
        else:
            shared[:] = pickle.loads(self.sent.pop(0))


def refuse() -> str:
    raise Refused("epoch = 9: must be 2, the next one")


def in_rank(monkeypatch: pytest.MonkeyPatch, rank: int, sent: list[bytes]) -> None:
    monkeypatch.setattr(distributed, "_group", lambda: Group(rank, sent))


def test_every_rank_gets_the_answer_and_only_rank_0_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    in_rank(monkeypatch, 0, sent)
    assert distributed.by_rank_0(lambda: "stop") == "stop"
    in_rank(monkeypatch, 1, sent)
    assert distributed.by_rank_0(refuse) == "stop"
    assert sent == []


def test_every_rank_gets_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """If only rank 0 raised, the others would wait for it."""
    sent: list[bytes] = []
    for rank in (0, 1):
        in_rank(monkeypatch, rank, sent)
        with pytest.raises(Refused, match="epoch = 9: must be 2"):
            distributed.by_rank_0(refuse)


def test_a_process_alone_asks_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert distributed.by_rank_0(lambda: 7) == 7
    assert distributed.gathered("states") == ["states"]


def test_ranks_that_do_not_know_each_other_yet_must_not_all_talk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match=r"WORLD_SIZE = 2: .*init_process_group"):
        distributed.by_rank_0(lambda: pytest.fail("asked"))
