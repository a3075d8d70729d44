"""Comparison with other tools: `make bench`, or `python -m benchmarks.peers --profile cpu-short`; one table per case.

(a) the script that a user writes from Optuna's PyTorch example, tuned and as it stands there, (b) Ray Tune with
OptunaSearch, (c) this project, with each accelerator off in turn. Same images, split, network, batch, epochs, search
space, number of trials; the same configurations first (case.py), then each tool's own TPE; no pruning without
--pruning (median, ASHA, median). Each peer first tries the settings that its documentation names (rows.py) on a short
part of the case, and runs with the fastest (cpu-short takes the likeliest); it trains in float32, and on a GPU in
bfloat16 if that is faster for it. Rows take turns and repeat while the profile's time lasts; numbers are medians, with
the smallest and the largest in brackets; ratios are of medians, "x plain" relative to the tuned plain script.

images/s      training images over the time from the first trial's start to the last epoch's end, validation included
trials/h      over the same time
of the device's fastest product (PRECISION)
              operations of convolutions and products over that time, as a share of the device's rate in products of
              large matrices, in its fastest precision; for this package without the evaluations at a trial's end
to accuracy   seconds from the command, imports included, to the first epoch with a validation accuracy that every run
              of the case reached
start         seconds from the command to the first trial's start (this package: to the claim of its row)
best          the best validation accuracy, median; meaningless for random images

A run that exceeds the profile's `cut_s` is stopped, and its numbers cover what it had done by then.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from benchmarks.peers.case import VALIDATION, Case, Job
from benchmarks.peers.limit import fastest_product, operations
from benchmarks.peers.ours import study
from benchmarks.peers.rows import CORES, EXAMPLE, Row, ours, peers
from ralr_tune.studyfile import parse_study
from ralr_tune.training.compiling import choose_compilation
from ralr_tune.training.fusion import SHARE_OF_WAITING, SLOT_COUNTS
from ralr_tune.training.precision import choose_precision

ROOT = Path(__file__).resolve().parents[2]
LEAVE_S = 5.0
"""Seconds that a run has to exit when it is cut."""


@dataclass(frozen=True)
class Size:
    """A case of a profile: how much of which data."""

    name: str
    data: str
    """"digits" or "cifar"."""
    model: str
    batch_size: int
    images: int
    """Training and validation images together."""
    classes: int
    epochs: int
    trials: int


@dataclass(frozen=True)
class Profile:
    device: str
    minutes: float
    """No round starts that would end later."""
    cut_s: float
    """A run that takes longer is stopped."""
    repeats: int
    sizes: tuple[Size, ...]
    tries: int | None = None
    """How many settings of a peer to try, the likely ones first; None: all. 1 skips the trial runs."""


_CIFAR_20 = Size("CIFAR, ResNet-20", "cifar", "resnet20", 128, 50_000, 100, epochs=2, trials=64)
"""Enough trials for "auto" to take eight slots; rows that need longer are cut."""
_CIFAR_110 = replace(_CIFAR_20, name="CIFAR, ResNet-110", model="resnet110", epochs=1)
_DIGITS = Size("digits, small_cnn", "digits", "small_cnn", 64, 1438, 10, epochs=12, trials=8)
PROFILES: dict[str, Profile] = {
    "tiny": Profile("cpu", 1, 60, 1, (replace(_DIGITS, images=300, epochs=1, trials=2),), tries=1),
    "cpu-short": Profile(
        "cpu",
        10,
        40,
        2,
        (
            replace(_DIGITS, epochs=6, trials=16),
            Size("CIFAR, small_cnn", "cifar", "small_cnn", 128, 2500, 10, epochs=2, trials=4),
            Size("CIFAR, ResNet-20", "cifar", "resnet20", 128, 1250, 10, epochs=1, trials=4),
        ),
        tries=1,
    ),
    "cpu": Profile(
        "cpu",
        45,
        90,
        5,
        (
            replace(_DIGITS, trials=96),  # enough for "auto" to take eight slots
            Size("CIFAR, small_cnn", "cifar", "small_cnn", 128, 5000, 10, epochs=3, trials=8),
            Size("CIFAR, ResNet-20", "cifar", "resnet20", 128, 2500, 10, epochs=2, trials=6),
        ),
        tries=3,
    ),
    # a row starts training 14 s (the example) to 40 s (Ray Tune) after its command, on the H100 machine
    "gpu-short": Profile("cuda", 14, 75, 1, (_CIFAR_20,), tries=1),
    "gpu": Profile(
        "cuda",
        90,
        120,
        3,
        (
            replace(_DIGITS, trials=128),
            Size("CIFAR, small_cnn", "cifar", "small_cnn", 128, 50_000, 100, epochs=2, trials=64),
            _CIFAR_20,
            _CIFAR_110,
        ),
        tries=2,
    ),
}


class Run(NamedTuple):
    """One run of a row."""

    start_s: float
    span_s: float
    """From the first trial's start to the last epoch's end."""
    images: int
    trials: float
    """In a cut run, an unfinished trial counts by its epochs."""
    accuracies: list[tuple[float, float]]
    """(seconds since the command, validation accuracy) of each epoch."""
    cut: bool = False

    @property
    def images_per_second(self) -> float:
        return self.images / self.span_s

    @property
    def trials_per_hour(self) -> float:
        return 3600 * self.trials / self.span_s

    @property
    def best(self) -> float:
        return max(value for _, value in self.accuracies)

    def to_accuracy(self, target: float) -> float:
        return min(seconds for seconds, value in self.accuracies if value >= target)


Measured = list[tuple[Row, list[Run]]]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profile", choices=PROFILES, default="cpu-short")
    parser.add_argument("--cifar", type=Path, help="cifar100.npz (see CONTRIBUTING.md); without it, random images")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--pruning", action="store_true")
    parser.add_argument("--out", type=Path, help="writes OUT.json and OUT.md, too")
    given = parser.parse_args(arguments)
    if given.cifar and not given.cifar.is_file():
        parser.error(f"--cifar {given.cifar}: no such file")
    profile = PROFILES[given.profile]
    began, printed, kept = time.monotonic(), [_head(given.profile, profile)], {}
    print(printed[0], flush=True)
    sizes = [size for size in profile.sizes if given.only in size.name]
    for index, size in enumerate(sizes):
        now = time.monotonic()
        until = now + (began + 60 * profile.minutes - now) / (len(sizes) - index)
        with tempfile.TemporaryDirectory(prefix="ralr-tune-bench-") as folder:
            case, what = made_case(size, profile, Path(folder), given.cifar, given.pruning)
            rows = chosen_rows(case, profile)
            runs = measured(case, rows, profile, until)
            text = "\n".join(table(f"{size.name}: {what}", case, runs))
        printed.append(text)
        print(f"\n{text}", flush=True)
        kept[size.name] = {row.name: [each._asdict() for each in found] for row, found in runs}
    printed.append(f"{(time.monotonic() - began) / 60:.0f} minutes; load at the end {_load()}")
    print(f"\n{printed[-1]}")
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.with_suffix(".json").write_text(json.dumps({"profile": asdict(profile), "runs": kept}, indent=1))
        given.out.with_suffix(".md").write_text("\n\n".join(printed) + "\n")


def _head(name: str, profile: Profile) -> str:
    import torch

    versions = f"torch {torch.__version__}, {CORES} cores"
    card = torch.cuda.get_device_name() if profile.device == "cuda" else "CPU"
    limit = fastest_product(profile.device)
    speed = f"{limit.speed / 1e12:.3g} TFLOP/s in {limit.precision}"
    return f"profile {name}: {card}, {speed}, {versions}; load {_load()}"


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


# ---------------------------------------------------------------- cases


def made_case(size: Size, profile: Profile, folder: Path, cifar: Path | None, pruning: bool) -> tuple[Case, str]:
    """The case with its file of images, and the images in words."""
    images, labels, what = _images(size, cifar)
    file = folder / "data.npz"
    tests = {"test_images": images[: size.classes], "test_labels": labels[: size.classes]}
    np.savez(file, train_images=images, train_labels=labels, **tests)
    augment = ("crop",) if size.data == "digits" else ("crop", "flip")
    case = Case(
        name=size.name,
        data=str(file),
        model=size.model,
        batch_size=size.batch_size,
        epochs=size.epochs,
        trials=size.trials,
        augment=augment,
        device=profile.device,
        pruning=pruning,
    )
    return case, f"{len(labels):,} {what}, batch {size.batch_size}, {size.epochs} epochs, {size.trials} trials"


def _images(size: Size, cifar: Path | None) -> tuple[Any, Any, str]:
    """Equally many of each class, in an order independent of the class."""
    drawn = np.random.default_rng(0)
    if size.data == "digits":
        from ralr_tune.kinds.classification.sources import open_source

        train = open_source({"source": "digits"}).train
        images, labels, what = train.load()[:, 0], train.labels, "digits of 8x8"
    elif cifar is not None:
        with np.load(cifar) as held:
            images, labels, what = held["train_images"], held["train_labels"], "CIFAR-100 images"
    else:
        images = drawn.integers(0, 256, (size.images, 32, 32, 3), dtype=np.uint8)
        labels, what = np.arange(size.images) % size.classes, "random images of 32x32 (no accuracy means anything)"
    each = size.images // size.classes
    chosen = np.concatenate([np.flatnonzero(labels == label)[: each + 1] for label in range(size.classes)])
    chosen = drawn.permutation(chosen)[: size.images]
    return images[chosen], labels[chosen], what


# ---------------------------------------------------------------- rows


def chosen_rows(case: Case, profile: Profile) -> list[Row]:
    """Each peer with its fastest settings, then this package's rows."""
    short = replace(case, trials=min(2 * CORES, case.trials), epochs=1)
    found = []
    for peer, settings in peers(case.device).items():
        if peer == "Ray Tune" and find_spec("ray") is None:
            print("Ray Tune: not installed here; `make bench` installs it beside the project", flush=True)
            continue
        tried = settings[: profile.tries]
        found.append(tried[0] if len(tried) == 1 else _fastest(short, tried, profile.cut_s))
    example = [EXAMPLE] if found[0].settings != EXAMPLE.settings else []
    return [*found[:1], *example, *found[1:], *(row for row in ours(case.device) if different(case, row))]


def _fastest(case: Case, rows: Sequence[Row], cut_s: float) -> Row:
    speeds = []
    for row in rows:
        done = run(case, row, cut_s)
        speeds.append(done.images_per_second if done else 0.0)
        print(f"tried: {row.name}{_half(row)}: {speeds[-1]:.0f} images/s", flush=True)
    return rows[speeds.index(max(speeds))]


def _half(row: Row) -> str:
    return ", bfloat16" if row.settings.get("bfloat16") else ""


def different(case: Case, row: Row) -> bool:
    """Whether a row differs from "ours": an accelerator that is off by default is not switched off again."""
    if not row.settings:  # slots off
        return case.trials * SHARE_OF_WAITING >= SLOT_COUNTS[0]
    return "training" not in row.settings or computed(case, row) != computed(case, replace(row, settings={}))


def computed(case: Case, row: Row) -> tuple[str, bool, bool, bool, bool]:
    """What one of this package's rows resolves to on this device: its precision, whether channels come last, and
    whether steps are compiled, recorded, or by kernels."""
    spec = parse_study(study(case, row.settings.get("training", {})))
    training = spec.configuration("monotone", {"lr": 0.1, "weight_decay": 1e-4}).training
    with np.load(case.data) as held:
        images, size = held["train_images"].shape[:2]
    chosen = choose_precision(
        training.precision, training.channels_last, device=case.device, input_shape=(3, size, size)
    )
    steps = case.epochs * math.ceil(images * (1 - VALIDATION) / case.batch_size)
    compilation = choose_compilation(training.compile, device=case.device, steps=steps)
    steps_are = compilation.wanted, compilation.recorded, compilation.kernels
    return chosen.name, chosen.channels_last, *steps_are


def precision(case: Case, row: Row) -> str:
    """What the row computes with."""
    if row.script != "ours":
        return "bfloat16" if row.settings.get("bfloat16") else "float32"
    return computed(case, row)[0]


def measured(case: Case, rows: Sequence[Row], profile: Profile, until: float) -> Measured:
    """Rows take turns, each round with another first row; no further round starts that would end after `until`."""
    found: dict[int, list[Run]] = defaultdict(list)
    longest = 0.0
    for number in range(profile.repeats):
        if number and time.monotonic() + longest > until:
            break
        round_began = time.monotonic()
        for place in range(len(rows)):
            index = (place + number) % len(rows)
            done = run(case, rows[index], profile.cut_s)
            found[index] += [done] if done else []
            printed = f"{done.images_per_second:.0f} images/s" if done else f"not one epoch in {profile.cut_s:.0f} s"
            print(f"round {number + 1}: {rows[index].name}: {printed}", flush=True)
        longest = max(longest, time.monotonic() - round_began)
    if not found[0]:
        raise RuntimeError(f"{rows[0].name}: not one epoch in {profile.cut_s:.0f} s, and all rows are compared with it")
    return [(row, found[index]) for index, row in enumerate(rows) if found[index]]


def run(case: Case, row: Row, cut_s: float) -> Run | None:
    """One run in its own processes; None if it is cut before the first epoch is noted."""
    with tempfile.TemporaryDirectory() as folder:
        events = Path(folder) / "events.jsonl"
        job = Job(case, row.settings, str(events))
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": paths, "RAY_TRAIN_V2_ENABLED": "0"}
        command = [sys.executable, "-m", f"benchmarks.peers.{row.script}", job.as_json()]
        began = time.time()
        with (Path(folder) / "output").open("w+") as printed:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=printed, stderr=printed)
            try:
                code = process.wait(cut_s)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _end(process)
            if code:
                raise RuntimeError(f"{row.name}: exit code {code}\n{(Path(folder) / 'output').read_text()[-4000:]}")
        noted = [json.loads(line) for line in events.read_text().splitlines()] if events.exists() else []
    done = any(event["kind"] == "epoch" for event in noted)
    return _run_of(noted, began, case, cut=code is None) if done else None


def _run_of(noted: Sequence[dict[str, Any]], began: float, case: Case, *, cut: bool) -> Run:
    starts = [event["time"] for event in noted if event["kind"] == "start"]
    epochs = sorted((event for event in noted if event["kind"] == "epoch"), key=lambda event: event["time"])
    return Run(
        start_s=min(starts) - began,
        span_s=epochs[-1]["time"] - min(starts),
        images=sum(event["images"] for event in epochs),
        trials=len(epochs) / case.epochs if cut else len(starts),
        accuracies=[(event["time"] - began, event["value"]) for event in epochs],
        cut=cut,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and all its children; does nothing if it has ended."""
    if process.poll() is not None:
        return
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    _, left = psutil.wait_procs([psutil.Process(process.pid), *family], LEAVE_S)
    for each in left:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()


# ---------------------------------------------------------------- the table


def table(title: str, case: Case, runs: Measured) -> Iterator[str]:
    target = min(each.best for _, found in runs for each in found)
    plain, ray = runs[0][1], next((found for row, found in runs if row.script == "ray_tune"), None)
    yield f"{title}; {len(plain)} rounds; accuracy {target:.3f}"
    yield ""
    limit = fastest_product(case.device)
    yield (
        "| | precision | images/s, x plain | trials/h, x plain | trials/h, x Ray | to accuracy, x plain "
        f"| images/s | of the device's fastest product ({limit.precision}) | trials/h | to accuracy | start | best |"
    )
    yield "|---" * 12 + "|"
    image = _operations(case)
    for row, found in runs:
        ratios = [
            _ratio(found, plain, target, 0),
            _ratio(found, plain, target, 1),
            _ratio(found, ray, target, 1) if ray else "",
            _ratio(found, plain, target, 2),
        ]
        columns = [[_figures(each, target)[index] for each in found] for index in range(3)]
        cells = [_spread(columns[0], ""), _spread(columns[1], ""), _spread(columns[2], " s")]
        start = statistics.median(each.start_s for each in found)
        best = statistics.median(each.best for each in found)
        share = _medians(found, target, 0) * image / limit.speed
        cells.insert(1, f"{share:.0%}")
        name = f"{row.name} (cut)" if any(each.cut for each in found) else row.name
        yield f"| {' | '.join([name, precision(case, row), *ratios, *cells, f'{start:.1f} s', f'{best:.3f}'])} |"


def _operations(case: Case) -> float:
    with np.load(case.data) as held:
        shape, labels = held["train_images"].shape, held["train_labels"]
    channels = shape[3] if len(shape) == 4 else 1
    return operations(case.model, channels=channels, size=shape[1], classes=int(labels.max()) + 1)


def _ratio(found: Sequence[Run], base: Sequence[Run], target: float, index: int) -> str:
    return f"{_medians(found, target, index) / _medians(base, target, index):.2f}"


def _figures(run: Run, target: float) -> tuple[float, float, float]:
    return run.images_per_second, run.trials_per_hour, run.to_accuracy(target)


def _medians(found: Sequence[Run], target: float, index: int) -> float:
    return statistics.median(_figures(each, target)[index] for each in found)


def _spread(values: Sequence[float], unit: str) -> str:
    return f"{statistics.median(values):,.0f}{unit} ({min(values):,.0f}-{max(values):,.0f})"
