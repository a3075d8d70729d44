"""Exports a translation configuration as a script: text, vocabulary, network, training and beam search."""

from __future__ import annotations

from string import Template

from ralr_tune.kinds.translation.networks import build_network, shape_of
from ralr_tune.kinds.translation.options import TranslationOptions
from ralr_tune.kinds.translation.section import TextData, TranslationSection
from ralr_tune.script.bundle import bundle
from ralr_tune.script.parts import common_imports, common_parts, construction, return_value
from ralr_tune.script.text import arguments, literal
from ralr_tune.studyfile.exported import Exported

_PLAIN = "ralr_tune.kinds.translation.standalone_section"
_REPLACEMENTS = {
    f"ralr_tune.kinds.translation.section.{name}": f"{_PLAIN}.{name}"
    for name in ("FilesData", "TsvData", "FolderData", "TextData")
} | {"ralr_tune.invocation.install": f"{_PLAIN}.install"}

_SCRIPT = Template('''\
"""$docstring
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

import torch
from torch import Tensor

from ralr_tune.kinds.translation.batches import TranslationBatch, epoch_rows
from ralr_tune.kinds.translation.encoded import hypotheses_at_once, search_of, summed_loss, translations
from ralr_tune.kinds.translation.networks import build_network
from ralr_tune.kinds.translation.scores import Scorer
from ralr_tune.kinds.translation.section import $reader
from ralr_tune.kinds.translation.standalone import load_text
from ralr_tune.kinds.translation.translator import Network, Translator
from ralr_tune.script.loop import parse_options, save_weights, train
from ralr_tune.seeds import derive_seed
from ralr_tune.training.precision import Precision, choose_precision
$imports

# ---------------------------------------------------------------- this configuration

$constants
LANGUAGES = $languages


def open_source() -> $reader:
    return $source


def make_model(pieces: int, pad: int) -> Translator:
    """Its weights are drawn from torch's global generator."""
    return $network


def make_optimizer(model: Translator) -> torch.optim.Optimizer:
    return $optimizer


def learning_rate(steps_per_epoch: tuple[int, ...]) -> LearningRate:
    return $rate


# ---------------------------------------------------------------- training


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_options(__doc__, __file__, arguments)
    device = options.device
    data = load_text(open_source(), LANGUAGES, study_seed=STUDY_SEED, $vocabulary)
    words, pairs = data.vocabulary, data.train
    precision = $precision

    torch.manual_seed(derive_seed("init", SEED))
    model = make_model(words.size, words.pad)
    model.to(device)
$average    optimizer = make_optimizer(model)
    orders = [epoch_rows(pairs.lengths, BATCH_SIZE, seed=SEED, epoch=epoch) for epoch in range(EPOCHS)]
    rate = learning_rate(tuple($steps for order in orders))
$decay
    def loss(batch: TranslationBatch, predicted: range) -> Tensor:
        with precision.autocast(device):
            return summed_loss(model, batch, $smoothing) / len(predicted)

    def batches(epoch: int) -> Iterator[tuple[TranslationBatch, range]]:
        for rows in orders[epoch]:
            batch = pairs.batch(rows, pad=words.pad, device=device)
            yield batch, range(batch.weight)

    $train
$judged    save_weights(model, options.out)
    search = search_of(words, $search)
    outputs = translations(
        model.eval(),
        data.test,
        words,
        search,
        hypotheses=min(hypotheses_at_once(device), len(data.test)),
        device=device,
        autocast=lambda: precision.autocast(device),
    )
    if outputs is None:
        raise SystemExit("diverged: the outputs of the network are not finite")
    scores = $scorer.scores(outputs, data.test.pairs.targets)
    print(f"test BLEU {scores['bleu']:.4f}, chrF {scores['chrf']:.4f}")
    file = options.out.with_suffix(".txt")
    file.write_text("".join(f"{line}\\n" for line in outputs), encoding="utf-8", newline="\\n")
    print(f"translations: {file}; weights: {options.out}")


if __name__ == "__main__":
    main()
''')


def script(configuration: Exported) -> str:
    """A Python script that trains `configuration` on train + validation data, saves its weights and tests it.

    It runs without this package, but needs torch, sentencepiece and sacrebleu. Raises UsageError for values that a
    script cannot express.
    """
    task, options = configuration.task, configuration.configuration().options
    assert isinstance(task, TranslationSection)
    assert isinstance(options, TranslationOptions)
    assert isinstance(task.accumulate, int)  # an exported file has one value
    text = _SCRIPT.substitute(
        imports="\n".join(common_imports(configuration)),
        languages=literal(task.languages),
        reader=type(task.data).__name__,
        source=return_value(_source(task.data)),
        network=return_value(_network(task)),
        vocabulary=_vocabulary(task),
        smoothing=literal(options.label_smoothing),
        search=f"beam={literal(task.beam)}, penalty={literal(task.length_penalty)}",
        steps="len(order)" if task.accumulate == 1 else f"ceil(len(order) / {task.accumulate})",
        scorer=f"Scorer({literal(task.tokenize)}, lowercase={literal(task.lowercase)})",
        **common_parts(configuration, input_shape="()", matrix_products=True, accumulate=task.accumulate),
    )
    return bundle(text, replacements=_REPLACEMENTS)


def _source(data: TextData) -> str:
    given = data.model_dump(exclude_defaults=True, exclude={"source"}) | {"path": data.path}
    return f"{type(data).__name__}({', '.join(arguments(given))})"


def _network(task: TranslationSection) -> str:
    shape = construction(shape_of(task, pieces=0, pad=0), pieces="pieces", pad="pad")
    return f"{build_network.__name__}({literal(task.model)}, {shape})"


def _vocabulary(task: TranslationSection) -> str:
    given = task.vocabulary
    return f"size={literal(given.size)}" if given.model is None else f"model={literal(given.model)}"
