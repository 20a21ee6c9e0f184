"""A snapshot as a safetensors file, with a hash over everything in it.

Its metadata hold two texts: `snapshot`, the header as JSON, and `blake2b`, the hash over header and arrays, because
safetensors has none of its own. Restoring is reading: no parsing of arrays, no pickle, nothing executed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

_HEADER: Final = "snapshot"
_HASH: Final = "blake2b"
_FORMER_MAGIC: Final = b"EXSNAP01"
_START_BYTES: Final = 9
"""Length of safetensors' JSON header (8 bytes), then its opening brace."""
_DTYPES: Final = frozenset({"BOOL", "U8", "I8", "U16", "I16", "F16", "U32", "I32", "F32", "U64", "I64", "F64"})

Array = np.ndarray[Any, np.dtype[Any]]


class Corrupt(ValueError):
    """The file is cut off or damaged."""


class Incompatible(ValueError):
    """The file is whole, but not what was expected."""


def write_snapshot(path: Path, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Writes header and arrays.

    Args:
        path: of the file; replaced if it is there.
        header: anything JSON can hold.
        arrays: of numbers; contiguous or not.

    Raises:
        TypeError: on an array of anything else, or a header that JSON cannot hold.
        OSError: if the file cannot be written.
    """
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise TypeError(f"array {name!r} holds {array.dtype}; only numbers can be kept")
    plain = {name: np.asarray(array, array.dtype.newbyteorder("<"), order="C") for name, array in arrays.items()}
    text = json.dumps(header, separators=(",", ":"))
    try:
        save_file(plain, path, metadata={_HEADER: text, _HASH: _hash(text, plain)})
    except SafetensorError as error:  # its I/O errors are no OSError
        raise OSError(str(error)) from error


def read_snapshot(path: Path, expect: Mapping[str, Sequence[Any]]) -> tuple[dict[str, Any], dict[str, Array]]:
    """The header and the arrays, which are writable.

    Args:
        path: of the file.
        expect: keys of the header that must have one of these values.

    Raises:
        Corrupt: if the file is cut off or damaged.
        Incompatible: if it is something else, or the header is not as expected.
        OSError: if it cannot be read.
    """
    _check_start(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
            names = list(file.keys())
            _check_types({name: file.get_slice(name).get_dtype() for name in names})
            arrays = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise Corrupt(str(error)) from error
    text = metadata.get(_HEADER, "")
    if metadata.get(_HASH) != _hash(text, arrays):
        raise Corrupt("its content does not match its hash")
    header = _json_object(text)
    for key, values in expect.items():
        if header.get(key) not in values:
            expected = " or ".join(repr(value) for value in values)
            raise Incompatible(f"{key} is {header.get(key)!r} where {expected} was expected")
    return header, arrays


def _check_types(types: Mapping[str, str]) -> None:
    """Refuses arrays that numpy cannot hold, before they are read. Sizes and offsets have been checked against the size
    of the file by safetensors, when it opened it.
    """
    for name, dtype in types.items():
        if dtype not in _DTYPES:
            raise Corrupt(f"array {name!r} holds {dtype}")


def _check_start(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
    if start.startswith(_FORMER_MAGIC):
        raise Incompatible("it has the layout of an earlier release")
    if len(start) < _START_BYTES:
        raise Corrupt(f"{len(start)} bytes long")
    if not start.endswith(b"{"):
        raise Incompatible("it does not begin like a snapshot")


def _json_object(text: str | bytes) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"a header is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise Corrupt("a header is no JSON object")
    return content


def _hash(header: str, arrays: Mapping[str, Array]) -> str:
    digest = hashlib.blake2b(header.encode(), digest_size=16)
    for name, array in sorted(arrays.items()):
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(array.reshape(-1).view(np.uint8).data if array.nbytes else b"")
    return digest.hexdigest()
