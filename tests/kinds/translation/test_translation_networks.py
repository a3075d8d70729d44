"""The networks: modes that agree, padding without effect, and a cache that changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ralr_tune.errors import UsageError
from ralr_tune.kinds.translation import section as sections
from ralr_tune.kinds.translation.decoding import Search, translate
from ralr_tune.kinds.translation.lstm import AttentionLstm
from ralr_tune.kinds.translation.networks import SHAPES, shape_of
from ralr_tune.kinds.translation.section import TranslationSection
from ralr_tune.kinds.translation.transformer import Transformer
from ralr_tune.kinds.translation.translator import Network, Translator

PIECES, PAD, BEGIN, END = 23, 0, 2, 3
NAMES = ["pre", "post", "lstm"]


def network(name: str, *, dropout: float = 0.0, seed: int = 0, width: int = 16) -> Translator:
    torch.manual_seed(seed)
    norm = "post" if name == "lstm" else name
    shape = Network(PIECES, PAD, layers=2, width=width, heads=2, feedforward=24, norm=norm, dropout=dropout)
    return AttentionLstm(shape) if name == "lstm" else Transformer(shape)


def sentences(*lengths: int, seed: int = 0) -> Tensor:
    """(N, longest), padded on the right; each ends with the end piece."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in enumerate(lengths):
        found[row, : length - 1] = torch.randint(4, PIECES, (length - 1,), generator=generator)
        found[row, length - 1] = END
    return found


def targets(*lengths: int) -> Tensor:
    return torch.cat([torch.full((len(lengths), 1), BEGIN), sentences(*lengths, seed=1)], dim=1)


@pytest.mark.parametrize("name", NAMES)
def test_training_and_evaluation_agree(name: str) -> None:
    model, given = network(name), (sentences(5, 9, 2), targets(4, 6, 3))
    torch.testing.assert_close(model.train()(*given), model.eval()(*given))


@pytest.mark.parametrize("name", NAMES)
def test_padding_has_no_effect(name: str) -> None:
    model = network(name).eval()
    together = model(sentences(5, 9, 2), targets(4, 6, 3))
    assert together.isfinite().all()
    for row, (source, target) in enumerate([(5, 4), (9, 6), (2, 3)]):
        alone = model(sentences(5, 9, 2)[row : row + 1, :source], targets(4, 6, 3)[row : row + 1, :target])
        torch.testing.assert_close(together[row : row + 1, :target], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_later_pieces_of_the_target_have_no_effect(name: str) -> None:
    model, source, target = network(name).eval(), sentences(6), targets(7)
    changed = target.clone()
    changed[:, 4:] = 7
    torch.testing.assert_close(model(source, target)[:, :4], model(source, changed)[:, :4])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("hypotheses", [1, 3])
def test_piece_by_piece_gives_the_states_of_the_whole(name: str, hypotheses: int) -> None:
    model, source = network(name).eval(), sentences(5, 9, 2)
    given = torch.randint(4, PIECES, (3 * hypotheses, 6), generator=torch.Generator().manual_seed(3))
    memory = model.encode(source)
    whole = model.states([part.repeat_interleave(hypotheses, dim=0) for part in memory], given)
    decoding = model.begin(memory, hypotheses)
    steps = [model.advance(decoding, given[:, place]) for place in range(6)]
    torch.testing.assert_close(torch.stack(steps, dim=1), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_are_tied_and_have_the_papers_scale(name: str) -> None:
    model = network(name, width=64)
    assert model.embedding.weight[1:].std().item() == pytest.approx(64**-0.5, rel=0.1)
    assert model.embedded(torch.arange(1, PIECES)).std().item() == pytest.approx(1.0, rel=0.1)
    assert sum(weight.shape == (PIECES, 64) for weight in model.parameters()) == 1


def reference(model: Translator, source: Tensor, beam: int, penalty: float) -> list[int]:
    """Beam search of one sentence, without a cache, hypothesis by hypothesis."""
    longest = int(1.5 * source.shape[1]) + 10
    alive: list[tuple[float, list[int]]] = [(0.0, [BEGIN])]
    best, found = float("-inf"), list[int]()
    for length in range(1, longest + 1):
        grown = []
        for score, pieces in alive:
            chances = model(source, torch.tensor([pieces]))[0, -1].log_softmax(-1)
            for piece in range(PIECES):
                if piece not in (PAD, BEGIN) and (length < longest or piece == END):
                    grown.append((score + chances[piece].item(), [*pieces, piece]))
        grown.sort(key=lambda each: -each[0])
        for score, pieces in (each for each in grown[:beam] if each[1][-1] == END):
            if score / ((5 + length) / 6) ** penalty > best:
                best, found = score / ((5 + length) / 6) ** penalty, pieces[1:-1]
        alive = [each for each in grown[: 2 * beam] if each[1][-1] != END][:beam]
        if not alive or alive[0][0] / ((5 + longest) / 6) ** penalty <= best:
            break
    return found


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("beam", "penalty"), [(1, 0.0), (3, 0.0), (4, 0.8)])
def test_translations_are_those_of_a_plain_beam_search(name: str, beam: int, penalty: float) -> None:
    """All sentences of a batch at once, with the cache, against one by one without it."""
    model, lengths = network(name, seed=beam).eval(), (5, 9, 2, 3, 7)
    with torch.no_grad():
        model.embedding.weight.mul_(3)  # sharper, so that hypotheses differ
    source = sentences(*lengths)
    found = translate(model, source, Search(beam, penalty, BEGIN, END, PAD), torch.no_grad)
    expected = [reference(model, source[row : row + 1, :length], beam, penalty) for row, length in enumerate(lengths)]
    assert found == expected
    assert len({tuple(each) for each in expected}) > 1


def test_outputs_that_are_not_finite_are_noticed() -> None:
    model = network("post").eval()
    with torch.no_grad():
        model.embedding.weight[5:] = float("nan")
    assert translate(model, sentences(5, 4), Search(2, 0.6, BEGIN, END, PAD), torch.no_grad) is None


def test_the_study_file_knows_all_networks_and_options() -> None:
    assert tuple(SHAPES) == sections.NETWORKS
    assert all(shape.keys() == sections.NETWORK_OPTIONS.keys() for shape in SHAPES.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 0}, "task.model_options.layers = 0: must be an integer, at least 1"),
        ({"width": 2.5}, "task.model_options.width = 2.5: must be an integer"),
        ({"width": 12, "heads": 4}, "task.model_options.width = 12: must be a multiple of twice the heads, 4"),
        ({"norm": "none"}, "task.model_options.norm = 'none': allowed: pre, post"),
    ],
)
def test_impossible_shapes_are_refused(options: dict[str, object], message: str) -> None:
    data = {"source": "folder"}
    section = TranslationSection(kind="translation", languages=("en", "de"), data=data, model_options=options)
    with pytest.raises(UsageError, match=message):
        shape_of(section, pieces=PIECES, pad=PAD)
