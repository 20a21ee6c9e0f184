"""Packed weights multiply as plain ones do."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from worker.engine.transformer.linear import (
    ANSWER_STEP,
    ROW_STEP,
    SLICE_SIZES,
    Int8Linear,
    OneDnnGated,
    OneDnnLinear,
    PlainGated,
    PlainLinear,
    joined,
    pack_gated,
    pack_linear,
    rounded,
    row_slices,
)


@pytest.fixture
def weight() -> torch.Tensor:
    """(outputs, inputs)."""
    torch.manual_seed(0)
    return torch.randn(24, 40)


@pytest.mark.parametrize("rows", [1, 64, 70])
@pytest.mark.parametrize("with_bias", [False, True])
@torch.inference_mode()
def test_prepacked_equals_plain(weight, rows, with_bias):
    """Prepacked float32 weights give the plain product for any number of rows."""
    bias = torch.randn(24) if with_bias else None
    inputs = torch.randn(rows, 40)
    expected = functional.linear(inputs, weight, bias)
    for layout in (OneDnnLinear, PlainLinear):
        torch.testing.assert_close(layout(weight, bias)(inputs), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("biases", [(False, False), (True, True), (True, False)])
@torch.inference_mode()
def test_a_gated_pair_equals_the_formula(weight, biases):
    """silu(gate) * up, with the biases that there are."""
    gate, up = ((weight.roll(n, 1), torch.randn(24) if has_bias else None) for n, has_bias in enumerate(biases))
    inputs = torch.randn(70, 40)
    expected = functional.silu(functional.linear(inputs, *gate)) * functional.linear(inputs, *up)
    for layout in (OneDnnGated(gate, up), PlainGated(PlainLinear(*joined([gate, up])))):
        torch.testing.assert_close(layout(inputs), expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_gated_pair_rounds_once_where_passes_round_thrice(weight):
    """In bfloat16 what is done before writing is done in float32."""
    gate, up, inputs = weight.bfloat16(), weight.roll(1, 1).bfloat16(), torch.randn(512, 40).bfloat16()
    exact = functional.silu(inputs.float() @ gate.float().T) * (inputs.float() @ up.float().T)
    fused, passes = (
        (layout(inputs).float() - exact).norm()
        for layout in (OneDnnGated((gate, None), (up, None)), PlainGated(PlainLinear(torch.cat([gate, up]), None)))
    )
    assert fused < 0.9 * passes


def test_a_gated_pair_in_int8_is_int8(weight):
    """Not left in a format that takes four times the memory."""
    assert isinstance(pack_gated((weight, None), (weight, None), "int8")._gate_up, Int8Linear)


@torch.inference_mode()
def test_int8_is_close(weight):
    """int8 weights and activations stay within one per cent of the product's size."""
    bias = torch.randn(24)
    inputs = torch.randn(64, 40) * torch.logspace(-3, 3, 64)[:, None]
    expected = functional.linear(inputs, weight)
    error = (Int8Linear(weight, bias)(inputs) - bias - expected).abs().amax(dim=1) / expected.abs().amax(dim=1)
    assert error[16:].max() < 0.02  # smaller rows drown in the bias's own rounding


@torch.inference_mode()
def test_int8_rows_do_not_depend_on_their_company(weight):
    """A row's product is the same to the last bit, whatever else is in the batch."""
    packed = Int8Linear(weight, None)
    inputs = torch.randn(64, 40)
    louder = torch.cat([inputs[:32], 1e3 * inputs[32:]])
    assert torch.equal(packed(inputs)[:32], packed(louder)[:32])


@torch.inference_mode()
def test_int8_of_nothing_is_nothing(weight):
    """Rows of zeros, as they fill up a batch, give zeros and no NaN."""
    assert torch.equal(Int8Linear(weight, None)(torch.zeros(3, 40)), torch.zeros(3, 24))


def test_int8_needs_a_cpu():
    """On another device int8 is refused with what to use instead."""
    with pytest.raises(ValueError, match="bfloat16"):
        pack_linear(torch.empty(4, 4, device="meta"), None, "int8")


@given(st.integers(1, 20_000), st.sampled_from([ANSWER_STEP, ROW_STEP]))
def test_few_idle_rows_in_few_sizes(rows, step):
    """Rounding adds less than a step; the slices cover all rows once, in sizes that warm-up goes through, few of them
    smaller than the largest.
    """
    padded = rounded(rows, step)
    assert rows <= padded < rows + step
    slices = row_slices(padded, torch.device("cpu"))
    assert [row for part in slices for row in range(padded)[part]] == list(range(padded))
    assert {part.stop - part.start for part in slices} <= set(SLICE_SIZES)
    assert len(slices) <= padded // SLICE_SIZES[0] + (3 if step == ROW_STEP else 4)


def test_other_devices_multiply_all_rows_at_once():
    """Their kernels take any number of rows."""
    assert row_slices(5_000, torch.device("cuda")) == (slice(0, 5_000),)


@given(
    st.sampled_from([40, 64, 192]),
    st.sets(st.integers(0, 39), max_size=3),
    st.floats(1.0, 60.0),
    st.booleans(),
    st.integers(0, 2**16),
)
@torch.inference_mode()
def test_int8_withstands_outlier_columns(inputs, columns, times, quiet, seed):
    """The error stays within a few per cent of the product where few columns of the input are far larger than others,
    whether or not the weights have them small, as norms in front of decoders' layers do.
    """
    random = torch.Generator().manual_seed(seed)
    weight, rows = torch.randn(48, inputs, generator=random), torch.randn(32, inputs, generator=random)
    for column in columns:
        rows[:, column] *= times
        weight[:, column] /= times if quiet else 1
    assert _error(Int8Linear(weight, None)(rows), functional.linear(rows, weight)) < 0.04


@torch.inference_mode()
def test_int8_with_an_outlier_column_is_as_close_as_without():
    """One column 24 times as large, as in SmolLM2, would leave the others ten levels with a scale per row alone."""
    random = torch.Generator().manual_seed(0)
    weight, rows = torch.randn(96, 576, generator=random), torch.randn(64, 576, generator=random)
    even = _error(Int8Linear(weight, None)(rows), functional.linear(rows, weight))
    rows[:, 507] *= 24
    weight[:, 507] /= 24
    assert _error(Int8Linear(weight, None)(rows), functional.linear(rows, weight)) < 1.5 * even


def _error(product, expected):
    """The difference's size by the expected product's."""
    return float((product - expected).norm() / expected.norm())
