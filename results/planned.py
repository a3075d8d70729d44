"""The studies whose results docs/results.md shows, in its order."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Planned:
    """One study. Its record is results/NAME.json.gz, where NAME is the study's name; it runs in the project's
    folder and keeps its files in runs/NAME."""

    file: str
    """The study file, relative to the project's folder."""
    about: str
    """What it trains, in a few words."""
    changes: Mapping[str, object] = field(default_factory=dict)
    """Keys of the file, each on a line of its own, and the values that replace theirs."""
    suffix: str = ""
    """Of its name, which differs from the file's if there are changes."""
    on_gpu: bool = False
    """Whether it is run by gpu.sh."""

    @property
    def original(self) -> str:
        """The name of the study in the file, which a study with changes repeats or varies."""
        return str(tomllib.loads((ROOT / self.file).read_text())["study"]["name"])

    @property
    def name(self) -> str:
        return self.original + self.suffix

    @property
    def record(self) -> Path:
        return ROOT / "results" / f"{self.name}.json.gz"

    def text(self) -> str:
        """The study file with its name and its changes."""
        text = (ROOT / self.file).read_text().replace(f'name = "{self.original}"', f'name = "{self.name}"', 1)
        for key, value in self.changes.items():
            line = f"{key} = {json.dumps(value)}"
            text, count = re.subn(rf"^{key} = (\"[^\"]*\"|[^\s#]+)", line, text, flags=re.MULTILINE)
            if count != 1:
                raise ValueError(f"{self.file}: {count} lines begin with `{key} = `; allowed: one")
        return text


def repeated(file: str, seed: int = 1) -> Planned:
    """The study of a file with another study seed: other samples, other training seeds."""
    return Planned(file, f"the study {Path(file).stem} again, with study seed {seed}", {"seed": seed}, f"_seed_{seed}")


STUDIES = (
    Planned("studies/digits.toml", "small CNN, handwritten digits, SGD"),
    Planned("studies/digits_six_blocks.toml", "small CNN, handwritten digits, SGD, six blocks of search"),
    Planned("studies/digits_six_blocks_adamw.toml", "small CNN, handwritten digits, AdamW, six blocks of search"),
    Planned("studies/cifar100_twenty_classes.toml", "ResNet-20, 20 classes of CIFAR-100, three blocks"),
    Planned("studies/cifar100_complementarity.toml", "ResNet-20, 20 classes of CIFAR-100, with and without mixup"),
    Planned(
        "studies/complementarity.toml",
        "small CNN, handwritten digits, with and without cutout, mixup and label smoothing",
    ),
    Planned("studies/rivals.toml", "six schedules on the digits, eight blocks"),
    *(
        Planned(f"studies/ablation_{part}.toml", f"small CNN, handwritten digits, six blocks: {about}")
        for part, about in {
            "probability": "how often",
            "lower": "the lower bound",
            "width": "the width of the range",
            "law": "uniform or log-uniform factors",
            "granularity": "a factor for each epoch or each step",
            "window": "which part of the run",
        }.items()
    ),
    Planned("studies/grocery.toml", "ResNet-18 from scratch, 81 kinds of groceries"),
    Planned("studies/detection_bccd.toml", "small FCOS from scratch, blood cells"),
    Planned("studies/translation_multi30k.toml", "small Transformer, English to German captions"),
    # an example finds its script from its own folder; the study of a record, like every other, from the project's
    Planned(
        "examples/plain_loop/study.toml",
        "a plain PyTorch training loop, handwritten digits",
        {"target": "examples.plain_loop.train:train"},
    ),
    repeated("studies/digits_six_blocks.toml"),
    repeated("studies/digits_six_blocks_adamw.toml"),
    repeated("studies/rivals.toml", 3),
    Planned("results/gpu.toml", "ResNet-20, all of CIFAR-100, 100 epochs", on_gpu=True),
    Planned(
        "results/gpu.toml",
        "ResNet-20, all of CIFAR-100, its published 182 epochs",
        {"epochs": 182},
        suffix="_epochs_182",
        on_gpu=True,
    ),
    Planned(
        "results/gpu.toml",
        "ResNet-110, all of CIFAR-100, its published 182 epochs",
        {"model": "resnet110", "epochs": 182},
        suffix="_resnet110",
        on_gpu=True,
    ),
    Planned(
        "studies/detection_bccd.toml",
        "small FCOS from scratch, blood cells, longer",
        {"epochs": 60, "trials": 12},
        suffix="_on_gpu",
        on_gpu=True,
    ),
    Planned(
        "studies/translation_multi30k.toml",
        "small Transformer, English to German captions, longer",
        {"epochs": 20, "trials": 8},
        suffix="_on_gpu",
        on_gpu=True,
    ),
    Planned(
        "examples/plain_loop/study.toml",
        "a plain PyTorch training loop, handwritten digits, more seeds",
        {"target": "examples.plain_loop.train:train", "trials": 20, "seeds": 10},
        suffix="_on_gpu",
        on_gpu=True,
    ),
)


def named(name: str) -> Planned | None:
    """The study of this name."""
    return next((each for each in STUDIES if each.name == name), None)
