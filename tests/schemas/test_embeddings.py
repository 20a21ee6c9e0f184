"""Vectors on the wire."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas.codec import MalformedRecord
from schemas.embeddings import decode_embedding, encode_embedding
from schemas.messages import Embedding

vectors = hnp.arrays(np.float32, st.integers(1, 64), elements=st.floats(-1e4, 1e4, width=32))


@settings(max_examples=60, deadline=None)
@given(vector=vectors)
def test_float32_comes_back_exactly(vector):
    """What was written is read, number for number."""
    np.testing.assert_array_equal(decode_embedding(encode_embedding(vector, "float32", version=3)), vector)


@settings(max_examples=60, deadline=None)
@given(vector=vectors)
def test_float16_comes_back_within_its_precision(vector):
    """Half the bytes, each number within 2^-11 of itself (and of the smallest step near zero)."""
    embedding = encode_embedding(vector, "float16", version=1)

    np.testing.assert_allclose(decode_embedding(embedding), vector, rtol=2**-11, atol=2**-24)
    assert len(embedding.data) == 2 * len(vector)


def test_the_wire_is_little_endian():
    """The bytes do not depend on the machine."""
    big_endian = np.array([1.0, -0.5], dtype=">f4")

    assert encode_embedding(big_endian, "float32", version=1).data == b"\x00\x00\x80\x3f\x00\x00\x00\xbf"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_never_written(bad):
    """A vector with NaN or infinity is not encoded."""
    with pytest.raises(ValueError, match="finite"):
        encode_embedding(np.array([0.0, bad], dtype=np.float32), "float32", version=1)


def test_a_number_too_large_for_float16_is_refused():
    """A number beyond float16's range is not encoded."""
    with pytest.raises(ValueError, match="finite float16"):
        encode_embedding(np.array([1e5], dtype=np.float32), "float16", version=1)


def test_a_matrix_is_no_embedding():
    """One vector per message."""
    with pytest.raises(ValueError, match=r"not the shape \(2, 2\)"):
        encode_embedding(np.zeros((2, 2), dtype=np.float32), "float32", version=1)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x00" * 7, "takes 8 bytes, not 7"),
        (b"\x00" * 12, "takes 8 bytes, not 12"),
        (b"", "not 0"),
        (b"\x00\x00\xc0\x7f" * 2, "not finite"),
        (b"\x00\x00\x80\x7f" * 2, "not finite"),
    ],
)
def test_a_torn_or_poisoned_vector_is_malformed(data, said):
    """Embeddings are checked on intake: one NaN would spoil every sum it enters."""
    with pytest.raises(MalformedRecord, match=said):
        decode_embedding(Embedding(data=data, dtype="float32", dim=2, version=1))
