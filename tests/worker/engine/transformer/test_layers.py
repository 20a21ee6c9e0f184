"""Pieces of a layer beside their formulas."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from worker.engine.transformer.layers import _normed


@dataclass
class Epsilon:
    """What a norm reads of a decoder's shape."""

    epsilon: float = 1e-5


@pytest.mark.parametrize("width", [16, 64, 96, 576])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02)])
@torch.inference_mode()
def test_a_norm_is_the_formula(width, dtype, most):
    """Whatever the width and the number format, also for heads of rows that lie apart."""
    torch.manual_seed(0)
    rows = torch.randn(40, 3 * width).mul_(3).to(dtype)[:, : 2 * width].view(40, 2, width)
    exact = rows.double() * (rows.double().square().mean(-1, keepdim=True) + 1e-5).rsqrt()
    error = (_normed(rows, Epsilon()).double() - exact).abs() / exact.abs().clamp_min(1e-3)
    assert error.max() < most
