"""The allowed range of every number in a study: one table for the study file, the schedules and the advice on ranges.

docs/parameters.md shows it to users.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

_COUNT = "[1, 1000000000)"
"""The upper end is far above any real use and still exact in a database integer and a float."""

_LENGTH = "[1e-06, inf)"
"""Of a round, in epochs. The lower end is far above rounding errors (curves.SLACK) and far below any real use."""


@dataclass(frozen=True)
class Bounds:
    """The allowed values of one parameter."""

    interval: str
    """In mathematical notation: "[0, 1)" includes 0 and excludes 1."""
    unit: str
    meaning: str
    integer: bool = False
    max_value: float | None = None
    """Largest value in a study file if the interval is unbounded, so that no trial's learning rate can overflow."""

    @cached_property
    def low(self) -> float:
        return float(self.interval[1:-1].split(",")[0])

    @cached_property
    def high(self) -> float:
        """The upper end in a study file."""
        return float(self.interval[1:-1].split(",")[1]) if self.max_value is None else self.max_value

    @property
    def has_low(self) -> bool:
        """Whether the lower end itself is allowed."""
        return self.interval[0] == "["

    @property
    def has_high(self) -> bool:
        """Whether the upper end itself is allowed."""
        return self.interval[-1] == "]" or self.max_value is not None


_MAX_FACTOR = 1e6

BOUNDS: Mapping[str, Bounds] = MappingProxyType(
    {
        "epochs": Bounds(_COUNT, "epochs", "length of a run", integer=True),
        "batch_size": Bounds(_COUNT, "samples", "samples of one step", integer=True),
        "lr": Bounds("(0, inf)", "1", "base learning rate, before curve and amplification", max_value=_MAX_FACTOR),
        "weight_decay": Bounds("[0, inf)", "1", "weight decay of the optimizer"),
        "label_smoothing": Bounds("[0, 1)", "share", "probability mass that is spread over all classes"),
        "head_factor": Bounds(
            "(0, inf)", "factor", "learning rate of the head, as a multiple of the trunk's", max_value=_MAX_FACTOR
        ),
        "freeze_trunk": Bounds(
            "[0, 1000000000)", "epochs", "epochs at the start in which only the head trains", integer=True
        ),
        "cutout_size": Bounds("(0, 1]", "share", "side of cutout's square, of the image height"),
        "mixup_alpha": Bounds("(0, 1000]", "1", "mixup draws the share of an image from Beta(alpha, alpha)"),
        "cutmix_alpha": Bounds("(0, 1000]", "1", "cutmix draws the share of an image from Beta(alpha, alpha)"),
        "random_erasing_probability": Bounds("[0, 1]", "probability", "of erasing a rectangle of an image"),
        "random_erasing_area": Bounds("(0, 1]", "share", "largest area of the rectangle, of the image"),
        "random_erasing_aspect": Bounds(
            "(0, 1]", "ratio", "smallest height of the rectangle per width; the largest is its reciprocal"
        ),
        "rand_augment_operations": Bounds("[1, 101)", "operations", "operations for each image", integer=True),
        "rand_augment_magnitude": Bounds("[0, 31)", "step", "magnitude of every operation", integer=True),
        "weight_decay_end": Bounds("[0, inf)", "1", "weight decay at the end of the run"),
        "ema_decay": Bounds("[0, 1)", "share", "share of the average of the weights that a step keeps; 0: no average"),
        "clip_norm": Bounds("(0, inf)", "norm", "largest norm of a step's gradients"),
        "task.min_size": Bounds("[32, 10001)", "pixels", "shorter side of an image of a detector", integer=True),
        "task.fpn_channels": Bounds("[8, 4097)", "channels", "width of a detector's feature pyramid", integer=True),
        "task.head_convs": Bounds("[1, 17)", "layers", "convolutions of a detector's heads", integer=True),
        "momentum": Bounds("[0, 1)", "share", "share of the velocity that the next step keeps (sgd, rmsprop, muon)"),
        "dampening": Bounds("[0, 1)", "share", "share of the gradient that is left out of the velocity (sgd)"),
        "betas": Bounds("[0, 1)", "share", "decay rate of each moment (adam family; AdamW of muon)"),
        "eps": Bounds("(0, inf)", "1", "added to denominators"),
        "rho": Bounds("[0, 1)", "share", "decay of the averages (adadelta)"),
        "lr_decay": Bounds("[0, inf)", "per step", "decay of the learning rate (adagrad)"),
        "initial_accumulator_value": Bounds("[0, inf)", "1", "sum of squares at the start (adagrad)"),
        "lambd": Bounds("[0, inf)", "1", "decay term (asgd)"),
        "alpha": Bounds("[0, 1)", "share", "decay of the averages (rmsprop); power of the learning rate (asgd)"),
        "t0": Bounds("(0, inf)", "steps", "step at which averaging starts (asgd)"),
        "momentum_decay": Bounds("[0, inf)", "1", "decay of the momentum (nadam)"),
        "beta2_decay": Bounds("[-1, 0]", "1", "step t keeps 1 - t ** beta2_decay of the averages (adafactor)"),
        "d": Bounds("[1, inf)", "1", "largest root mean square of a weight's update (adafactor)"),
        "ns_steps": Bounds("[1, 100)", "1", "Newton-Schulz iterations (muon)", integer=True),
        "fallback_factor": Bounds(
            "(0, inf)",
            "factor",
            "rate of the weights that muon leaves to AdamW, as a multiple of lr",
            max_value=_MAX_FACTOR,
        ),
        "task.dropout": Bounds("[0, 1)", "share", "probability that dropout sets a number to zero"),
        "task.accumulate": Bounds("[1, 1001)", "batches", "batches that one step accumulates", integer=True),
        "schedule.warmup": Bounds("[0, inf)", "length", "linear warm-up at the start of a run; less than the run"),
        "schedule.warmup_factor": Bounds(
            "(0, 1]", "factor", "start of the warm-up, as a multiple of the curve's start"
        ),
        "schedule.milestones": Bounds("(0, inf)", "position", "where multistep multiplies by gamma; within the run"),
        "schedule.step_size": Bounds(_LENGTH, "length", "epochs between two steps"),
        "schedule.gamma": Bounds("(0, 1]", "factor", "factor of step, multistep, exponential and cyclic"),
        "schedule.power": Bounds("(0, inf)", "1", "exponent of polynomial"),
        "schedule.end_factor": Bounds(
            "[0, 1]", "factor", "multiplier at the end of linear, cosine and each sgdr round"
        ),
        "schedule.period": Bounds(_LENGTH, "length", "first round of sgdr, every round of cyclic"),
        "schedule.multiplier": Bounds("[1, 1000)", "1", "growth of sgdr's rounds", integer=True),
        "schedule.low_factor": Bounds("[0, 1]", "factor", "lowest multiplier of cyclic"),
        "schedule.peak_at": Bounds("(0, inf)", "position", "where one_cycle is highest; within the run"),
        "schedule.div_factor": Bounds("[1, inf)", "1", "one_cycle starts at 1 / div_factor"),
        "schedule.final_div_factor": Bounds("[1, inf)", "1", "one_cycle ends at its start / final_div_factor"),
        "amplify.probability": Bounds("[0, 1]", "probability", "of an amplified draw"),
        "amplify.lower": Bounds("[1, inf)", "factor", "smallest amplification", max_value=_MAX_FACTOR),
        "amplify.upper": Bounds(
            "[1, inf)", "factor", "largest amplification; not below the smallest", max_value=_MAX_FACTOR
        ),
        "amplify.width": Bounds(
            "[0, inf)", "factor", "upper minus lower, as an alternative to upper", max_value=_MAX_FACTOR
        ),
        "noise.amplitude": Bounds("[0, 1)", "share", "largest deviation from the curve"),
        "noise.std": Bounds("(0, 1000]", "share", "standard deviation of normal noise before it is cut off"),
    }
)
"""By Optuna name. A length or position below 1 is a share of the run, otherwise a number of epochs."""


def bounds_of(name: str) -> Bounds | None:
    """The row of a parameter, also of one that belongs to one optimizer (`optimizers.adamw.lr`); None without a row."""
    return BOUNDS.get(name.rpartition(".")[2] if name.startswith("optimizers.") else name)
