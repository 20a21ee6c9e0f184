"""The ids of all nodes as bytes in one array, with their hashes: what compiled code needs to write states."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.arrays import grow
from runtime.text_column import TextColumn
from schemas.packed_states import id_hash


class NameColumns(NamedTuple):
    """Node i's id is `text[start[i] : start[i] + length[i]]`."""

    text: NDArray[np.uint8]
    start: NDArray[np.int64]  # (nodes,)
    length: NDArray[np.uint16]  # (nodes,)
    hashes: NDArray[np.uint64]  # (nodes,) `id_hash`


class NameBytes:
    """Ids by node. What is set is written when it is read: adding one costs no array operation."""

    def __init__(self) -> None:
        self._texts = TextColumn()
        self._hashes = np.zeros(0, np.uint64)
        self._waiting: dict[int, str] = {}

    def set(self, node: int, name: str) -> None:
        """A node has this id from now on."""
        self._waiting[node] = name

    def columns(self) -> NameColumns:
        """The ids of all nodes, as they are now; to be read before the next call of any method."""
        if self._waiting:
            nodes = np.fromiter(self._waiting, np.int64, len(self._waiting))
            names, self._waiting = list(self._waiting.values()), {}
            self._texts.put(nodes, [name.encode() for name in names])
            grow(self._hashes, int(nodes.max()) + 1)
            self._hashes[nodes] = [id_hash(name) for name in names]
        return NameColumns(self._texts.octets, self._texts.start, self._texts.length, self._hashes)
