"""The layout of snapshot files."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from safetensors.numpy import load, save_file

from runtime.snapshots.file import Corrupt, Incompatible, _hash, read_snapshot, write_snapshot

DTYPES = st.sampled_from(["u1", "<u8", "<i4", "<i8", "<f4", "<f2", "<f8", "?"])
ARRAYS = DTYPES.flatmap(
    lambda dtype: arrays_of.arrays(np.dtype(dtype), arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0))
)


def written(header, arrays):
    """The bytes of a file."""
    with tempfile.TemporaryDirectory() as folder:
        write_snapshot(Path(folder) / "snapshot", header, arrays)
        return (Path(folder) / "snapshot").read_bytes()


def read(content, expect):
    """What a file of these bytes is read as."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "snapshot").write_bytes(content)
        return read_snapshot(Path(folder) / "snapshot", expect)


@settings(max_examples=60)
@given(arrays=st.dictionaries(st.text(max_size=8), ARRAYS, max_size=4), note=st.text(max_size=20))
def test_arrays_and_header_come_back_as_they_were(arrays, note):
    """Any kind of number, any shape, empty or without dimensions; and the arrays are ours to change."""
    header, got = read(written({"note": note}, arrays), expect={"note": [note]})
    assert header["note"] == note
    assert set(got) == set(arrays)
    for name, array in arrays.items():
        assert got[name].dtype == array.dtype
        assert got[name].flags.writeable
        np.testing.assert_array_equal(got[name], array)


def test_views_that_are_not_contiguous_are_kept():
    """Every second column is saved like any array."""
    view = np.arange(12).reshape(3, 4)[:, ::2]
    _, got = read(written({}, {"a": view}), expect={})
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
        header, got = read(bytes(damaged), expect={"kind": ["graph"]})
    except (Corrupt, Incompatible):
        return
    # Only the filling behind the header is not hashed, because it carries nothing.
    assert header["kind"] == "graph"
    for name, array in arrays.items():
        np.testing.assert_array_equal(got[name], array)


@pytest.mark.parametrize(("this", "that"), [(b'"I32"', b'"U32"'), (b'"one"', b'"two"'), (b"[2,3]", b"[3,2]")])
def test_arrays_under_another_name_type_or_shape_are_noticed(this, that):
    """The hash covers what the numbers are, not only their bytes."""
    content = written({}, {"one": np.arange(6, dtype="<i4").reshape(2, 3)})
    assert this in content
    with pytest.raises(Corrupt, match="hash"):
        read(content.replace(this, that), expect={})


def test_another_kind_is_incompatible():
    """A whole file of something else, or of an earlier release, is not taken for ours."""
    with pytest.raises(Incompatible, match="kind is 'tables' where 'graph' was expected"):
        read(written({"kind": "tables"}, {}), expect={"kind": ["graph"]})
    with pytest.raises(Incompatible, match="does not begin like"):
        read(b"PK\x03\x04 a zip archive, say", expect={})

    with pytest.raises(Incompatible, match="layout of an earlier release"):
        read(b"EXSNAP01" + b"\0" * 100, expect={})


def test_any_reader_of_safetensors_can_look_into_it():
    """The arrays stand in the file under their names."""
    np.testing.assert_array_equal(load(written({}, {"a": np.arange(3)}))["a"], [0, 1, 2])


def test_objects_are_refused():
    """Nothing that would need pickle is written."""
    for array in (np.array([object()]), np.array(["text"]), np.zeros(1, [("field", "i4")])):
        with pytest.raises(TypeError, match="only numbers"):
            written({}, {"a": array})


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "BF16", "C64"])
def test_types_that_numpy_lacks_are_refused(dtype):
    """A layout may declare numbers that safetensors knows and nobody here has written: corrupt, not an exception."""
    content = written({}, {"a": np.zeros(8, np.uint8)})
    length = int.from_bytes(content[:8], "little")
    layout = json.loads(content[8 : 8 + length])
    size = {"BF16": 2, "C64": 8}.get(dtype, 1)
    layout["a"] |= {"dtype": dtype, "shape": [8 // size]}
    text = json.dumps(layout).encode()

    with pytest.raises(Corrupt, match=dtype):
        read(len(text).to_bytes(8, "little") + text + content[8 + length :], {})


@pytest.mark.parametrize("header", ["", "[]", "7", "{", "[" * 5_000])
def test_a_header_that_is_no_object_is_refused(header, tmp_path):
    """Also under a right hash."""
    arrays = {"a": np.zeros(2, np.uint8)}
    save_file(arrays, tmp_path / "crafted", metadata={"snapshot": header, "blake2b": _hash(header, arrays)})

    with pytest.raises(Corrupt):
        read_snapshot(tmp_path / "crafted", {})
