"""The [training] keys of image classification in one configuration: one value each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class ClassificationOptions:
    """What `ClassificationTask` needs from a configuration to build batches and losses.

    The defaults are those of the study file. A parameter of an augmentation has its name as prefix.
    """

    augment: tuple[str, ...] = ()
    """Names of augmentations and mixings (see augment.py for the order of composition)."""
    label_smoothing: float = 0.0
    """In [0, 1), as in torch's cross_entropy."""
    head_factor: float = 1.0
    """The head's learning rate as a multiple of the trunk's (see models.heads)."""
    freeze_trunk: int = 0
    """Epochs at the start in which only the head trains."""
    cutout_size: float = 0.5
    """16 of 32 pixels, as in DeVries and Taylor 2017 (arXiv 1708.04552) for CIFAR-10."""
    mixup_alpha: float = 1.0
    """Zhang et al. 2018 use 1 for CIFAR and 0.2 for ImageNet."""
    cutmix_alpha: float = 1.0
    """Yun et al. 2019 use 1 for both."""
    random_erasing_probability: float = 0.5
    random_erasing_area: float = 0.4
    random_erasing_aspect: float = 0.3
    """p, s_h and r_1 of Zhong et al. 2017, section 4.2."""
    random_erasing_value: Literal["noise", "mean"] = "noise"
    rand_augment_operations: int = 2
    rand_augment_magnitude: int = 9
    """N and M of Cubuk et al. 2019 for ResNet-50 on ImageNet, and of torchvision; for CIFAR they find N = 1 to 3, M = 2
    to 14."""

    def parameters(self, name: str) -> dict[str, Any]:
        """The parameters of one augmentation, by its own names for them."""
        prefix = f"{name}_"
        return {key.removeprefix(prefix): value for key, value in vars(self).items() if key.startswith(prefix)}
