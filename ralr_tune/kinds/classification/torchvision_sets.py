"""torchvision's classification data sets by class name, with a common interface to their splits."""

from __future__ import annotations

import hashlib
import inspect
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision.datasets
from numpy.typing import NDArray
from PIL import Image

from ralr_tune.errors import DataError
from ralr_tune.images.files import Images, digest64, short_reason, stamp
from ralr_tune.images.layout import SplitName
from ralr_tune.images.pictures import check_pixels, stack
from ralr_tune.kinds.classification.samples import (
    MAX_CLASSES,
    Contents,
    Listing,
    Samples,
    Source,
    all_samples,
    digests_of,
    with_test_split_from_train,
)
from ralr_tune.kinds.classification.stratify import Rows
from ralr_tune.machine.locks import locked
from ralr_tune.nearest import nearest

SPLIT_NAMES: Mapping[SplitName, tuple[str, ...]] = {
    "train": ("train", "trainval", "train-standard"),
    "validation": ("val", "valid"),
    "test": ("test", "val", "valid"),
}
"""Names of the splits of data sets with a `split` argument. The first name that a data set accepts is used; validation
data are those that are neither in the training nor in the test split."""

UNSAFE = frozenset({"LSUN", "LSUNClass"})
"""Their loader unpickles an unverified file. CIFAR's batches are pickles, too, but torchvision checks the MD5 of each
before it reads it."""

UNAVAILABLE = frozenset({"StanfordCars"})
"""torchvision has code to download it, but the server no longer exists."""

LABEL_ATTRIBUTES = ("targets", "labels", "_labels")


def read(
    dataset: str,
    *,
    root: str = "data",
    download: bool = False,
    size: int | None = None,
    max_pixels: int | None = None,
) -> Source:
    """The data set `dataset` of torchvision.datasets below `root`; "EMNIST:letters" names a variant by its `split`.

    `max_pixels`: maximum of one image. If the data set has no test data, a stratified fifth is set aside. A set with
    three splits (FGVCAircraft, Flowers102) keeps its own validation data. Raises DataError if it is unknown, missing,
    damaged, or not for classification.
    """
    name, _, variant = dataset.partition(":")
    opener = _Opener(name, variant, Path(root).expanduser(), download)
    data = opener.open("train")
    samples = partial(_samples, size=size, max_pixels=max_pixels, opener=opener)
    classes, train = _classes(data, opener.where), samples(data, "train")
    if not opener.has_splits():
        return with_test_split_from_train(classes, train, where=opener.where)
    validation = opener.open_validation()
    return Source(
        classes,
        train=train,
        test=lambda: samples(opener.open("test"), "test"),
        validation=None if validation is None else samples(validation, "validation"),
    )


def can_fetch(dataset: str) -> bool:
    """Whether torchvision can download this data set."""
    name = dataset.partition(":")[0]
    found = getattr(torchvision.datasets, name, None)
    # some take `download` in **kwargs and pass it to their base class
    bases = inspect.getmro(found) if inspect.isclass(found) else ()
    return name not in UNAVAILABLE and any("download" in inspect.signature(base).parameters for base in bases[:-1])


@dataclass(frozen=True)
class _Opener:
    """Opens one data set of torchvision with the arguments that its class accepts."""

    name: str
    variant: str
    root: Path
    download: bool

    @property
    def where(self) -> str:
        return f"data.dataset = {self.name!r} in data.root = {str(self.root)!r}"

    def open_validation(self) -> Any:
        """The validation data of a set that has all three splits, None for others."""
        if "split" not in self._parameters() or self.variant or not self._has("test"):
            return None
        return self.open("validation") if self._has("val") or self._has("valid") else None

    def _has(self, split: str) -> bool:
        """Whether the data set's class knows a split of this name, according to the error for an impossible one."""
        impossible = {**self._common_arguments(), "download": False, "split": "ralr_tune-no-such-split"}
        try:
            self._class()(**{key: value for key, value in impossible.items() if key in self._parameters()})
        except ValueError as error:  # torchvision lists those that are allowed
            return split in re.findall(r"[\w-]+", str(error))
        except Exception:  # opening it reports what is wrong
            return False
        return False

    def open(self, split: SplitName) -> Any:
        self._class()
        if self.download and not can_fetch(self.name):
            raise DataError(f"{self.where}: data.download = true: torchvision cannot download it; put its files there")
        with _download_lock(self.root, self.download):
            for choice in self._split_arguments(split):
                try:
                    return self._class()(**self._common_arguments(), **choice)
                except ValueError as error:  # torchvision raises it for an unknown split
                    last = error
                except Exception as error:  # from damaged or missing files: torchvision has no error class of its own
                    can_help = not self.download and can_fetch(self.name)
                    hint = "; data.download = true downloads it" if can_help else ""
                    raise DataError(f"{self.where}: {short_reason(error)}{hint}") from error
        raise DataError(f"{self.where}: {short_reason(last)}") from last

    def has_splits(self) -> bool:
        return self._split_arguments("train") != [{}]

    def _split_arguments(self, split: SplitName) -> list[dict[str, Any]]:
        """Arguments that may select the split, the most likely first."""
        if "split" in self._parameters() and not self.variant:
            return [{"split": name} for name in SPLIT_NAMES[split]]
        return [{"train": split == "train"}] if "train" in self._parameters() or self.variant else [{}]

    def _common_arguments(self) -> dict[str, Any]:
        shared: dict[str, Any] = {"root": str(self.root), "download": self.download}
        # some take `download` in **kwargs and some not at all: it is passed only if true or in the signature
        given = {key: value for key, value in shared.items() if value is True or key in self._parameters()}
        return given | ({"split": self.variant} if self.variant else {})

    def _parameters(self) -> Any:
        return inspect.signature(self._class()).parameters

    def _class(self) -> Any:
        if self.name in UNSAFE:
            raise DataError(
                f"data.dataset = {self.name!r}: refused, since torchvision executes a file of data.root for it"
            )
        found = getattr(torchvision.datasets, self.name, None)
        if inspect.isclass(found) and issubclass(found, torchvision.datasets.VisionDataset):
            return found
        near = nearest(self.name, torchvision.datasets.__all__, count=3, cutoff=0.4)
        raise DataError(
            f"data.dataset = {self.name!r}: not a data set of torchvision; the nearest: {', '.join(near) or 'none'}"
        )


@contextmanager
def _download_lock(root: Path, wanted: bool) -> Iterator[None]:
    """One worker of this machine downloads while the others wait."""
    with ExitStack() as held:
        if wanted:
            try:
                root.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(root / ".download.lock", remove=False))
            except OSError as error:
                raise DataError(f"data.root = {str(root)!r}: cannot be written to: {error}") from error
        yield


def _samples(data: Any, split: SplitName, *, size: int | None, max_pixels: int | None, opener: _Opener) -> Samples:
    labels = _labels(data, opener.where)
    listing = _listing(data, split, opener)
    return all_samples(
        labels,
        partial(_load, data, labels, listing.contents, size, max_pixels, opener.where),
        stamp=_stamp(data, size) or f"{opener.name}|{opener.variant}|{split}|{PIL.__version__}|{size}|{listing.stamp}",
        listing=listing,
        origin=f"torchvision's {opener.name}",
    )


def _listing(data: Any, split: SplitName, opener: _Opener) -> Listing:
    """Identified by the images if the data set has them in memory, otherwise by all files below its root."""

    def names(row: int) -> str:
        return f"{opener.name} {split}[{row}]"

    in_memory = _images_in_memory(data)
    if in_memory is None:
        contents = Contents(len(data), partial(_digests_of_pictures, data, opener.where))
        return Listing(_root_stamp(str(opener.root)), names, contents, separate=False)
    images = np.asarray(in_memory)
    return Listing(_stamp(data, None), names, Contents(len(images), lambda rows: digests_of(images, rows)))


def _digests_of_pictures(data: Any, where: str, rows: Rows) -> NDArray[np.uint64]:
    return np.array([_digest(_item(data, int(row), where)[0]) for row in rows], dtype=np.uint64)


def _digest(picture: Image.Image) -> int:
    """Of the pixels: torchvision's data sets do not say in which file a sample is stored."""
    return digest64(f"{picture.mode}|{picture.size}|".encode() + picture.tobytes())


def _root_stamp(root: str) -> str:
    """A hash of names, sizes and modification times of all files below a folder, also of those that are never read."""
    files = [path for place, _, names in os.walk(root) for name in names if os.path.isfile(path := f"{place}/{name}")]
    return f"{torchvision.__version__}|{stamp(sorted(files))}"


def _stamp(data: Any, size: int | None) -> str | None:
    """A hash of the images if the data set has them in memory (MNIST, CIFAR, SVHN); otherwise None."""
    images = _images_in_memory(data)
    if images is None:
        return None
    digest = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
    return f"{type(data).__name__}|{torchvision.__version__}|{PIL.__version__}|{size}|{digest}"


def _images_in_memory(data: Any) -> Any:
    """The images of a data set as an array or tensor (N, ...); None if it does not have them in memory."""
    images = getattr(data, "data", None)
    return images if isinstance(images, np.ndarray | torch.Tensor) and len(images) else None


def _labels(data: Any, where: str) -> Rows:
    """(N,), from the data set's list of labels if it has one, otherwise by reading every sample."""
    for name in LABEL_ATTRIBUTES:
        listed = getattr(data, name, None)
        if listed is not None and np.ndim(listed) == 1 and np.asarray(listed).dtype.kind in "iu":
            return np.asarray(listed).astype(np.int64)
    pairs = getattr(data, "_samples", None)  # StanfordCars
    if isinstance(pairs, list) and all(isinstance(pair, tuple) and isinstance(pair[-1], Integral) for pair in pairs):
        return np.array([pair[-1] for pair in pairs], dtype=np.int64)
    return np.array([_item(data, row, where)[1] for row in range(len(data))])


def _classes(data: Any, where: str) -> tuple[str, ...]:
    names = getattr(data, "classes", None)
    if names:
        # ImageNet has several names per class
        return tuple(name if isinstance(name, str) else ", ".join(name) for name in names)
    highest = int(_labels(data, where).max())
    if not 0 <= highest < MAX_CLASSES:
        raise DataError(f"{where}: labels go up to {highest}; allowed: 0 to {MAX_CLASSES - 1}")
    return tuple(str(number) for number in range(highest + 1))


def _load(
    data: Any, labels: Rows, contents: Contents, size: int | None, max_pixels: int | None, where: str, rows: Rows
) -> Images:
    pictures = _pictures(data, labels, contents, max_pixels, where, rows)
    return stack(pictures, count=len(rows), mode=None, size=size, where=where)


def _pictures(
    data: Any, labels: Rows, contents: Contents, max_pixels: int | None, where: str, rows: Rows
) -> Iterator[Image.Image]:
    in_memory = _images_in_memory(data) is not None  # their hashes are fast to compute, if they are needed
    for row in rows:
        picture, label = _item(data, int(row), where)
        if label != labels[row]:
            raise DataError(f"{where}: sample {row} has label {label}, but the list of labels has {labels[row]}")
        check_pixels(picture, f"{where}: sample {row}", max_pixels)
        if not in_memory:
            contents.add(row, _digest(picture))
        yield picture


def _item(data: Any, row: int, where: str) -> tuple[Image.Image, int]:
    try:
        picture, label = data[row]
        if isinstance(picture, Image.Image):
            return picture, int(label)
    except Exception as error:  # from Pillow and from the code of the data set
        raise DataError(
            f"{where}: sample {row} is not a readable image with one class: {short_reason(error)}"
        ) from error
    raise DataError(f"{where}: sample {row} is of type {type(picture).__name__}; must be an image")
