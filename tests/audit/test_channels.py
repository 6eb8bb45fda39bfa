"""Channels are measured as NumPy would, on the very tensors that are stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from quantward.audit.channels import channel_axis, grids, load_channels, measure, save_channels
from quantward.core.contracts import Batch
from quantward.core.values import Node, Plan
from quantward.graph.network import Network

INT8 = "int8-static:calibrator=max"


def outputs(plan: Plan, batch: Batch) -> dict[str, np.ndarray]:
    """Every step's output of the float network."""
    kept: dict[str, np.ndarray] = {}

    def keep(name: str, tensor: Tensor) -> Tensor:
        kept[name] = tensor.numpy().copy()
        return tensor

    with torch.inference_mode():
        Network(plan, on_output=keep).eval()(torch.from_numpy(batch))
    return kept


def test_extremes_mass_and_what_is_cut_off(audited: Callable[[str], Plan], images: Batch) -> None:
    plan = audited(INT8)
    found = measure(plan, [3 * images[:8], 3 * images[8:12]])
    seen = outputs(plan, 3 * images[:12])
    assert set(found) == set(grids(plan))
    for name in ("input", "blocks.0.act1", "blocks.0.add"):
        x, spec, got = seen[name].astype(np.float64), plan.tensors[name], found[name]
        low, high = (spec.low - spec.zero_point) * spec.scale, (spec.high - spec.zero_point) * spec.scale
        assert got.low == pytest.approx(x.min((0, 2, 3)), rel=1e-6)
        assert got.high == pytest.approx(x.max((0, 2, 3)), rel=1e-6)
        assert got.mass == pytest.approx(np.abs(x).sum((0, 2, 3)), rel=1e-4)
        lost = (np.maximum(x - high, 0) + np.maximum(low - x, 0)).sum((0, 2, 3))
        assert got.beyond == pytest.approx(lost, rel=1e-3, abs=1e-2)
        assert got.clipped == pytest.approx(lost / np.maximum(np.abs(x).sum((0, 2, 3)), 1e-9), rel=1e-3, abs=1e-4)
    assert found["input"].clipped.max() > 0.05, "the images were three times as bright as those it was calibrated on"


def test_what_was_measured_is_kept(audited: Callable[[str], Plan], images: Batch, tmp_path: Path) -> None:
    found = measure(audited(INT8), [images[:4]])
    save_channels(found, tmp_path / "channels.npz")
    again = load_channels(tmp_path / "channels.npz")
    assert set(again) == set(found)
    for name, item in found.items():
        assert again[name].low == pytest.approx(item.low, rel=1e-6)
        assert again[name].beyond == pytest.approx(item.beyond, rel=1e-6)


def test_a_float_plan_gives_the_extremes_of_every_step(audited: Callable[[str], Plan], images: Batch) -> None:
    plan = audited("fp16")
    found, seen = measure(plan, [images[:4]]), outputs(plan, images[:4])
    assert set(found) == set(seen) - {"output"}
    for name, item in found.items():
        assert item.high.shape == (1,) and item.high[0] == pytest.approx(seen[name].max(), rel=1e-6)


def test_what_only_moves_values_is_not_measured_twice(audited: Callable[[str], Plan]) -> None:
    plan = audited(INT8)
    moved = [node.name for node in plan.program if node.op.startswith("aten.flatten") and node.name in plan.tensors]
    assert moved and not set(moved) & set(grids(plan))


def test_where_channels_lie() -> None:
    conv, linear = Node("c", "aten.conv2d.default"), Node("l", "aten.linear.default")
    relu = Node("r", "aten.relu.default")
    assert channel_axis(conv, [linear]) == 1 and channel_axis(linear, [conv]) == -1
    assert channel_axis(relu, [conv]) == 1 and channel_axis(relu, [linear]) == -1 and channel_axis(relu, []) is None
