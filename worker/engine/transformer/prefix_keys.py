"""Every part's prefix in each layer of a stage: what the cache has, what this batch computes, and both together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from worker.engine.prefix import Stretch
from worker.engine.transformer.packing import Packed
from worker.engine.transformer.tree_attention import KeyValue


class HasPrefix(Protocol):
    """A part, or a chunk of one's prefix."""

    @property
    def stretches(self) -> list[Stretch]:
        """The prefix, as far as it is attended to."""

    @property
    def unknown_stretches(self) -> Sequence[Stretch]:
        """Of these, those that the batch computes: neighbours."""


class PrefixKeys:
    """Gives every part's prefix keys and values in each layer, and records those that were computed.

    Args:
        parts: of one batch.
        packed: where they lie.
        first_layer: of the stage.

    Attributes:
        computed: of every part, the stretches of its prefix that the batch computes and their rows.
        recorded: of every part and each of these, copies of its keys and values by layer, if they are to be kept.
    """

    def __init__(self, parts: Sequence[HasPrefix], packed: Packed, first_layer: int) -> None:
        self._parts = parts
        self._layer = first_layer
        self.computed: list[list[tuple[Stretch, slice]]] = []
        for part, span in zip(parts, packed.spans, strict=True):
            start, computed = span.start, []
            for stretch in part.unknown_stretches:
                computed.append((stretch, slice(start, start + len(stretch))))
                start += len(stretch)
            self.computed.append(computed)
        self.recorded: list[list[list[KeyValue]]] = [[[] for _ in computed] for computed in self.computed]

    def of_layer(self, key: Tensor, value: Tensor) -> KeyValue:
        """All parts' prefixes, one behind the other; to be called once per layer, in order, with its keys and values of
        all rows.
        """
        pieces = [
            piece
            for part, computed in zip(self._parts, self.computed, strict=True)
            for piece in self._pieces(part, computed, key, value)
        ]
        for computed, recorded in zip(self.computed, self.recorded, strict=True):
            for (stretch, rows), layers in zip(computed, recorded, strict=True):
                if stretch.known is not None:
                    # One copy of both takes half the time of one of each.
                    copied_key, copied_value = torch.stack((key[rows], value[rows])).unbind()
                    layers.append((copied_key, copied_value))
        self._layer += 1
        if len(pieces) == 1:
            return pieces[0]
        keys, values = zip(*pieces, strict=True)
        return torch.cat(keys), torch.cat(values)

    def _pieces(
        self, part: HasPrefix, computed: Sequence[tuple[Stretch, slice]], key: Tensor, value: Tensor
    ) -> Iterator[KeyValue]:
        """A part's prefix."""
        if len(computed) == len(part.stretches):
            rows = slice(computed[0][1].start, computed[-1][1].stop)
            yield key[rows], value[rows]
            return
        rows_of = dict(computed)
        for stretch in part.stretches:
            if stretch in rows_of:
                yield key[rows_of[stretch]], value[rows_of[stretch]]
            elif stretch.known is not None:
                yield stretch.known.layers[self._layer]
