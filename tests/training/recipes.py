"""Configurations of every kind that a study file can express, for tests of properties that all must have."""

from __future__ import annotations

from typing import Any

from ralr_tune.kinds.classification.section import AUGMENTATIONS
from ralr_tune.schedules.curves import CURVES
from ralr_tune.studyfile.optimizer_keys import OPTIMIZERS

OPTIMIZER_OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "adadelta": {"rho": {"rho": 0.8, "eps": 1e-5}},
    "adafactor": {"clipped": {"beta2_decay": -0.5, "d": 2.0}},
    "adagrad": {"accumulated": {"lr_decay": 0.01, "initial_accumulator_value": 0.1, "eps": 1e-8}},
    "adam": {"amsgrad": {"amsgrad": True, "betas": (0.8, 0.9), "eps": 1e-6}},
    "adamax": {"betas": {"betas": (0.8, 0.9), "eps": 1e-6}},
    "adamw": {"amsgrad": {"amsgrad": True, "betas": (0.8, 0.9), "eps": 1e-6}},
    "asgd": {"averaging": {"t0": 5.0, "lambd": 1e-3, "alpha": 0.6}},
    "muon": {
        "all": {
            "momentum": 0.9,
            "nesterov": False,
            "eps": 1e-6,
            "ns_steps": 3,
            "adjust_lr_fn": "match_rms_adamw",
            "betas": (0.8, 0.9),
            "fallback_factor": 0.5,
        }
    },
    "nadam": {"decoupled": {"decoupled_weight_decay": True, "momentum_decay": 0.01, "betas": (0.8, 0.9), "eps": 1e-6}},
    "radam": {"decoupled": {"decoupled_weight_decay": True, "betas": (0.8, 0.9), "eps": 1e-6}},
    "rmsprop": {
        "momentum": {"momentum": 0.5, "alpha": 0.9, "eps": 1e-6},
        "centered": {"centered": True, "momentum": 0.5},
    },
    "sgd": {
        "momentum": {"momentum": 0.9},
        "dampening": {"momentum": 0.9, "dampening": 0.1},
        "nesterov": {"momentum": 0.9, "nesterov": True},
    },
}
"""In addition to the plain ones; a test compares it with the options of the study file."""

CURVE_OPTIONS: dict[str, dict[str, Any]] = {
    "step": {"step_size": 1},
    "multistep": {"milestones": (0.6, 0.8)},
    "sgdr": {"period": 1.5},
    "cyclic": {"period": 2},
    "one_cycle": {"peak_at": 0.6},
}

AMPLIFY = {"probability": 0.6, "lower": 1.0, "width": 2.0}


def _optimizers() -> dict[str, dict[str, Any]]:
    shared = {"lr": 0.01, "weight_decay": 1e-3}
    plain = {name: {"optimizer": name, **shared} for name in OPTIMIZERS}
    return plain | {
        f"{name} {what}": {"optimizer": name, "options": options, **shared}
        for name, ways in OPTIMIZER_OPTIONS.items()
        for what, options in ways.items()
    }


def _curves() -> dict[str, dict[str, Any]]:
    return {
        f"{name} each {granularity}": {
            "schedule": {
                "name": name,
                "granularity": granularity,
                "warmup": 0.3,
                "options": CURVE_OPTIONS.get(name, {}),
            }
        }
        for name in CURVES
        for granularity in ("epoch", "step")
    }


def _perturbations() -> dict[str, dict[str, Any]]:
    laws = [("amplify", law) for law in ("uniform", "loguniform")] + [("noise", law) for law in ("normal", "uniform")]
    return {
        f"{kind} {law} each {granularity}": {
            kind: ({} if kind == "noise" else AMPLIFY) | {"law": law, "granularity": granularity, "window": (0.2, 0.9)}
        }
        for kind, law in laws
        for granularity in ("epoch", "step")
    }


OPTIMIZER_RECIPES = _optimizers()

MEMORY_RECIPES: dict[str, dict[str, Any]] = {
    f"{optimizer} {precision} {'channels last' if channels_last else 'channels first'}": {
        "optimizer": optimizer,
        "lr": 0.01,
        "precision": precision,
        "channels_last": channels_last,
    }
    for optimizer in ("sgd", "adamw", "rmsprop")
    for precision in ("float32", "bfloat16")
    for channels_last in (False, True)
}
"""For images of 16 pixels: with 8 pixels, neither would be chosen."""

OTHER_RECIPES: dict[str, dict[str, Any]] = {
    **_curves(),
    **_perturbations(),
    **{f"augment {name}": {"augment": (name,)} for name in AUGMENTATIONS},
    "augment all": {"augment": tuple(AUGMENTATIONS)},
    "augment mixed and smoothed": {"augment": ("mixup", "crop", "cutmix"), "label_smoothing": 0.1},
    "smoothed and clipped": {"label_smoothing": 0.1, "clip_norm": 0.5, "options": {"momentum": 0.9}},
    "erased and shuffled by RandAugment": {
        "augment": ("rand_augment", "random_erasing"),
        "rand_augment_operations": 3,
        "rand_augment_magnitude": 15,
        "random_erasing_probability": 0.9,
        "random_erasing_area": 0.2,
        "random_erasing_aspect": 0.6,
        "random_erasing_value": "mean",
    },
    "mixed by other shares": {
        "augment": ("cutout", "mixup", "cutmix"),
        "cutout_size": 0.3,
        "mixup_alpha": 0.2,
        "cutmix_alpha": 3.0,
    },
    "averaged": {"ema_decay": 0.95, "options": {"momentum": 0.9}},
    "weight decay along a line": {"weight_decay": 0.1, "weight_decay_end": 0.01, "weight_decay_schedule": "linear"},
    "weight decay without amplification": {
        "optimizer": "adamw",
        "weight_decay": 0.1,
        "weight_decay_follows": "base",
        "amplify": AMPLIFY | {"granularity": "step"},
    },
    "every regulariser": {
        "optimizer": "adamw",
        "lr": 0.01,
        "weight_decay": 0.1,
        "weight_decay_end": 0.2,
        "weight_decay_schedule": "cosine",
        "weight_decay_follows": "base",
        "ema_decay": 0.9,
        "augment": tuple(AUGMENTATIONS),
        "label_smoothing": 0.1,
        "clip_norm": 1.0,
        "amplify": AMPLIFY | {"granularity": "step"},
    },
    "everything": {
        "optimizer": "adamw",
        "lr": 0.01,
        "weight_decay": 0.01,
        "augment": ("crop", "flip"),
        "label_smoothing": 0.1,
        "clip_norm": 1.0,
        "amplify": AMPLIFY | {"granularity": "step"},
        "schedule": {"name": "cosine", "granularity": "step", "warmup": 1},
    },
}
