"""Exports an image classification configuration as a script: data, augmentation, network and training."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from string import Template
from typing import Any

import torchvision.datasets

from ralr_tune.errors import UsageError
from ralr_tune.kinds.classification import folder, npz, sources, torchvision_sets
from ralr_tune.kinds.classification import script_tuning as tuning
from ralr_tune.kinds.classification.augment import AUGMENTATIONS, sizing_crop
from ralr_tune.kinds.classification.crops import RandomWindow
from ralr_tune.kinds.classification.options import ClassificationOptions
from ralr_tune.kinds.classification.scores import SCORES
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

from ralr_tune.kinds.classification.standalone import Batch, evaluate, load_images, mixed, train_batches
from ralr_tune.kinds.classification.batching import batch_borders, draw_epoch
from ralr_tune.kinds.classification.mixing import Mixing
from ralr_tune.kinds.classification.samples import Source, restrict
from ralr_tune.script.loop import parse_options, save_weights, train
from ralr_tune.seeds import derive_seed
from ralr_tune.training.precision import Precision, choose_precision
$imports

# ---------------------------------------------------------------- this configuration

$constants$weights


def open_source() -> Source:
    return $source


def make_model(classes: int, channels: int, size: int) -> nn.Module:
$model


${weight_groups}def make_optimizer($optimized) -> torch.optim.Optimizer:
    return $optimizer


def learning_rate(steps_per_epoch: int) -> LearningRate:
    return $rate


# ---------------------------------------------------------------- training


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_options(__doc__, __file__, arguments)
    device = options.device
$check    data = $data
    $shape

    torch.manual_seed(derive_seed("init", SEED))
    model = make_model(len(data.classes), channels, min(height, width))
    precision = $precision
    model.to(memory_format=precision.memory_format).to(device)
$average$compile    $make_optimizer
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
    score = $score(len(data.classes), slots=1, device=device)
    print(f"test $metric {evaluate(model, outputs_of, data, score, BATCH_SIZE, device):.4f}")
    print(f"weights: {options.out}")


if __name__ == "__main__":
    main()
''')


def script(configuration: Exported) -> str:
    """A Python script that trains `configuration` on train + validation data, saves its weights and tests it.

    It runs without this package, but needs torch, torchvision and the libraries that read the data and build the
    network. Raises UsageError for values that a script cannot express and for unknown data sets and networks.
    """
    task, options = configuration.task, configuration.configuration().options
    assert isinstance(task, ClassificationSection)
    assert isinstance(options, ClassificationOptions)
    source, reader_import = _source(task.data)
    network, network_import = _network(task)
    score = SCORES[configuration.metric.name]
    imports = [network_import, reader_import, import_of(score), *common_imports(configuration)]
    imports += [*tuning.tuning_imports(configuration, task, options), *_augmentation_imports(task, options)]
    text = _SCRIPT.substitute(
        imports="\n".join(imports),
        source=return_value(source),
        smoothing=f", label_smoothing={literal(options.label_smoothing)}" if options.label_smoothing else "",
        metric=configuration.metric.name,
        score=score.__name__,
        **_common_parts(configuration, task, options),
        **_tuning_parts(configuration, task, options, network),
        **_augmentation(task, options),
    )
    plain = (options.mixup_alpha, options.cutmix_alpha) == (1, 1)
    return bundle(text, replacements=_REPLACEMENTS | (_WITHOUT_ALPHA if plain else {}))


def _common_parts(
    configuration: Exported, task: ClassificationSection, options: ClassificationOptions
) -> dict[str, str]:
    return common_parts(
        configuration,
        input_shape="(channels, height, width)",
        model=_repeating(task),
        parameters="parameter_groups(groups)" if tuning.has_groups(options) else "model.parameters()",
        before_epoch="freezer.train" if options.freeze_trunk else "",
    )


def _tuning_parts(
    configuration: Exported, task: ClassificationSection, options: ClassificationOptions, network: str
) -> dict[str, str]:
    return {
        "weights": tuning.weights_constants(configuration, task),
        "check": tuning.weights_check(configuration, task),
        "model": tuning.model_body(task, network),
        "data": tuning.load_call(task),
        "shape": "\n    ".join(tuning.shape_lines(task)),
        "weight_groups": tuning.groups_function(options),
        "optimized": "model: nn.Module" + (", groups: Sequence[WeightGroup]" if tuning.has_groups(options) else ""),
        "make_optimizer": "\n    ".join(tuning.optimizer_lines(options)),
    }


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
    elif task.model.startswith("timm:"):
        name, channels = literal(task.model.removeprefix("timm:")), "in_chans=channels"
        given = [name, f"pretrained={task.pretrained}", "num_classes=classes", channels, *options]
        return f"timm.create_model({', '.join(given)})", "import timm"
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


def _augmentation(task: ClassificationSection, options: ClassificationOptions) -> dict[str, str]:
    """The random draws of an epoch, and the batches made with them."""
    lines, mixings = _augmentation_lines(task, options), [name for name in options.augment if name in MIXINGS]
    given, draws, drawn = ("augmentations, draws", "draws", "augmentations") if lines else ("[], []", "_", "[]")
    batches = f"train_batches(data, order, {given}, BATCH_SIZE, device)"
    if mixings:
        batches = f"mixed({batches}, mixing, mix)"
        draws, drawn = ("(*draws, mix)", "[*augmentations, mixing]") if lines else ("(mix,)", "[mixing]")
        lines.append(f"mixing = {_mixing(mixings, options)}")
    body = [
        f"order, {draws} = draw_epoch(count, {drawn}, seed=SEED, epoch=epoch)",
        f"return {wrapped(batches, indent=8, used=len('return '))}",
    ]
    return {
        "augment": "".join(f"    {line}\n" for line in lines),
        "batches": "\n".join(f"        {line}" for line in body),
    }


def _augmentation_lines(task: ClassificationSection, options: ClassificationOptions) -> list[str]:
    """Statements that define `augmentations`, of images of the shape `decoded` if they are cut; none without any."""
    names = [name for name in options.augment if name in AUGMENTATIONS]
    plain = [_made(AUGMENTATIONS[name], options.parameters(name)) for name in names]
    if not _may_be_cut(task):
        return [_assigned(plain)] if plain else []
    crop, rest = sizing_crop(names)
    cut = [
        f"{crop.__name__}(height, width, data.fill, decoded[1:])",
        *(_made(AUGMENTATIONS[name], options.parameters(name)) for name in rest),
    ]
    same_without = crop is not RandomWindow and names in (rest, ["resized_crop", *rest])
    if same_without or _decoded_side(task.data) is not None:
        return [_assigned(cut)]
    return [_assigned(cut), "if decoded[1:] == (height, width):", f"    {_assigned(plain, indent=8)}"]


def _may_be_cut(task: ClassificationSection) -> bool:
    """Whether the images may be larger than those on which the network trains."""
    return task.train_size is not None and task.train_size != _decoded_side(task.data)


def _decoded_side(data: ImageData) -> object:
    """Pixels of a side of the square images; None if the export does not know."""
    return getattr(data, "size", None)


def _assigned(augmentations: Sequence[str], indent: int = 4) -> str:
    name = "augmentations = "
    return name + wrapped(f"[{', '.join(augmentations)}]", indent=indent, used=len(name))


def _mixing(names: Sequence[str], options: ClassificationOptions) -> str:
    alphas = {f"{name}_alpha": options.parameters(name)["alpha"] for name in names}
    changed = {key: alpha for key, alpha in alphas.items() if alpha != 1}
    return f"Mixing({', '.join([literal(list(names)), 'height', 'width', 'len(data.classes)', *arguments(changed)])})"


def _augmentation_imports(task: ClassificationSection, options: ClassificationOptions) -> list[str]:
    names = [name for name in options.augment if name in AUGMENTATIONS]
    kinds = [AUGMENTATIONS[name] for name in names]
    return [import_of(each) for each in [*kinds, *([sizing_crop(names)[0]] if _may_be_cut(task) else [])]]


def _made(kind: type[Augmentation], parameters: Mapping[str, Any]) -> str:
    return f"{kind.__name__}({', '.join(['height', 'width', 'data.fill', *arguments(parameters)])})"
