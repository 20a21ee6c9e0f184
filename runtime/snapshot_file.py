"""The layout of a snapshot file: a checksummed JSON header, then raw arrays, each aligned and checksummed.

    8 bytes   magic and layout version
    8 bytes   length of the header, little-endian
    4 bytes   CRC-32 of the header
    header    JSON: what the caller gives, and `arrays`: name, dtype, shape, offset, bytes, CRC-32 of each
    arrays    raw, each at a multiple of 64 bytes from the start

Raw, so that restoring is reading: no parsing, no pickle, nothing executed.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from typing import IO, Any, Final

import numpy as np

_MAGIC: Final = b"EXSNAP01"
_PREFIX: Final = struct.Struct("<8sQI")
_ALIGNMENT: Final = 64
_CHUNK_BYTES: Final = 8 * 1_048_576
_MAX_HEADER_BYTES: Final = 1 << 30

Array = np.ndarray[Any, np.dtype[Any]]


class Torn(ValueError):
    """The file is cut off or damaged."""


class Foreign(ValueError):
    """The file is whole, but not what was expected."""


def write_snapshot(file: IO[bytes], header: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Writes header and arrays.

    Args:
        file: open for writing, at its start.
        header: anything JSON can hold; the key `arrays` is ours.
        arrays: of plain dtypes.

    Raises:
        TypeError: on an array of objects, or a header that JSON cannot hold.
    """
    raw = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    entries = [_entry(name, array) for name, array in raw.items()]
    packed, starts = _packed_header(header, entries)
    file.write(_PREFIX.pack(_MAGIC, len(packed), zlib.crc32(packed)))
    file.write(packed)
    at = _PREFIX.size + len(packed)
    for start, array in zip(starts, raw.values(), strict=True):
        file.write(b"\0" * (start - at))
        content = _bytes_of(array)
        for begin in range(0, len(content), _CHUNK_BYTES):
            file.write(content[begin : begin + _CHUNK_BYTES])
        at = start + len(content)


def read_snapshot(file: IO[bytes], expect: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Array]]:
    """The header and the arrays.

    Args:
        file: open for reading, at its start.
        expect: keys of the header that must have these values.

    Raises:
        Torn: if the file is cut off or damaged.
        Foreign: if it is something else, or the header is not as expected.
    """
    header, begin = _read_header(file)
    for key, value in expect.items():
        if header.get(key) != value:
            raise Foreign(f"{key} is {header.get(key)!r} where {value!r} was expected")
    return header, {entry["name"]: _read_array(file, begin, entry) for entry in header["arrays"]}


def _entry(name: str, array: Array) -> dict[str, Any]:
    if array.dtype.hasobject or array.dtype.names:
        raise TypeError(f"array {name!r} holds {array.dtype}; only plain numbers and bytes can be kept")
    return {
        "name": name,
        "dtype": array.dtype.str,
        "shape": array.shape,
        "bytes": array.nbytes,
        "crc32": _crc32(array),
    }


def _packed_header(header: Mapping[str, Any], entries: list[dict[str, Any]]) -> tuple[bytes, list[int]]:
    """The header's bytes and where each array starts. The starts count from its end, so its length changes nothing."""
    at = 0
    for entry in entries:
        entry["offset"] = at
        at = _aligned(at + entry["bytes"])
    packed = json.dumps({**header, "arrays": entries}, separators=(",", ":")).encode()
    begin = _aligned(_PREFIX.size + len(packed))
    return packed, [begin + entry["offset"] for entry in entries]


def _read_header(file: IO[bytes]) -> tuple[dict[str, Any], int]:
    prefix = file.read(_PREFIX.size)
    if not _MAGIC.startswith(prefix[: len(_MAGIC)]):
        raise Foreign("it does not begin like a snapshot")
    if len(prefix) < _PREFIX.size:
        raise Torn(f"{len(prefix)} bytes long")
    _, length, checksum = _PREFIX.unpack(prefix)
    packed = file.read(length) if length <= _MAX_HEADER_BYTES else b""
    if len(packed) < length or zlib.crc32(packed) != checksum:
        raise Torn("its header is cut off or damaged")
    header: dict[str, Any] = json.loads(packed)
    return header, _aligned(_PREFIX.size + length)


def _read_array(file: IO[bytes], begin: int, entry: Mapping[str, Any]) -> Array:
    array = np.empty(entry["shape"], np.dtype(entry["dtype"]))
    content = _bytes_of(array)
    file.seek(begin + entry["offset"])
    at = 0
    while at < len(content):
        chunk = file.read(min(_CHUNK_BYTES, len(content) - at))
        if not chunk:
            raise Torn(f"array {entry['name']!r} is cut off")
        content[at : at + len(chunk)] = chunk
        at += len(chunk)
    if zlib.crc32(content) != entry["crc32"]:
        raise Torn(f"array {entry['name']!r} is damaged")
    return array


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def _bytes_of(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data if array.nbytes else memoryview(b"")


def _crc32(array: Array) -> int:
    return zlib.crc32(_bytes_of(array))
