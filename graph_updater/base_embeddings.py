"""What the model bundle gives the graph to begin with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TextMap = Callable[[str | None, Mapping[str, str]], NDArray[np.float32]]
"""Title and attributes of an item to its x⁽⁰⁾: (d,) float32."""


@dataclass(frozen=True)
class BaseEmbeddings:
    """x⁽⁰⁾ of what training knew, and how to find that of other items.

    Attributes:
        item_ids: the items that have a trained x⁽⁰⁾.
        item_vectors: (items, d) float32.
        alphas: the layers' weights α₀ … α_L.
        user_ids: the users that have a trained x⁽⁰⁾; others begin with 0.
        user_vectors: (users, d) float32; None if there are none.
        text_map: x⁽⁰⁾ of an item from its text, for items that have no trained one; None leaves them 0.
    """

    item_ids: Sequence[str]
    item_vectors: NDArray[np.float32]
    alphas: tuple[float, ...]
    user_ids: Sequence[str] = ()
    user_vectors: NDArray[np.float32] | None = None
    text_map: TextMap | None = None

    @property
    def dim(self) -> int:
        """Numbers in an embedding."""
        return int(self.item_vectors.shape[1])
