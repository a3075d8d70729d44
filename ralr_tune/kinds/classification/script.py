"""Exports an image classification configuration as a script: data, augmentation, network and training."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from string import Template
from typing import Any

import torchvision.datasets

from ralr_tune.errors import UsageError
from ralr_tune.kinds.classification import folder, npz, sources, torchvision_sets
from ralr_tune.kinds.classification.augment import AUGMENTATIONS
from ralr_tune.kinds.classification.options import ClassificationOptions
from ralr_tune.kinds.classification.section import MIXINGS, ClassificationSection, ImageData
from ralr_tune.kinds.classification.transform import Augmentation
from ralr_tune.models import registry, torchvision_models
from ralr_tune.script.bundle import bundle
from ralr_tune.script.parts import common_imports, common_parts, import_of, return_value
from ralr_tune.script.text import OTHER_FORMATS, arguments, is_identifier, literal, wrapped
from ralr_tune.studyfile.exported import Exported

_REPLACEMENTS = {"ralr_tune.machine.memory.check_memory": "ralr_tune.kinds.classification.standalone.check_memory"}

_WITHOUT_ALPHA = {
    "ralr_tune.kinds.classification.beta.beta_quantile": "ralr_tune.kinds.classification.standalone.beta_quantile"
}

_READERS: Mapping[str, Callable[..., Any]] = {
    "digits": sources.read_digits,
    "torchvision": torchvision_sets.read,
    "folder": folder.read,
    "arrays": npz.read,
}

_SCRIPT = Template('''\
"""$docstring
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ralr_tune.kinds.classification.standalone import Batch, accuracy, load_images, mixed, train_batches
from ralr_tune.kinds.classification.batching import batch_borders, draw_epoch
from ralr_tune.kinds.classification.mixing import Mixing
from ralr_tune.kinds.classification.samples import Source, restrict
from ralr_tune.script.loop import parse_options, save_weights, train
from ralr_tune.seeds import derive_seed
from ralr_tune.training.precision import Precision, choose_precision
$imports

# ---------------------------------------------------------------- this configuration

$constants


def open_source() -> Source:
    return $source


def make_model(classes: int, channels: int, size: int) -> nn.Module:
    """Its weights are drawn from torch's global generator."""
    return $network


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return $optimizer


def learning_rate(steps_per_epoch: int) -> LearningRate:
    return $rate


# ---------------------------------------------------------------- training


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_options(__doc__, __file__, arguments)
    device = options.device
    data = load_images(open_source(), validation=$validation, study_seed=STUDY_SEED$normalisation)
    count, (channels, height, width) = len(data.train_labels), data.train_images.shape[1:]

    torch.manual_seed(derive_seed("init", SEED))
    model = make_model(len(data.classes), channels, min(height, width))
    precision = $precision
    model.to(memory_format=precision.memory_format).to(device)
$average$compile    optimizer = make_optimizer(model)
    rate = learning_rate(len(batch_borders(count, BATCH_SIZE)) - 1)
$decay$augment
    def outputs_of(images: Tensor) -> Tensor:
        with precision.autocast(device):
            return model(images).float()

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(outputs_of(images), labels$smoothing)

    def batches(epoch: int) -> Iterable[Batch]:
$batches

    $train
$judged    save_weights(model, options.out)
    print(f"test accuracy {accuracy(model, outputs_of, data, BATCH_SIZE, device):.4f}")
    print(f"weights: {options.out}")


if __name__ == "__main__":
    main()
''')


def script(configuration: Exported) -> str:
    """A Python script that trains `configuration` on train + validation data, saves its weights and tests it.

    It runs without this package, but needs torch, torchvision and the libraries that read the data. Raises UsageError
    for values that a script cannot express and for unknown data sets and networks.
    """
    task, options = configuration.task, configuration.configuration().options
    assert isinstance(task, ClassificationSection)
    assert isinstance(options, ClassificationOptions)
    _refuse_unsupported(task, options)
    network, network_import = _network(task)
    source, reader_import = _source(task.data)
    text = _SCRIPT.substitute(
        imports="\n".join(
            [network_import, reader_import, *common_imports(configuration), *_augmentation_imports(options)]
        ),
        source=return_value(source),
        network=return_value(network),
        validation=literal(task.validation),
        normalisation=_normalisation(task),
        smoothing=f", label_smoothing={literal(options.label_smoothing)}" if options.label_smoothing else "",
        **common_parts(configuration, input_shape="(channels, height, width)", model=_repeating(task)),
        **_augmentation(options),
    )
    plain = (options.mixup_alpha, options.cutmix_alpha) == (1, 1)
    return bundle(text, replacements=_REPLACEMENTS | (_WITHOUT_ALPHA if plain else {}))


def _refuse_unsupported(task: ClassificationSection, options: ClassificationOptions) -> None:
    """Scripts train all weights at one rate, on whole images."""
    values = {
        "task.weights": (task.weights, None),
        "task.train_size": (task.train_size, None),
        "task.test_size": (task.test_size, None),
        "training.head_factor": (options.head_factor, 1.0),
        "training.freeze_trunk": (options.freeze_trunk, 0),
    }
    if task.model.startswith("timm:"):  # type: ignore[union-attr]
        raise UsageError(f"task.model = {task.model!r}: a script cannot build timm's networks; {OTHER_FORMATS}")
    for key, (value, default) in values.items():
        if value != default:
            raise UsageError(f"{key} = {value!r}: a script cannot do that; {OTHER_FORMATS}")


def _normalisation(task: ClassificationSection) -> str:
    assert isinstance(task.model, str)
    given = registry.normalisation(task.model) if task.pretrained else None
    return "" if given is None else f", normalisation={literal(given)}"


def _source(data: ImageData) -> tuple[str, str]:
    """The expression that opens the data, and the import statement it needs."""
    if data.source == "torchvision":
        _check_data_set(data.dataset.partition(":")[0])
    given = data.model_dump(exclude_none=True, exclude={"source", *sources.RESTRICTIONS})
    reader = _READERS[data.source]
    call = f"{reader.__name__}({', '.join(arguments(given))})"
    if data.classes is not None or data.limit is not None:
        call = f"restrict({call}, classes={literal(data.classes)}, limit={literal(data.limit)})"
    return call, import_of(reader)


def _check_data_set(name: str) -> None:
    kind = getattr(torchvision.datasets, name, None) if is_identifier(name) else None
    if not inspect.isclass(kind) or not issubclass(kind, torchvision.datasets.VisionDataset):
        raise UsageError(f"task.data.dataset = {name!r}: not a data set of torchvision; {OTHER_FORMATS}")


def _repeating(task: ClassificationSection) -> str:
    """The expression for the network if it is one whose operations `training.recording` knows; "" for others."""
    assert isinstance(task.model, str)
    return "model" if task.model.startswith("torchvision:") or registry.builder(task.model) is not None else ""


_SHAPE_ARGUMENTS = ["classes=classes", "channels=channels", "size=size"]


def _network(task: ClassificationSection) -> tuple[str, str]:
    """The expression that builds the network, and the import statement it needs."""
    assert isinstance(task.model, str)  # resolved: one value
    options = arguments(task.model_options)
    if task.model.startswith("torchvision:"):
        builder: Any = torchvision_models.build
        name = literal(task.model.removeprefix("torchvision:"))
        given = [name, *_SHAPE_ARGUMENTS, f"options={literal(task.model_options)}", f"pretrained={task.pretrained}"]
    elif (builder := registry.builder(task.model)) is not None:
        given = [*_SHAPE_ARGUMENTS, *options]
        if isinstance(builder, partial):
            builder, given = builder.func, [*map(literal, builder.args), *given]
    else:
        return _imported_network(task.model, options)
    return f"{builder.__name__}({', '.join(given)})", import_of(builder)


def _imported_network(model: str, options: list[str]) -> tuple[str, str]:
    module, _, path = model.partition(":")
    first, _, rest = path.partition(".")
    if not all(is_identifier(name) for name in (*module.split("."), *path.split("."))):
        raise UsageError(f"task.model = {model!r}: not an import path package.module:callable; {OTHER_FORMATS}")
    call = f"network.{rest}" if rest else "network"
    return f"{call}({', '.join(['num_classes=classes', *options])})", f"from {module} import {first} as network"


def _augmentation(options: ClassificationOptions) -> dict[str, str]:
    """The random draws of an epoch, and the batches made with them."""
    kinds = {name: AUGMENTATIONS[name] for name in options.augment if name in AUGMENTATIONS}
    mixings = [name for name in options.augment if name in MIXINGS]
    lines = []
    if kinds:
        made = [_made(kind, options.parameters(name)) for name, kind in kinds.items()]
        augmentations = wrapped(f"[{', '.join(made)}]", indent=4, used=len("augmentations = "))
        lines += ["fill = data.mean.round().to(torch.uint8)", f"augmentations = {augmentations}"]
    if mixings:
        alphas = {f"{name}_alpha": options.parameters(name)["alpha"] for name in mixings}
        changed = {key: alpha for key, alpha in alphas.items() if alpha != 1}
        given = [literal(mixings), "height", "width", "len(data.classes)", *arguments(changed)]
        lines.append(f"mixing = Mixing({', '.join(given)})")
    draws = "draws" if kinds else ""
    if mixings:
        draws = f"(*{draws or '_'}, mix)"
    drawn = ", ".join([*(["*augmentations"] if kinds else []), *(["mixing"] if mixings else [])])
    batches = f"train_batches(data, order, {'augmentations, draws' if kinds else '[], []'}, BATCH_SIZE, device)"
    if mixings:
        batches = f"mixed({batches}, mixing, mix)"
    body = [
        f"order, {draws or '_'} = draw_epoch(count, [{drawn}], seed=SEED, epoch=epoch)",
        f"return {wrapped(batches, indent=8, used=len('return '))}",
    ]
    return {
        "augment": "".join(f"    {line}\n" for line in lines),
        "batches": "\n".join(f"        {line}" for line in body),
    }


def _augmentation_imports(options: ClassificationOptions) -> list[str]:
    return [import_of(AUGMENTATIONS[name]) for name in options.augment if name in AUGMENTATIONS]


def _made(kind: type[Augmentation], parameters: Mapping[str, Any]) -> str:
    return f"{kind.__name__}({', '.join(['height', 'width', 'fill', *arguments(parameters)])})"
