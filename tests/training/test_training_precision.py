from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from ralr_tune.models.registry import build
from ralr_tune.training import precision
from ralr_tune.training.precision import can_bfloat16, choose_precision, has_bfloat16, has_matrix_units

LARGE, SMALL = (3, 32, 32), (1, 8, 8)


@pytest.fixture(params=[True, False], ids=["bfloat16 chip", "other chip"])
def chip(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(precision, "has_bfloat16", lambda kind: request.param)
    return bool(request.param)


def test_auto_uses_bfloat16_if_the_chip_has_it(chip: bool) -> None:
    chosen = choose_precision("auto", "auto", device="cpu", input_shape=LARGE)
    assert chosen.bfloat16 is chip
    assert chosen.channels_last
    assert ("bfloat16: faster on this" if chip else "bfloat16 is not faster on this") in chosen.reason


@pytest.mark.parametrize("units", [True, False], ids=["matrix units", "none"])
def test_small_images_use_bfloat16_if_there_are_matrix_units(units: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda kind: True)
    monkeypatch.setattr(precision, "has_matrix_units", lambda: units)
    chosen = choose_precision("auto", "auto", device="cpu", input_shape=SMALL)
    assert (chosen.bfloat16, chosen.channels_last) == (units, True)
    assert ("bfloat16: faster on this" if units else "below 16 pixels") in chosen.reason


def test_products_of_matrices_use_bfloat16_on_a_cpu_that_has_it(chip: bool) -> None:
    for device, expected in (("cpu", chip), ("cuda", False)):
        chosen = choose_precision("auto", "auto", device=device, input_shape=(), matrix_products=True)
        assert (chosen.bfloat16, chosen.channels_last) == (expected, False)
    assert not choose_precision("float32", "auto", device="cpu", input_shape=(), matrix_products=True).bfloat16


def test_small_images_on_a_gpu_use_the_defaults(chip: bool) -> None:
    chosen = choose_precision("auto", "auto", device="cuda", input_shape=SMALL)
    assert (chosen.bfloat16, chosen.channels_last) == (False, False)
    assert "below 16 pixels" in chosen.reason


@pytest.mark.parametrize(
    ("model", "size", "expected"),
    [
        ("torchvision:resnet18", 32, False),
        ("torchvision:resnet18", 64, False),
        ("torchvision:resnet18", 96, True),
        ("torchvision:mobilenet_v2", 64, True),  # wide convolutions of single pixels or channels
        ("small_cnn", 8, True),
        ("resnet20", 32, True),
        ("wrn_28_10", 32, True),
    ],
)
def test_wide_convolutions_on_few_pixels_keep_the_other_order(model: str, size: int, expected: bool) -> None:
    """In float32 on a CPU, and only if "auto" chooses."""
    network = build(model, classes=10, channels=3, size=size)
    shape, before = (3, size, size), copy.deepcopy(network.state_dict())
    assert choose_precision("float32", "auto", device="cpu", input_shape=shape, model=network).channels_last is expected
    for wanted, channels_last, device in (("float32", True, "cpu"), ("bfloat16", "auto", "cpu")):
        found = choose_precision(wanted, channels_last, device=device, input_shape=shape, model=network)  # type: ignore[arg-type]
        assert found.channels_last
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(layer._forward_hooks for layer in network.modules())


def test_a_network_that_the_meta_device_cannot_call_keeps_channels_last() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    assert choose_precision("float32", "auto", device="cpu", input_shape=LARGE, model=Branching()).channels_last


@pytest.mark.parametrize("shape", [LARGE, SMALL])
@pytest.mark.parametrize("wanted", ["float32", "bfloat16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_configured_values_are_used(
    chip: bool, wanted: Literal["float32", "bfloat16"], channels_last: bool, shape: tuple[int, int, int]
) -> None:
    chosen = choose_precision(wanted, channels_last, device="cpu", input_shape=shape)
    assert (chosen.bfloat16, chosen.channels_last) == (wanted == "bfloat16", channels_last)


@pytest.mark.parametrize(("wanted", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_autocast_computes_in_the_precision(wanted: Literal["float32", "bfloat16"], dtype: torch.dtype) -> None:
    chosen = choose_precision(wanted, "auto", device="cpu", input_shape=LARGE)
    with chosen.autocast("cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_samples_that_are_not_images_have_no_channels() -> None:
    assert not choose_precision("auto", "auto", device="cpu", input_shape=(20,)).channels_last


@pytest.mark.parametrize(
    ("cpuinfo", "fast"),
    [
        ("vendor_id : GenuineIntel\nflags : avx512f avx512_bf16 amx_bf16 amx_tile", True),
        ("vendor_id : GenuineIntel\nflags : avx512f avx512_bf16", False),
        ("vendor_id : AuthenticAMD\nflags : avx512f avx512_bf16", True),
        ("vendor_id : AuthenticAMD\nflags : avx2", False),
        (None, False),
    ],
)
def test_a_cpu_is_identified_by_its_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpuinfo: str | None, fast: bool
) -> None:
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "cpuinfo")
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    for cached in (has_bfloat16, precision._cpu_flags):
        cached.cache_clear()
    try:
        assert has_bfloat16("cpu") is fast
        assert has_matrix_units() is ("amx_bf16" in (cpuinfo or ""))
    finally:
        for cached in (has_bfloat16, precision._cpu_flags):
            cached.cache_clear()


def test_unknown_chips_have_none() -> None:
    assert not has_bfloat16("meta")


def test_every_cpu_supports_bfloat16() -> None:
    assert can_bfloat16("cpu")


@pytest.mark.parametrize("refusal", ["raises", "warns"])
def test_a_device_without_bfloat16_is_detected(monkeypatch: pytest.MonkeyPatch, refusal: str) -> None:
    class Autocast(torch.autocast):
        def __init__(self, kind: str, dtype: torch.dtype) -> None:
            if refusal == "raises":
                raise RuntimeError("Current CUDA Device does not support bfloat16")
            warnings.warn("bfloat16 is not supported: disabling autocast", UserWarning, stacklevel=1)
            super().__init__(kind, dtype=dtype, enabled=False)

    monkeypatch.setattr(torch, "autocast", Autocast)
    can_bfloat16.cache_clear()
    assert not can_bfloat16("cpu")
    can_bfloat16.cache_clear()
