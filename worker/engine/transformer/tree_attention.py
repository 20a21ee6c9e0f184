"""Attention over trees: a prefix sees itself causally; a suffix sees its request's prefix and itself."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from worker.engine.transformer.sequence_attention import SequenceAttention

KeyValue = tuple[Tensor, Tensor]
"""Keys and values of some tokens, each (tokens, kv_heads, head_dim)."""


class TreeAttention(NamedTuple):
    """Attention of a whole batch: to each row's own sequence, which is a suffix or what the batch computes of a prefix,
    and to what of the prefix comes before that.

    The two are joined exactly: a softmax over two sets of keys is the mean of the softmaxes over each, weighted by the
    exponentials of their log-sum-exps.
    """

    over_own: SequenceAttention
    over_prefix: SequenceAttention

    def __call__(self, query: Tensor, own: KeyValue, prefixes: KeyValue) -> Tensor:
        """What each query attends to.

        Args:
            query: (queries, heads, head_dim), rotated.
            own: of all rows of the batch, keys rotated.
            prefixes: of all requests' whole prefixes, one behind the other, computed in this batch or kept from
                earlier.

        Returns:
            (queries, heads, head_dim); rows that only fill up the batch are zero.
        """
        outcome, weight = self.over_own(query, *own)
        prefix_outcome, prefix_weight = self.over_prefix(query, *prefixes)
        share = torch.sigmoid(weight - prefix_weight)[..., None].to(outcome.dtype)
        return torch.lerp(prefix_outcome, outcome, share)
