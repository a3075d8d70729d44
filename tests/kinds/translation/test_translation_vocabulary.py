"""The vocabulary: the same to the byte on every run, trained once, and refused in our words."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import sentencepiece

from ralr_tune.errors import DataError
from ralr_tune.kinds.translation import vocabulary
from ralr_tune.kinds.translation.files import Pairs
from ralr_tune.kinds.translation.vocabulary import Vocabulary, cached_vocabulary, read_vocabulary, train_vocabulary
from tests.kinds.translation.conftest import pairs

SOURCES, TARGETS = (list(side) for side in zip(*pairs(80, 0), strict=True))
TEXT = Pairs(SOURCES, TARGETS, "text")


def test_it_is_the_same_to_the_byte_and_restores_the_text() -> None:
    one, other = train_vocabulary(TEXT, 48), train_vocabulary(TEXT, 48)
    assert one.model == other.model
    assert one.digest == other.digest != train_vocabulary(TEXT, 47).digest
    assert one.decode(one.encode(TARGETS)) == TARGETS
    assert (one.size, one.pad, one.begin, one.end) == (48, 0, 2, 3)


def test_workers_share_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cached_vocabulary(TEXT, 48, tmp_path)
    monkeypatch.setattr(vocabulary, "train_vocabulary", lambda *_: pytest.fail("trained again"))
    assert cached_vocabulary(TEXT, 48, tmp_path).model == first.model
    assert [path.name[:11] for path in tmp_path.glob("*.model")] == ["vocabulary-"]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (5000, r"task.vocabulary.size = 5000: this text has fewer different pieces; allowed: at most \d+$"),
        (9, r"task.vocabulary.size = 9: this text has \d+ different characters; allowed: more than that$"),
    ],
)
def test_a_size_that_does_not_fit_is_refused(size: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        train_vocabulary(TEXT, size)


def test_an_existing_model_without_padding_gets_one_more_piece(tmp_path: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*SOURCES, *TARGETS]), model_writer=model, vocab_size=48, model_type="bpe", minloglevel=2
    )
    (tmp_path / "own.model").write_bytes(model.getvalue())
    found = read_vocabulary(tmp_path / "own.model")
    assert (found.size, found.pad) == (49, 48)
    assert found.decode([[*found.encode(["dog"])[0].tolist(), found.pad]]) == ["dog"]


def test_a_piece_for_a_line_feed_does_not_split_a_translation(tmp_path: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*SOURCES, *TARGETS]), model_writer=model, vocab_size=330, model_type="bpe",
        byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    found = Vocabulary(model.getvalue())
    feed = found.processor.piece_to_id("<0x0A>")
    assert found.decode([[*found.encode(["dog"])[0], feed, *found.encode(["cat"])[0]]]) == ["dog  cat"]


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    for content in (b"no model", b""):
        (tmp_path / "own.model").write_bytes(content)
        with pytest.raises(DataError, match=r"task\.vocabulary\.model = '.*own\.model': not a sentencepiece model$"):
            read_vocabulary(tmp_path / "own.model")
    with pytest.raises(DataError, match="cannot be read"):
        read_vocabulary(tmp_path / "absent.model")


def test_pieces_are_those_of_sentencepiece() -> None:
    found = train_vocabulary(TEXT, 48)
    assert found.encode(SOURCES)[0].tolist() == found.processor.encode(SOURCES[0])
    assert isinstance(found, Vocabulary)
