"""The layout of snapshot files."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from runtime.snapshot_file import Foreign, Torn, read_snapshot, write_snapshot

DTYPES = st.sampled_from(["u1", "<i4", "<i8", "<f4", "<f2", "?", "S5", "<U3"])
ARRAYS = DTYPES.flatmap(
    lambda dtype: arrays_of.arrays(np.dtype(dtype), arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0))
)


def written(header, arrays):
    """The bytes of a file."""
    file = io.BytesIO()
    write_snapshot(file, header, arrays)
    return file.getvalue()


@settings(max_examples=60)
@given(arrays=st.dictionaries(st.text(max_size=8), ARRAYS, max_size=4), note=st.text(max_size=20))
def test_arrays_and_header_come_back_as_they_were(arrays, note):
    """Any plain dtype, any shape, empty or without dimensions; and the arrays are ours to change."""
    header, got = read_snapshot(io.BytesIO(written({"note": note}, arrays)), expect={"note": note})
    assert header["note"] == note
    assert list(got) == list(arrays)
    for name, array in arrays.items():
        assert got[name].dtype == array.dtype
        assert got[name].flags.writeable
        np.testing.assert_array_equal(got[name], array)


def test_views_that_are_not_contiguous_are_kept():
    """Every second column is saved like any array."""
    view = np.arange(12).reshape(3, 4)[:, ::2]
    _, got = read_snapshot(io.BytesIO(written({}, {"a": view})), expect={})
    np.testing.assert_array_equal(got["a"], view)


@settings(max_examples=80)
@given(data=st.data())
def test_no_damage_goes_unnoticed(data):
    """Cut off anywhere, or with any byte changed, a file is refused; never read wrongly."""
    arrays = {"a": np.arange(50, dtype="<i4"), "b": np.ones(3)}
    whole = written({"kind": "graph"}, arrays)
    damaged = bytearray(whole)
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(whole) - 1)) :]
    else:
        damaged[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        header, got = read_snapshot(io.BytesIO(bytes(damaged)), expect={"kind": "graph"})
    except (Torn, Foreign):
        return
    # Only the filling between header and arrays carries no checksum, because it carries nothing.
    assert header["kind"] == "graph"
    for name, array in arrays.items():
        np.testing.assert_array_equal(got[name], array)


def test_another_kind_is_foreign():
    """A whole file of something else is not taken for ours."""
    with pytest.raises(Foreign, match="kind is 'tables' where 'graph' was expected"):
        read_snapshot(io.BytesIO(written({"kind": "tables"}, {})), expect={"kind": "graph"})
    with pytest.raises(Foreign, match="does not begin like"):
        read_snapshot(io.BytesIO(b"PK\x03\x04 a zip archive, say"), expect={})


def test_objects_are_refused():
    """Nothing that would need pickle is written."""
    with pytest.raises(TypeError, match="only plain numbers"):
        written({}, {"a": np.array([object()])})
