"""The data part of a script: four tensors (train with validation, test; images and labels) and `names`, the classes.

The same images as the study's own: where a source has no test split, the script sets aside what the study does.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import torchvision.datasets

from ralr_tune.errors import UsageError
from ralr_tune.kinds.classification import stratify
from ralr_tune.kinds.classification.folder import VALIDATION_NAMES
from ralr_tune.kinds.classification.pictures import GREY_MODES
from ralr_tune.kinds.classification.samples import TEST_SHARE
from ralr_tune.kinds.classification.section import ArraysData, DigitsData, FolderData, ImageData, TorchvisionData
from ralr_tune.kinds.classification.torchvision_sets import SPLIT_NAMES
from ralr_tune.report.script.parts import OTHER_FORMS, Part, is_name, keywords, literal, source_of
from ralr_tune.seeds import derive_seed

_TORCH = "import torch"
_NUMPY = "import numpy as np"
_PATH = "from pathlib import Path"
_PILLOW = ("from PIL import Image", "from PIL import ImageOps")
_TO_TENSOR = "from torchvision.transforms.v2.functional import pil_to_tensor"


def data_part(data: ImageData) -> Part:
    """Raises UsageError for a data set that is none of torchvision's."""
    part = _SOURCES[type(data)](data)
    in_folders = isinstance(data, FolderData)
    body = part.body
    if data.classes is not None:
        body += _KEEP.format(kept=literal(list(data.classes))) + (_KEEP_HELD_OUT if in_folders else "")
    if data.limit is not None:
        body += _LIMIT.format(limit=literal(data.limit), seed=derive_seed("limit"))
    if in_folders:
        body += _JOIN
    imports = part.imports | {_TORCH}
    if "stratified_split(" not in body:
        return Part(body, imports)
    splitter = source_of(stratify)
    return Part(f"{splitter.body}\n\n{body}", imports | splitter.imports)


# ---------------------------------------------------------------- the sources

_OWN_SPLIT = f"""\
# There is no test split: the same fifth as in the study is set aside.
test, train = stratified_split(labels.numpy(), round({TEST_SHARE} * len(labels)), seed={derive_seed("test split")})
train_images, train_labels, test_images, test_labels = images[train], labels[train], images[test], labels[test]
"""

_DIGITS = f"""\
digits = load_digits()
names = [str(digit) for digit in digits.target_names]
images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8))[:, None]
labels = torch.from_numpy(digits.target)
{_OWN_SPLIT}"""


def _digits(data: DigitsData) -> Part:
    return Part(_DIGITS, frozenset({_NUMPY, "from sklearn.datasets import load_digits"}))


_ARRAYS = """\
def as_tensors(images, labels):
    \"\"\"Images (N, H, W) or (N, H, W, C) as (N, C, H, W).\"\"\"
    images = images[..., None] if images.ndim == 3 else images
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels.astype(np.int64))


with np.load(Path({path}).expanduser(), allow_pickle=False) as arrays:
    train_images, train_labels = as_tensors(arrays["train_images"], arrays["train_labels"])
    test_images, test_labels = as_tensors(arrays["test_images"], arrays["test_labels"])
    known = arrays["classes"].astype(str) if "classes" in arrays else range(int(train_labels.max()) + 1)
    names = [str(name) for name in known]
"""


def _arrays(data: ArraysData) -> Part:
    return Part(_ARRAYS.format(path=literal(data.path)), frozenset({_NUMPY, _PATH}))


_FOLDER = """\
def picture(path):
    \"\"\"The middle of a photograph, as a square.\"\"\"
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    return ImageOps.fit(upright, ({size}, {size}), method=Image.Resampling.BILINEAR)


def load(folder):
    \"\"\"Images (N, 3, H, W) of a tree of class folders; labels as in `names`, since a split may lack a class.\"\"\"
    tree = ImageFolder(folder, loader=picture, allow_empty=True)
    images = torch.stack([pil_to_tensor(tree[row][0]) for row in range(len(tree))])
    return images, torch.tensor([names.index(tree.classes[label]) for label in tree.targets])


root = Path({path}).expanduser()
folder = root / "train" if (root / "train").is_dir() else root
names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
held_out = []
if folder == root:
    images, labels = load(root)
{own_split}else:
    train_images, train_labels = load(root / "train")
    test_images, test_labels = load(root / "test")
    found = [root / name for name in {validation} if (root / name).is_dir()]
    held_out = [load(found[0])] if found else []
"""
_JOIN = """\
for images, labels in held_out:  # the study's validation images are trained on, too
    train_images, train_labels = torch.cat([train_images, images]), torch.cat([train_labels, labels])
"""
_KEEP_HELD_OUT = """\
held_out = [keep(images, labels) for images, labels in held_out]
"""


def _folder(data: FolderData) -> Part:
    own_split = "".join(f"    {line}\n" for line in _OWN_SPLIT.splitlines())
    body = _FOLDER.format(
        path=literal(data.path), size=literal(data.size), own_split=own_split, validation=literal(VALIDATION_NAMES)
    )
    return Part(body, frozenset({_PATH, *_PILLOW, _TO_TENSOR, "from torchvision.datasets import ImageFolder"}))


_TORCHVISION = """\
def load(data):
    \"\"\"Images (N, C, H, W) and labels (N,) of a data set of torchvision.\"\"\"
    mode = "L" if data[0][0].mode in {grey} else "RGB"
    images, labels = [], []
    for row in range(len(data)):
        image, label = data[row]
        images.append(pil_to_tensor({picture}))
        labels.append(int(label))
    return torch.stack(images), torch.tensor(labels)


"""
_NAMES = """\
known = getattr({data}, "classes", None) or range(int({labels}.max()) + 1)
names = [", ".join(name) if isinstance(name, tuple) else str(name) for name in known]
"""
_WITH_SPLITS = """\
train_data, test_data = {name}({train}), {name}({test})
train_images, train_labels = load(train_data)
test_images, test_labels = load(test_data)
"""
_WITHOUT_SPLITS = """\
data = {name}({whole})
images, labels = load(data)
"""


def _torchvision(data: TorchvisionData) -> Part:
    name, _, variant = data.dataset.partition(":")
    kind = _data_set(name)
    picture = "image.convert(mode)"
    if data.size is not None:
        picture = f"ImageOps.fit({picture}, ({data.size}, {data.size}), method=Image.Resampling.BILINEAR)"
    body = _TORCHVISION.format(grey=literal(tuple(sorted(GREY_MODES))), picture=picture)
    shared = _shared_arguments(kind, data, variant)
    splits = _split_arguments(kind, variant)
    if splits is None:
        body += _WITHOUT_SPLITS.format(name=name, whole=_call(shared))
        body += _NAMES.format(data="data", labels="labels") + _OWN_SPLIT
    else:
        train, test = (_call({**shared, **split}) for split in splits)
        body += _WITH_SPLITS.format(name=name, train=train, test=test)
        body += _NAMES.format(data="train_data", labels="train_labels")
    pillow = _PILLOW if data.size is not None else ()
    return Part(body, frozenset({*pillow, _TO_TENSOR, f"from torchvision.datasets import {name}"}))


def _data_set(name: str) -> Callable[..., Any]:
    kind = getattr(torchvision.datasets, name, None) if is_name(name) else None
    if not inspect.isclass(kind) or not issubclass(kind, torchvision.datasets.VisionDataset):
        raise UsageError(f"task.data.dataset = {name!r}: no data set of torchvision; {OTHER_FORMS}")
    return kind


def _shared_arguments(kind: Callable[..., Any], data: TorchvisionData, variant: str) -> dict[str, Any]:
    takes = inspect.signature(kind).parameters
    root = {"root": data.root} if "root" in takes else {}
    download = {"download": True} if data.download else {}
    return root | download | ({"split": variant} if variant else {})


def _split_arguments(kind: Callable[..., Any], variant: str) -> list[dict[str, Any]] | None:
    """What opens train and test; None where the data set has no splits."""
    takes = inspect.signature(kind).parameters
    if "split" in takes and not variant:
        return [{"split": _split_name(kind, train)} for train in (True, False)]
    return [{"train": True}, {"train": False}] if "train" in takes or variant else None


def _split_name(kind: Callable[..., Any], train: bool) -> str:
    """The name of a split, found as the task finds it: torchvision refuses a foreign name before it looks for files."""
    with tempfile.TemporaryDirectory() as nothing:
        for name in SPLIT_NAMES[train]:
            try:
                kind(root=nothing, split=name)
            except ValueError:
                continue
            except Exception:
                return name  # it knows the split and misses its files
            return name
    raise UsageError(f"task.data.dataset = {kind.__name__!r}: no split is called {SPLIT_NAMES[train]}; {OTHER_FORMS}")


def _call(arguments: Mapping[str, Any]) -> str:
    return keywords(arguments).removeprefix(", ")


_SOURCES: Mapping[type, Callable[[Any], Part]] = {
    DigitsData: _digits,
    ArraysData: _arrays,
    FolderData: _folder,
    TorchvisionData: _torchvision,
}

# ---------------------------------------------------------------- restrictions, in the task's order

_KEEP = """\
kept = [names.index(name) if isinstance(name, str) else name for name in {kept}]
number = torch.full((len(names),), -1)
number[kept] = torch.arange(len(kept))


def keep(images, labels):
    \"\"\"The images of the classes that are kept, these numbered anew.\"\"\"
    chosen = number[labels] >= 0
    return images[chosen], number[labels[chosen]]


train_images, train_labels = keep(train_images, train_labels)
test_images, test_labels = keep(test_images, test_labels)
names = [names[old] for old in kept]
"""
_LIMIT = """\
if len(train_labels) > {limit}:  # the same images as in the study
    _, some = stratified_split(train_labels.numpy(), len(train_labels) - {limit}, seed={seed})
    train_images, train_labels = train_images[some], train_labels[some]
"""
