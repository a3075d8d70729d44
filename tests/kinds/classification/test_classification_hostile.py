"""Damaged or malicious data files give a data set or a DataError, quickly, and execute nothing."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from ralr_tune.errors import DataError
from ralr_tune.images import pictures
from ralr_tune.kinds.classification.npz import REQUIRED
from ralr_tune.kinds.classification.samples import MAX_CLASSES
from ralr_tune.kinds.classification.sources import open_source
from ralr_tune.kinds.classification.torchvision_sets import UNSAFE
from ralr_tune.machine import memory
from tests.fuzz import cases, chance, damaged, soon
from tests.house.test_house_execution import found_in
from tests.kinds.conftest import arrays, picture

Writer = Callable[..., Path]


class Spy:
    """Writes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.fixture
def trace(tmp_path: Path) -> Iterator[Path]:
    """A file that must not exist afterwards: if it does, data were executed."""
    yield tmp_path / "executed"
    assert not (tmp_path / "executed").exists()


def loaded(**data: Any) -> None:
    """Loads everything of a data set."""
    source = open_source(data)
    for samples in (source.train, source.test()):
        images = samples.load()
        assert images.dtype == np.uint8
        assert len(images) == len(samples) >= 1


def is_refused(place: Path, **data: Any) -> bool:
    """Whether a data set is refused instead of loaded; the error must be one line that names its path."""
    with soon():
        try:
            loaded(**data)
        except DataError as error:
            said = str(error)
        else:
            return False
    assert str(place) in said
    assert said.isprintable()
    assert len(said) < 1000
    return True


def npy(header: str, body: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """An array file with this header, valid or not."""
    size = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + size + header.encode("latin-1") + body


def declared(dtype: str, *shape: int) -> str:
    return repr({"descr": dtype, "fortran_order": False, "shape": shape})


def write_members(path: Path, **changes: bytes | None) -> Path:
    """A valid .npz file with other members, or without one."""
    members: dict[str, bytes | None] = {}
    for name, array in arrays().items():
        stream = io.BytesIO()
        np.save(stream, array)
        members[name] = stream.getvalue()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in (members | changes).items():
            if content is not None:
                file.writestr(f"{name}.npy", content)
    return path


# ---------------------------------------------------------------- .npz


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train_images", npy(declared("|u1", 20, 10**6, 10**6)), r"uint8 .* 1\.863e\+04 GiB in memory; allowed: "),
        ("train_labels", npy(declared("<i8", 10**15)), "7.451e\\+06 GiB in memory; allowed: "),
        ("train_labels", npy(declared("<i8", -1)), "must be integers"),
        ("train_labels", npy(declared("<i8", 2**63)), "GiB in memory"),
        ("train_labels", npy(declared("<i8", 20)), "cannot be read"),
        ("train_labels", npy(declared("|O", 20)), "train_labels is object"),
        ("train_labels", npy(declared("|V0", 10**15)), "must be integers"),
        ("train_labels", npy("{'descr': '<i8'"), "cannot be read"),
        ("train_labels", npy("(" * 9000), "cannot be read"),
        ("train_labels", npy(declared("<i8", 20) + " " * 20_000), "cannot be read: Header info length"),
        ("train_labels", npy("__import__('os').abort()"), "cannot be read: malformed node"),
        ("train_labels", npy(declared("<i8", 20), version=(2, 0)), r"format version \(2, 0\); allowed"),
        ("train_labels", npy(declared("<i8", 20), version=(9, 9)), "cannot be read"),
        ("train_labels", b"raw bytes", "cannot be read: the magic string is not correct"),
        ("train_labels", b"", "cannot be read"),
        ("classes", npy(declared("<U0", 10**12)), f"K <= {MAX_CLASSES}"),
        ("classes", npy(declared("<U500000000", 3)), "of at most 1000 characters"),
        ("classes", npy(declared("|S3", 0)), "must be strings"),
        ("train_images", npy(declared("|u1", 20, 0, 5, 3)), r"uint8 \(20, 0, 5, 3\); must be"),
        ("train_images", npy(declared("|u1", 20, 5, 5, 0)), "1 <= C <= 16"),
        ("train_images", npy(repr({"descr": [("x", "|u1", (9,))] * 1, "fortran_order": False, "shape": (20, 5, 4)})),
         "must be uint8"),
    ],
)  # fmt: skip
def test_headers_are_not_trusted(tmp_path: Path, trace: Path, name: str, content: bytes, message: str) -> None:
    with soon(), pytest.raises(DataError, match=message) as caught:
        loaded(source="arrays", path=str(write_members(tmp_path / "x.npz", **{name: content})))
    assert len(str(caught.value)) < 600


def test_only_what_the_header_declares_is_read(tmp_path: Path) -> None:
    """A gigabyte of zeros after the labels takes a megabyte in the file; it must not be decompressed."""
    labels = np.arange(20) % 3
    body = labels.astype("<i8").tobytes()
    bomb = write_members(tmp_path / "x.npz", train_labels=npy(declared("<i8", 20), body + bytes(10**8)))
    assert bomb.stat().st_size < 10**6
    with soon():
        loaded(source="arrays", path=str(bomb))


def test_pickled_objects_are_not_loaded(tmp_path: Path, trace: Path) -> None:
    for name in (*REQUIRED, "classes"):
        content = npy(declared("|O", 1), pickle.dumps(Spy(trace)))
        with pytest.raises(DataError, match=f"{name} is object"):
            loaded(source="arrays", path=str(write_members(tmp_path / "x.npz", **{name: content})))
    with pytest.raises(DataError, match=r"not an \.npz file"):
        loaded(source="arrays", path=str(write(tmp_path / "y.npz", pickle.dumps(Spy(trace)))))


def test_the_spy_detects_unpickling(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Spy(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_labels_that_imply_too_many_classes(tmp_path: Path) -> None:
    labels = npy(declared("<i8", 20), np.full(20, 2**62).astype("<i8").tobytes())
    file = write_members(tmp_path / "x.npz", train_labels=labels, classes=None)
    with soon(), pytest.raises(DataError, match=f"allowed: below {MAX_CLASSES}"):
        loaded(source="arrays", path=str(file))


def test_class_names_that_cannot_be_decoded(tmp_path: Path) -> None:
    names = np.array([b"\xff\xfe", b"b", b"c"])
    stream = io.BytesIO()
    np.save(stream, names)
    file = write_members(tmp_path / "x.npz", classes=stream.getvalue())
    assert open_source({"source": "arrays", "path": str(file)}).classes == ("��", "b", "c")


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    for path, message in (("pipe.npz", "not a file"), ("", "not a file"), ("x" * 300, "File name too long")):
        with pytest.raises(DataError, match=message):
            loaded(source="arrays", path=str(tmp_path / path))


def test_images_must_fit_into_memory(
    tmp_path: Path, write_tree: Writer, write_npz: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 2000)
    with pytest.raises(
        DataError, match=r"train_images is uint8 .20, 5, 4, 3.: 1.118e-06 GiB in memory; allowed: 9.313e"
    ):
        loaded(source="arrays", path=str(write_npz()))
    root = write_tree({"train": ["ant", "bee"], "test": ["ant", "bee"]})
    with pytest.raises(DataError, match=r"train: 6 images of 12x10 pixels: .* GiB in memory; allowed: "):
        loaded(source="folder", path=str(root))


def test_fuzzed_arrays(tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, path, refused = chance(), tmp_path / "x.npz", 0
    spied = npy(declared("|O", 1), pickle.dumps(Spy(trace)))
    whole = [write_members(path).read_bytes(), write_members(path, odd=spied).read_bytes(), stored(path)]
    count = cases(300)
    for _ in range(count):
        path.write_bytes(damaged(draw.choice(whole), draw))
        refused += is_refused(path, source="arrays", path=str(path))
    assert refused > count / 2


def stored(path: Path) -> bytes:
    """The valid file, not compressed: damage reaches headers and data, not only a checksum."""
    np.savez(path, **arrays())  # type: ignore[arg-type]
    return path.read_bytes()


# ---------------------------------------------------------------- images


def png(width: int, height: int) -> bytes:
    """A PNG file that declares this many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def two_classes(root: Path, *contents: bytes, name: str = "0.png") -> Path:
    """Class folders a and b, each with these files and one valid image."""
    for label in ("a", "b"):
        (root / label).mkdir(parents=True, exist_ok=True)
        picture(0).save(root / label / "good.png")
        for number, content in enumerate(contents):
            (root / label / f"{number}{name}").write_bytes(content)
    return root


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [None, 8])
@pytest.mark.parametrize(
    ("width", "height"), [(10_000, 10_000), (2**31 - 1, 2**31 - 1), (1, 2**31 - 1), (90_000, 1000)]
)
def test_images_with_a_huge_declared_size(tmp_path: Path, width: int, height: int, size: int | None) -> None:
    root = two_classes(tmp_path / "x", png(width, height))
    with soon(), pytest.raises(DataError, match=r"00\.png: .*(pixels|limit)"):
        loaded(source="folder", path=str(root), size=size)


def test_the_pixel_limit_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", 12 * 10 - 1)
    with pytest.raises(DataError, match=r"good\.png: an image of 12x10 pixels; allowed: at most 119 pixels"):
        loaded(source="folder", path=str(two_classes(tmp_path / "x")))


def test_no_image_starts_another_program(tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow renders EPS with Ghostscript, whatever the file name is."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\ntouch {trace}\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    with pytest.raises(DataError, match="not a readable image: cannot identify"):
        loaded(source="folder", path=str(two_classes(tmp_path / "x", eps)))


def test_every_listed_extension_is_readable(tmp_path: Path) -> None:
    for number, name in enumerate(("jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp")):
        for label in ("a", "b"):
            (tmp_path / label).mkdir(exist_ok=True)
            picture(number, mode="L" if name == "pgm" else "RGB").save(tmp_path / label / f"{number}.{name}")
    assert len(open_source({"source": "folder", "path": str(tmp_path)}).train.load()) == 14


def test_folders_with_links_to_themselves(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "x")
    for name in "pqrstu":  # every path through the links would count as another folder
        (root / "a" / name).mkdir()
        for other in "pqrstu":
            (root / "a" / name / other).symlink_to(root / "a")
    with soon():
        source = open_source({"source": "folder", "path": str(root)})
    assert len(source.train) + len(source.test()) == 2


def test_files_are_in_torchvisions_order(write_tree: Writer) -> None:
    """The split of a tree without a test folder depends on it."""
    root = write_tree({"": ["ant", "bee", "ant/b-side", "ant/b", "ant/a"]})
    theirs = torchvision.datasets.ImageFolder(str(root))
    images = open_source({"source": "folder", "path": str(root)})
    joined = np.concatenate([images.train.rows, images.test().rows])
    assert sorted(joined) == list(range(len(theirs)))
    for row, label in zip(images.train.rows, images.train.labels, strict=True):
        assert theirs.targets[row] == label
    first = np.asarray(theirs[int(images.train.rows[0])][0]).transpose(2, 0, 1)
    assert np.array_equal(images.train.load()[0], first)


def test_file_and_folder_names_are_escaped_in_messages(tmp_path: Path) -> None:
    title = "\x1b]0;owned\x07\n\u202e"
    root = two_classes(tmp_path / "train", b"no picture", name=f"{title}.png").parent
    shutil.copytree(root / "train", root / "test")
    assert is_refused(root, source="folder", path=str(root))
    two_classes(root / "test" / title)
    assert is_refused(root, source="folder", path=str(root))
    assert is_refused(
        tmp_path,
        source="arrays",
        path=str(write_members(tmp_path / "x.npz", **{title: b"", "classes": None, "test_labels": None})),
    )


def samples_of_formats() -> list[tuple[str, bytes]]:
    found = []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        for mode in ("RGB", "L"):
            stream = io.BytesIO()
            exif = Image.Exif()
            exif[0x0112] = 6
            picture(1, mode=mode).save(stream, kind, **({"exif": exif} if kind in {"JPEG", "PNG", "TIFF"} else {}))
            found.append((kind.lower(), stream.getvalue()))
    return found


@pytest.mark.filterwarnings("ignore")
def test_fuzzed_pictures(tmp_path: Path) -> None:
    draw, whole, refused = chance(), samples_of_formats(), 0
    root = two_classes(tmp_path / "x")
    count = cases(300)
    for _ in range(count):
        _, content = draw.choice(whole)
        (root / "a" / "x.png").write_bytes(damaged(content, draw))
        refused += is_refused(root, source="folder", path=str(root), size=draw.choice((None, 8)))
    assert refused > count / 4


# ---------------------------------------------------------------- torchvision's data sets


def test_a_modified_cifar_is_not_unpickled(tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, _ in [*torchvision.datasets.CIFAR10.train_list, ("batches.meta", "")]:
        (folder / name).write_bytes(pickle.dumps(Spy(trace)))
    with pytest.raises(DataError, match="Dataset not found or corrupted"):
        loaded(source="torchvision", dataset="CIFAR10", root=str(tmp_path))


@pytest.mark.parametrize("name", sorted(UNSAFE))
def test_sets_that_unpickle_unverified_files_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"'{name}': refused, since torchvision executes a file"):
        loaded(source="torchvision", dataset=name, root=str(tmp_path))


def test_no_other_torchvision_set_unpickles_unverified_files() -> None:
    """A new release may add one: then it belongs in UNSAFE, or here with the reason why it is safe."""
    found = found_in(Path(torchvision.datasets.__file__).parent)
    known = {
        "cifar.py",  # checks the MD5 first
        "lsun.py",  # UNSAFE
        "moving_mnist.py",  # np.load with its defaults, which unpickle nothing
    }
    assert {
        name for name, calls in found.items() if "pickle" in calls or any(".load" in call for call in calls)
    } <= known


def write_mnist(root: Path) -> Path:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 30), ("t10k", 10)):
        header = struct.pack(">4B3I", 0, 0, 8, 3, count, 28, 28)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + bytes(count * 28 * 28))
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, count) + labels.tobytes())
    return raw


def test_fuzzed_mnist(tmp_path: Path) -> None:
    draw, refused = chance(), 0
    raw = write_mnist(tmp_path / "good")
    shutil.copytree(tmp_path / "good", tmp_path / "bad")
    for _ in range(cases(60)):
        file = draw.choice(sorted(raw.iterdir()))
        head, body = file.read_bytes()[:20], file.read_bytes()[20:]
        content = damaged(head, draw) + (body if draw.random() < 0.5 else damaged(body, draw))
        (tmp_path / "bad" / "MNIST" / "raw" / file.name).write_bytes(content)
        refused += is_refused(tmp_path / "bad", source="torchvision", dataset="MNIST", root=str(tmp_path / "bad"))
        shutil.copy(file, tmp_path / "bad" / "MNIST" / "raw" / file.name)
    assert refused
