"""Training from pretrained weights: the files that hold them, what is said of the head, and what cannot work.

Imports torch only inside functions: a study file is checked without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from ralr_tune.errors import UsageError
from ralr_tune.kinds.classification.options import ClassificationOptions
from ralr_tune.kinds.classification.section import ClassificationSection
from ralr_tune.machine.files import sha256_of
from ralr_tune.records import SourceFile
from ralr_tune.studyfile import Configuration, StudySpec
from ralr_tune.studyfile.contradictions import Contradiction, corners, missing_file, path_of_key, training_paths
from ralr_tune.studyfile.imports import TIMM, TORCHVISION
from ralr_tune.studyfile.problems import dotted
from ralr_tune.studyfile.values import Choice


def networks(section: ClassificationSection) -> Sequence[str]:
    """Every network that the study trains."""
    return section.model.choices if isinstance(section.model, Choice) else [section.model]


def starts_from_weights(section: ClassificationSection) -> bool:
    return section.pretrained or section.weights is not None


# ---------------------------------------------------------------- the study file


def contradictions(spec: StudySpec) -> Iterator[Contradiction]:
    """A trunk that is frozen for the whole run: once for each place in the file."""
    told = set()
    for arm in spec.arms:
        for corner in corners(spec.space(arm), ("epochs", "freeze_trunk")):
            frozen, epochs = _frozen(spec.configuration(arm, corner))
            where = dotted(path_of_key(spec, arm, "freeze_trunk"))
            if frozen >= epochs and where not in told:
                told.add(where)
                line = f"{where} = {frozen}: must be below the number of epochs, {epochs} (arm {arm})"
                yield Contradiction(line, training_paths(arm, "epochs", "freeze_trunk"))


def complaints(configuration: Configuration) -> Iterator[str]:
    """The same for one configuration."""
    frozen, epochs = _frozen(configuration)
    if frozen >= epochs:
        yield f"training.freeze_trunk = {frozen}: must be below the number of epochs, {epochs}"


def missing(section: ClassificationSection) -> Iterator[Contradiction]:
    """Pretrained weights of networks that have none, and a file that is not there."""
    if section.pretrained and section.weights is not None:
        line = f"task.weights = {section.weights!r}: not together with task.pretrained = true; give one of the two"
        yield Contradiction(line, (("task", "weights"), ("task", "pretrained")))
    elif section.weights is not None:
        yield from missing_file(("task", "weights"), section.weights)


def separate_head(spec: StudySpec) -> bool:
    """Whether any arm trains head and trunk differently."""
    return any(
        spec.training(arm).get("head_factor", 1.0) != 1 or spec.training(arm).get("freeze_trunk", 0) != 0
        for arm in spec.arms
    )


def _frozen(configuration: Configuration) -> tuple[int, int]:
    options = configuration.options
    assert isinstance(options, ClassificationOptions)
    return options.freeze_trunk, configuration.training.epochs


# ---------------------------------------------------------------- the weights


def weight_files(section: ClassificationSection) -> Iterator[SourceFile]:
    """The files of weights on which trials depend, and the normalisation that comes with them."""
    if section.weights is not None:
        digest = sha256_of(Path(section.weights))
        yield SourceFile("task.weights", weights_name(section.weights), (digest,) if digest else ())
    if section.pretrained:
        from ralr_tune.models import registry

        for name in networks(section):
            try:
                file = registry.weights_file(name)
            except (UsageError, ValueError):  # building the network reports it
                continue
            digest = None if file is None else sha256_of(file)  # None before the download
            if file is not None:
                yield SourceFile("task.pretrained", f"weights {file.name}", (digest,) if digest else ())
                # earlier releases normalised by the training data: a study of theirs does not have this entry
                numbers = sha256(json.dumps(registry.normalisation(name)).encode()).hexdigest()
                yield SourceFile("task.pretrained", f"normalisation of {name}", (numbers,))


def weights_name(path: str) -> str:
    """The study's name for a file in `task.weights`."""
    return f"weights {Path(path).name}"


def head_notes(section: ClassificationSection, classes: int) -> Iterator[str]:
    """One line for each network whose pretrained head is of other classes."""
    if not section.pretrained:
        return
    from ralr_tune.models import registry

    for name in networks(section):
        try:
            count = registry.weights_classes(name) if name.startswith((TORCHVISION, TIMM)) else None
        except (UsageError, ValueError, AttributeError):  # an unknown network, or one without weights
            continue
        if count is not None and count != classes:
            yield (
                f"task.pretrained = true: the head of {name} is initialised at random: its weights have {count} "
                f"classes, the data {classes}"
            )
