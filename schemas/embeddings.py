"""Converts vectors to `Embedding` messages and back: little-endian bytes, finite numbers only."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.codec import MalformedRecord
from schemas.messages import Embedding, EmbeddingDtype

_WIRE: Final[dict[EmbeddingDtype, np.dtype[np.floating]]] = {
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
}


def encode_embedding(vector: NDArray[np.floating], dtype: EmbeddingDtype, version: int) -> Embedding:
    """The vector as a message.

    Args:
        vector: (dim,) finite numbers; those of float16 stay under 65,504.
        dtype: of the encoded numbers; float16 keeps three digits in half the bytes.
        version: number of this publication of the id, from 1.

    Raises:
        ValueError: the vector is not one-dimensional, or holds a number that is not finite in `dtype`.
    """
    if vector.ndim != 1:
        raise ValueError(f"an embedding has one dimension, not the shape {vector.shape}")
    with np.errstate(over="ignore"):  # reported by the check below
        numbers = vector.astype(_WIRE[dtype])
    if not np.isfinite(numbers).all():
        raise ValueError(f"an embedding must hold finite {dtype} numbers; its largest is {np.abs(vector).max()}")
    return Embedding(data=numbers.tobytes(), dtype=dtype, dim=len(numbers), version=version)


def decode_embedding(embedding: Embedding) -> NDArray[np.float32]:
    """The message's vector, (dim,), always float32.

    Raises:
        MalformedRecord: there are not `dim` numbers of `dtype` in it, or one of them is not finite.
    """
    wire = _WIRE[embedding.dtype]
    if len(embedding.data) != embedding.dim * wire.itemsize:
        raise MalformedRecord(
            f"an embedding of {embedding.dim} {embedding.dtype} numbers takes {embedding.dim * wire.itemsize} bytes, "
            f"not {len(embedding.data)}"
        )
    vector = np.frombuffer(embedding.data, dtype=wire).astype(np.float32)
    if not np.isfinite(vector).all():
        raise MalformedRecord("an embedding holds a number that is not finite")
    return vector
