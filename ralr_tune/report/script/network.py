"""The network part of a script: `model`, new, on the CPU. Before it stand `names`, CHANNELS, HEIGHT and WIDTH."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from ralr_tune.errors import UsageError
from ralr_tune.kinds.classification.section import ClassificationSection
from ralr_tune.models import cifar_resnet, pixels, small_cnn
from ralr_tune.models.registry import CIFAR_DEPTHS
from ralr_tune.report.script.parts import OTHER_FORMS, Part, is_name, keywords, literal, source_of

_OWN: Mapping[str, tuple[ModuleType, str]] = {
    "small_cnn": (small_cnn, "SmallCNN(classes=len(names), channels=CHANNELS, size=min(HEIGHT, WIDTH)"),
    **{
        f"resnet{depth}": (cifar_resnet, f"CifarResNet(classes=len(names), channels=CHANNELS, depth={depth}")
        for depth in CIFAR_DEPTHS
    },
}
"""Networks that come with this package: the module that holds one, beside `pixels` that all need, and the call that
makes it, still open."""

_TORCHVISION = """\
# grey images as colour; a view, so nothing is copied
train_images, test_images = train_images.expand(-1, 3, -1, -1), test_images.expand(-1, 3, -1, -1)
model = torchvision.models.get_model({name}, weights=None, num_classes=len(names){arguments})
"""
_PRETRAINED = """\
weights = torchvision.models.get_model({name}, weights="DEFAULT").state_dict()
new = model.state_dict()
fitting = {{key: value for key, value in weights.items() if key in new and new[key].shape == value.shape}}
model.load_state_dict(fitting, strict=False)  # layers of another shape start anew
"""
_SIZED = {"vit_": ("image_size", "HEIGHT"), "maxvit_": ("input_size", "(HEIGHT, WIDTH)")}
"""Families of torchvision that must be told the size of the images, and how."""


def network_part(task: ClassificationSection) -> Part:
    """Raises UsageError for a model that is none of ours, none of torchvision's and no import path."""
    if task.model.startswith("torchvision:"):
        return _torchvision(task, task.model.removeprefix("torchvision:"))
    if task.model in _OWN:
        module, call = _OWN[task.model]
        part = source_of(pixels, module)
        return Part(f"{part.body}\n\nmodel = {call}{keywords(task.model_options)})\n", part.imports)
    return _imported(task)


def _torchvision(task: ClassificationSection, name: str) -> Part:
    options = dict(task.model_options)
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True, **options}  # one output, as every other network has
    arguments = keywords(options)
    for prefix, (key, size) in _SIZED.items():
        if name.startswith(prefix) and key not in options:
            arguments += f", {key}={size}"
    body = _TORCHVISION.format(name=literal(name), arguments=arguments)
    if task.pretrained:
        body += _PRETRAINED.format(name=literal(name))
    return Part(body, frozenset({"import torchvision"}))


def _imported(task: ClassificationSection) -> Part:
    module, _, path = task.model.partition(":")
    first, _, rest = path.partition(".")
    if not all(is_name(name) for name in (*module.split("."), *path.split("."))):
        raise UsageError(f"task.model = {task.model!r}: no import path package.module:callable; {OTHER_FORMS}")
    call = f"network.{rest}" if rest else "network"
    body = f"model = {call}(num_classes=len(names){keywords(task.model_options)})\n"
    return Part(body, frozenset({f"from {module} import {first} as network"}))
