"""Exports an object detection configuration as a script: data, augmentation, network and training."""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import Any

from ralr_tune.kinds.detection.options import DetectionOptions
from ralr_tune.kinds.detection.section import DetectionData, DetectionSection, VocData
from ralr_tune.kinds.detection.sources import largest_side
from ralr_tune.models.detectors import longest_side
from ralr_tune.script.bundle import bundle
from ralr_tune.script.parts import common_imports, common_parts, return_value
from ralr_tune.script.text import arguments, literal, wrapped
from ralr_tune.studyfile.exported import Exported

_SCRIPT = Template('''\
"""$docstring
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ralr_tune.kinds.detection.annotated import Source
from ralr_tune.kinds.detection.batches import batch_count
from ralr_tune.kinds.detection.feeding import aspect_ratios, training_batches
from ralr_tune.kinds.detection.loading import PictureLoader
from ralr_tune.kinds.detection.splits import restrict
from ralr_tune.kinds.detection.standalone import average_precision, load_annotations
from ralr_tune.models.detectors import build_detector
from ralr_tune.script.loop import parse_options, save_weights, train
from ralr_tune.seeds import derive_seed
from ralr_tune.training.precision import Precision, choose_precision
$imports

# ---------------------------------------------------------------- this configuration

$constants


def open_source() -> Source:
    return $source


def make_model(classes: int) -> nn.Module:
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
    data = load_annotations(open_source(), validation=$validation, study_seed=STUDY_SEED)
    loader = PictureLoader($side, $longest, $max_pixels)
    precision = $precision

    torch.manual_seed(derive_seed("init", SEED))
    model = make_model(len(data.classes))
    model.to(memory_format=precision.memory_format).to(device)
$average$compile    optimizer = make_optimizer(model)
    rate = learning_rate(batch_count(aspect_ratios(data.train), BATCH_SIZE))
$decay
    def loss(images: Any, targets: Any) -> Tensor:
        with precision.autocast(device):
            losses = model(list(images), list(targets))
            return torch.stack([each.float() for each in losses.values()]).sum()

    def batches(epoch: int) -> Iterable[Any]:
        drawn = $drawn
        return ((batch.images, batch.targets) for batch in drawn)

    $train
$judged    save_weights(model, options.out)
    found = average_precision(model, data.test, loader, device=device, autocast=lambda: precision.autocast(device))
    print(f"test mAP {found['map']:.4f}, at IoU 0.5 {found['map_50']:.4f}, at IoU 0.75 {found['map_75']:.4f}")
    print(f"weights: {options.out}")


if __name__ == "__main__":
    main()
''')


def script(configuration: Exported) -> str:
    """A Python script that trains `configuration` on train + validation data, saves its weights and tests it.

    It runs without this package, but needs torch, torchvision, Pillow, torchmetrics and faster-coco-eval. Raises
    UsageError for values that a script cannot express.
    """
    task, options = configuration.task, configuration.configuration().options
    assert isinstance(task, DetectionSection)
    assert isinstance(options, DetectionOptions)
    source, reader = _source(task.data)
    side = largest_side(task)
    text = _SCRIPT.substitute(
        imports="\n".join([reader, *common_imports(configuration)]),
        source=return_value(source),
        network=return_value(_network(task)),
        validation=literal(task.validation),
        side=side,
        longest=longest_side(side),
        max_pixels=literal(task.data.max_pixels),
        drawn=_drawn(options),
        **common_parts(configuration, input_shape="(3, loader.side, loader.side)"),
    )
    return bundle(text)


def _source(data: DetectionData) -> tuple[str, str]:
    """The expression that opens the data, and the import statement it needs."""
    name = "read_voc" if isinstance(data, VocData) else "read_coco"
    given = data.model_dump(exclude_none=True, exclude={"source", "limit", "classes", "max_pixels"})
    call = f"{name}({', '.join(arguments(given))})"
    if data.classes is not None or data.limit is not None:
        call = f"restrict({call}, classes={literal(data.classes)}, limit={literal(data.limit)})"
    return call, f"from ralr_tune.kinds.detection.{data.source} import {name}"


def _drawn(options: DetectionOptions) -> str:
    """The expression for an epoch's batches."""
    given = ["data.train", "loader", literal(list(options.augment)), "seed=SEED", "epoch=epoch"]
    call = f"training_batches({', '.join([*given, 'batch_size=BATCH_SIZE', 'device=device'])})"
    return wrapped(call, indent=8, used=len("drawn = "))


def _network(task: DetectionSection) -> str:
    chosen: Mapping[str, Any] = {
        key: getattr(task, key)
        for key in ("backbone", "fpn_channels", "head_convs", "min_size", "train_sizes", "pretrained")
    }
    given = {key: value for key, value in chosen.items() if value not in (None, (), False)}
    return f"build_detector({', '.join([literal(task.model), 'classes=classes', *arguments(given)])})"
