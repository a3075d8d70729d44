"""torchvision's classification data sets by class name, whichever way they name their splits."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision.datasets
from PIL import Image

from ralr_tune.errors import DataError
from ralr_tune.kinds.classification.pictures import stack
from ralr_tune.kinds.classification.samples import (
    MOST_CLASSES,
    Images,
    Samples,
    Source,
    all_samples,
    why,
    with_own_test_split,
)
from ralr_tune.kinds.classification.stratify import Rows
from ralr_tune.machine.locks import locked
from ralr_tune.nearest import nearest

SPLIT_NAMES = {True: ("train", "trainval", "train-standard"), False: ("test", "val", "valid")}
"""What data sets with a `split` argument call their training data (True) and what to test on (False); the first that a
data set knows is taken."""

UNSAFE = frozenset({"LSUN", "LSUNClass"})
"""Their loader unpickles a file that nothing is known of. CIFAR's batches are pickles, too, but torchvision holds each
against its MD5 before it reads it."""

GONE = frozenset({"StanfordCars"})
"""torchvision knows how to fetch it, and its address answers no more."""

LABEL_ATTRIBUTES = ("targets", "labels", "_labels")


def read(dataset: str, *, root: str = "data", download: bool = False, size: int | None = None) -> Source:
    """The data set `dataset` of torchvision.datasets below `root`; "EMNIST:letters" names a variant by its `split`.

    Where it has no test data of its own, a stratified fifth is set aside. Raises DataError when the data set is
    unknown, missing, damaged, or not for classification.
    """
    name, _, variant = dataset.partition(":")
    opener = _Opener(name, variant, Path(root).expanduser(), download)
    data = opener.open(train=True)
    classes, train = _classes(data, opener.where), _samples(data, size, opener.where)
    if not opener.has_splits():
        return with_own_test_split(classes, train, where=opener.where)
    return Source(classes, train=train, test=lambda: _samples(opener.open(train=False), size, opener.where))


def can_fetch(dataset: str) -> bool:
    """Whether torchvision can download this data set."""
    name = dataset.partition(":")[0]
    found = getattr(torchvision.datasets, name, None)
    # some take `download` as one of **kwargs, and hand it to the class that they extend
    bases = inspect.getmro(found) if inspect.isclass(found) else ()
    return name not in GONE and any("download" in inspect.signature(base).parameters for base in bases[:-1])


@dataclass(frozen=True)
class _Opener:
    """Knows how one data set of torchvision wants to be opened."""

    name: str
    variant: str
    root: Path
    download: bool

    @property
    def where(self) -> str:
        return f"data.dataset = {self.name!r} in data.root = {str(self.root)!r}"

    def open(self, *, train: bool) -> Any:
        self._class()
        if self.download and not can_fetch(self.name):
            raise DataError(f"{self.where}: data.download = true: torchvision cannot fetch it; put its files there")
        with _alone(self.root, self.download):
            for choice in self._choices(train):
                try:
                    return self._class()(**self._shared(), **choice)
                except ValueError as error:  # torchvision's answer to a split that it does not know
                    last = error
                except Exception as error:  # of reading damaged or missing files: torchvision has no error of its own
                    hint = (
                        "" if self.download or not can_fetch(self.name) else "; with data.download = true it is fetched"
                    )
                    raise DataError(f"{self.where}: {why(error)}{hint}") from error
        raise DataError(f"{self.where}: {why(last)}") from last

    def has_splits(self) -> bool:
        return self._choices(train=True) != [{}]

    def _choices(self, train: bool) -> list[dict[str, Any]]:
        """Arguments that may name the split, the likeliest first."""
        if "split" in self._parameters() and not self.variant:
            return [{"split": name} for name in SPLIT_NAMES[train]]
        return [{"train": train}] if "train" in self._parameters() or self.variant else [{}]

    def _shared(self) -> dict[str, Any]:
        shared: dict[str, Any] = {"root": str(self.root), "download": self.download}
        # some take `download` as one of **kwargs and some not at all: where nothing is asked, nothing is said
        given = {key: value for key, value in shared.items() if value is True or key in self._parameters()}
        return given | ({"split": self.variant} if self.variant else {})

    def _parameters(self) -> Any:
        return inspect.signature(self._class()).parameters

    def _class(self) -> Any:
        if self.name in UNSAFE:
            raise DataError(f"data.dataset = {self.name!r}: torchvision reads it by executing a file of data.root")
        found = getattr(torchvision.datasets, self.name, None)
        if inspect.isclass(found) and issubclass(found, torchvision.datasets.VisionDataset):
            return found
        near = nearest(self.name, torchvision.datasets.__all__, count=3, cutoff=0.4)
        raise DataError(
            f"data.dataset = {self.name!r}: no data set of torchvision; the nearest: {', '.join(near) or 'none'}"
        )


@contextmanager
def _alone(root: Path, wanted: bool) -> Iterator[None]:
    """Of several workers that start on one machine, one downloads and the others wait."""
    with ExitStack() as held:
        if wanted:
            try:
                root.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(root / ".download.lock", remove=False))
            except OSError as error:
                raise DataError(f"data.root = {str(root)!r}: cannot be written to: {error}") from error
        yield


def _samples(data: Any, size: int | None, where: str) -> Samples:
    labels = _labels(data, where)
    return all_samples(labels, partial(_load, data, labels, size, where), stamp=_stamp(data, size))


def _stamp(data: Any, size: int | None) -> str | None:
    """A hash of the images where the data set holds them in memory (MNIST, CIFAR, SVHN); else nothing is known."""
    held = getattr(data, "data", None)
    if not isinstance(held, np.ndarray | torch.Tensor) or not len(held):
        return None
    digest = hashlib.sha256(np.ascontiguousarray(held).data).hexdigest()
    return f"{type(data).__name__}|{torchvision.__version__}|{PIL.__version__}|{size}|{digest}"


def _labels(data: Any, where: str) -> Rows:
    """(N,), from the data set's list where it has one, else by reading every sample."""
    for name in LABEL_ATTRIBUTES:
        listed = getattr(data, name, None)
        if listed is not None and np.ndim(listed) == 1 and np.asarray(listed).dtype.kind in "iu":
            return np.asarray(listed).astype(np.int64)
    return np.array([_item(data, row, where)[1] for row in range(len(data))])


def _classes(data: Any, where: str) -> tuple[str, ...]:
    names = getattr(data, "classes", None)
    if names:
        # ImageNet gives every class several names
        return tuple(name if isinstance(name, str) else ", ".join(name) for name in names)
    most = int(_labels(data, where).max())
    if not 0 <= most < MOST_CLASSES:
        raise DataError(f"{where}: labels go up to {most}; allowed: 0 to {MOST_CLASSES - 1}")
    return tuple(str(number) for number in range(most + 1))


def _load(data: Any, labels: Rows, size: int | None, where: str, rows: Rows) -> Images:
    return stack(_pictures(data, labels, where, rows), count=len(rows), mode=None, size=size, where=where)


def _pictures(data: Any, labels: Rows, where: str, rows: Rows) -> Iterator[Image.Image]:
    for row in rows:
        picture, label = _item(data, int(row), where)
        if label != labels[row]:
            raise DataError(f"{where}: sample {row} has the label {label}, its list of labels says {labels[row]}")
        yield picture


def _item(data: Any, row: int, where: str) -> tuple[Image.Image, int]:
    try:
        picture, label = data[row]
        if isinstance(picture, Image.Image):
            return picture, int(label)
    except Exception as error:  # of Pillow and of whatever the data set does with its files
        raise DataError(f"{where}: sample {row} is no readable image with one class: {why(error)}") from error
    raise DataError(f"{where}: sample {row} is {type(picture).__name__}; for classification it must be an image")
