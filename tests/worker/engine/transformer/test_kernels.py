"""Warm-up builds the kernels that batches use."""

from __future__ import annotations

import pytest
import torch

from worker.engine.part import Part
from worker.engine.settings import EngineSettings
from worker.engine.transformer import linear
from worker.engine.transformer.runner import StageRunner

MOST_ROWS = 2_048


@pytest.fixture
def used(monkeypatch):
    """(rows, outputs, inputs) of each kind of product that is made, and what it does with its outcome."""
    products = set()

    def watch(name):
        multiply = getattr(linear, name)

        def watched(rows, *others):
            product = multiply(rows, *others)
            products.add((*product.shape, rows.shape[1], name, *(word for word in others if isinstance(word, str))))
            return product

        monkeypatch.setattr(linear, name, watched)

    watch("_multiply")
    watch("_multiply_and_combine")
    return products


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="products do not go through oneDNN here")
def test_no_batch_needs_a_kernel_that_warm_up_has_not_built(used, make_model, make_prompt):
    """Whatever a batch's number of rows, its first product of a shape is not the first of that shape."""
    runner = StageRunner(make_model(), EngineSettings(max_batch_tokens=MOST_ROWS))
    runner.build_kernels(MOST_ROWS, limit_s=60.0)
    built = set(used)
    for candidates in (1, 2, 5, 9, 20, 41, 77, 99):
        part = Part.of(make_prompt(30, [20] * candidates))
        for _ in runner.full_layers:
            runner.run([part])
            part.depth += 1
    assert used == built


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="products do not go through oneDNN here")
def test_kernels_stay_few(used, make_model):
    """Each takes half a megabyte: what builds more of them needs a better reason than a little speed."""
    StageRunner(make_model(), EngineSettings()).build_kernels(8_192, limit_s=60.0)
    assert len(used) <= 50
