"""What a safetensors file declares, compared with what is expected before any array of it is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from safetensors import safe_open

_FLOATS: Final = frozenset({"F32", "F16", "BF16", "F64"})

Shape = tuple[int, ...]


def declared_shapes(path: Path) -> dict[str, Shape]:
    """The shape of every array, from the file's header alone.

    The library itself refuses a header whose arrays are not exactly as large as the file.

    Raises:
        ValueError: an array does not hold floating-point numbers.
        SafetensorError: the header is malformed, or does not fit the size of the file.
    """
    with safe_open(path, framework="numpy") as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        for name, part in parts.items():
            if part.get_dtype() not in _FLOATS:
                raise ValueError(f"{name} is of type {part.get_dtype()}, expected one of {', '.join(sorted(_FLOATS))}")
        return {name: tuple(part.get_shape()) for name, part in parts.items()}


def check_shapes(declared: Mapping[str, Shape], expected: Mapping[str, Shape]) -> None:
    """Compare some of the arrays with what they must be.

    Raises:
        ValueError: an array is missing or of another shape; the first is named.
    """
    for name, shape in expected.items():
        if declared.get(name) != shape:
            raise ValueError(f"{name} has shape {declared.get(name, 'none')}, expected {shape}")
