"""Weight formats side by side, in a shape that takes no time."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from benchmarks import weight_formats
from benchmarks.weight_formats import Int4Linear


@pytest.mark.parametrize("group", [32, 64])
def test_weights_that_have_sixteen_levels_lose_nothing(group):
    """The product is that of the weights, where each group's lie on sixteen even levels."""
    torch.manual_seed(0)
    levels = torch.randint(0, 16, (64, 2, group))
    levels[..., :2] = torch.tensor([0, 15])
    weight = (levels * 0.25 - 1.5).view(64, -1)
    rows = torch.randn(5, weight.shape[1]).bfloat16()
    product = Int4Linear(weight, group)(rows).float()
    torch.testing.assert_close(product, rows.float() @ weight.T, atol=0.1, rtol=0.01)


def test_every_format_that_fits_is_measured(tmp_path, monkeypatch):
    """Fewer bits weigh less and err more; groups that do not divide the inputs are left out."""
    out = tmp_path / "formats.json"
    monkeypatch.setattr(sys, "argv", ["weight_formats", "--shapes=tiny", "--rows=1,32", "--rounds=1", f"--out={out}"])
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    weight_formats.main()
    told = json.loads(out.read_text())["tiny"]
    assert list(told) == ["float32", "bfloat16", "int8", "int4, groups of 32"]
    weights, errors = zip(*((form["megabytes"], form["error"]) for form in told.values()), strict=True)
    assert list(weights) == sorted(weights, reverse=True)
    assert list(errors) == sorted(errors)
    assert all(set(form["ms"]) == {"1", "32"} for form in told.values())
