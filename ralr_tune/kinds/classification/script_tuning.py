"""Fine-tuning in an exported script: weights from a file, sizes of images, and trunk and head as groups of weights."""

from __future__ import annotations

from ralr_tune.kinds.classification.crops import centre_crop
from ralr_tune.kinds.classification.fine_tuning import starts_from_weights, weights_name
from ralr_tune.kinds.classification.inputs import Inputs
from ralr_tune.kinds.classification.options import ClassificationOptions
from ralr_tune.kinds.classification.section import ClassificationSection
from ralr_tune.kinds.classification.standalone import check_sha256, parameter_groups
from ralr_tune.models import registry
from ralr_tune.models.heads import trunk_and_head
from ralr_tune.models.weight_files import load_weights
from ralr_tune.script.parts import construction, import_of, return_value
from ralr_tune.script.text import literal, wrapped
from ralr_tune.studyfile.exported import Exported
from ralr_tune.training.groups import Freezer, WeightGroup

# ---------------------------------------------------------------- weights from a file


def weights_constants(configuration: Exported, task: ClassificationSection) -> str:
    """The file and, if the study recorded it, its hash."""
    if task.weights is None:
        return ""
    lines = [f"WEIGHTS = {literal(task.weights)}"]
    if digest := _digest(configuration, task):
        lines.append(f"WEIGHTS_SHA256 = {literal(digest)}")
    return "".join(f"\n{line}" for line in lines)


def weights_check(configuration: Exported, task: ClassificationSection) -> str:
    return "    check_sha256(WEIGHTS, WEIGHTS_SHA256)\n" if _digest(configuration, task) else ""


def model_body(task: ClassificationSection, network: str) -> str:
    """The body of `make_model`; `network`: the expression that builds the network."""
    if task.weights is None:
        return f'    """Its weights are drawn from torch\'s global generator."""\n    return {return_value(network)}'
    lines = [
        '"""Its weights are those in the file; a head of other classes is drawn from torch\'s global generator."""',
        f"model = {wrapped(network, indent=4, used=len('model = '))}",
        "load_weights(model, WEIGHTS, classes)",
        "return model",
    ]
    return "\n".join(f"    {line}" for line in lines)


def _digest(configuration: Exported, task: ClassificationSection) -> str | None:
    known = () if task.weights is None else configuration.provenance.files.get(weights_name(task.weights), ())
    return next(iter(known), None)


# ---------------------------------------------------------------- images


def load_call(task: ClassificationSection) -> str:
    """The expression that loads the images of `open_source()`."""
    assert isinstance(task.model, str)
    given = ["open_source()", f"validation={literal(task.validation)}", "study_seed=STUDY_SEED"]
    normalisation = registry.normalisation(task.model) if starts_from_weights(task) else None
    given += [] if normalisation is None else [f"normalisation={literal(normalisation)}"]
    return wrapped(f"load_images({', '.join(given)})", indent=4, used=len("data = "))


def shape_lines(task: ClassificationSection) -> list[str]:
    """Statements that define `count`, `channels`, `height` and `width` as the network gets them in training, and
    `decoded`, the shape before a crop."""
    if task.train_size is None and task.test_size is None:
        return ["count, (channels, height, width) = len(data.train_labels), data.train_images.shape[1:]"]
    tested = "_" if task.test_size is None else "tested"
    sizes = construction(Inputs(_size(task.train_size), _size(task.test_size)))
    lines = [
        "count, decoded = len(data.train_labels), tuple(data.train_images.shape[1:])",
        f"(channels, height, width), {tested} = {sizes}.shapes(decoded)",
    ]
    if task.test_size is not None:
        lines.append("data = replace(data, test_images=centre_crop(data.test_images, *tested[1:]))")
    return lines


def _size(size: object) -> int | None:
    """A size of a resolved section, which is one number."""
    return None if size is None else int(str(size))


# ---------------------------------------------------------------- trunk and head


def has_groups(options: ClassificationOptions) -> bool:
    return (options.head_factor, options.freeze_trunk) != (1, 0)


def groups_function(options: ClassificationOptions) -> str:
    """The definition of `weight_groups` if there are groups."""
    if not has_groups(options):
        return ""
    trunk = construction(WeightGroup((), frozen_epochs=options.freeze_trunk), weights="tuple(trunk)")
    head = construction(WeightGroup((), options.head_factor), weights="tuple(head)")
    lines = [
        "def weight_groups(model: nn.Module, classes: int) -> Sequence[WeightGroup]:",
        f"    trunk, head = {trunk_and_head.__name__}(model, classes)",
        f"    return [{trunk}, {head}]",
    ]
    return "\n".join(lines) + "\n\n\n"


def optimizer_lines(options: ClassificationOptions) -> list[str]:
    """The statements that make the optimizer."""
    if not has_groups(options):
        return ["optimizer = make_optimizer(model)"]
    freezer = ["freezer = Freezer(model, groups)"] if options.freeze_trunk else []
    return ["groups = weight_groups(model, len(data.classes))", *freezer, "optimizer = make_optimizer(model, groups)"]


# ---------------------------------------------------------------- imports


def tuning_imports(configuration: Exported, task: ClassificationSection, options: ClassificationOptions) -> list[str]:
    """The import statements that all of this needs."""
    needed = {
        load_weights: task.weights is not None,
        check_sha256: _digest(configuration, task) is not None,
        Inputs: task.train_size is not None or task.test_size is not None,
        centre_crop: task.test_size is not None,
        WeightGroup: has_groups(options),
        trunk_and_head: has_groups(options),
        parameter_groups: has_groups(options),
        Freezer: options.freeze_trunk > 0,
    }
    lines = [import_of(each) for each, is_needed in needed.items() if is_needed]
    return [*lines, "from dataclasses import replace"] if task.test_size is not None else lines
