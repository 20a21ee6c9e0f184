"""Prompts as one padded batch of tensors, with the mask that lets all candidates of a request share its prefix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.prompt import Prompt


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """One padded row per prompt: the prefix, then all suffixes. Each suffix's positions continue the prefix's."""

    token_ids: Tensor  # (prompts, length) int64, 0 where soft or padding
    positions: Tensor  # (prompts, length) int64
    mask: Tensor  # (prompts, 1, length, length) bool: may this query see this key
    soft_index: Tensor  # (soft,) int64 into the flattened rows
    soft_kinds: Tensor  # (soft,) int64
    soft_values: Tensor  # (soft, width) float32
    added_ids: Tensor  # (added,) int64 words that are added to the tokens at `added_index`
    added_index: Tensor  # (added,) int64 into the flattened rows, ascending
    answer_index: Tensor  # (candidates,) int64 into the flattened rows: each suffix's last token

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The arguments of `models.exit_model.ExitModel.embed`."""
        return (
            self.token_ids.flatten(),
            self.soft_index,
            self.soft_kinds,
            self.soft_values,
            self.added_ids,
            self.added_index,
        )

    def to(self, device: torch.device | str) -> PromptBatch:
        """The same batch on another device."""
        return replace(self, **{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def collate(prompts: Sequence[Prompt]) -> PromptBatch:
    """A padded batch of prompts; the more alike their lengths, the less padding."""
    length = max(prompt.tokens for prompt in prompts)
    token_ids = torch.zeros(len(prompts), length, dtype=torch.int64)
    positions = torch.zeros(len(prompts), length, dtype=torch.int64)
    segments = torch.full((len(prompts), length), -1)  # 0: prefix, 1..: suffixes, -1: padding
    soft_index, soft_kinds, soft_values, answers = [], [], [], []
    added_ids, added_index = [], []
    for row, prompt in enumerate(prompts):
        start = 0
        for segment, part in enumerate((prompt.prefix, *prompt.suffixes)):
            first_position = len(prompt.prefix) if segment else 0
            end = start + len(part)
            token_ids[row, start:end] = torch.from_numpy(part.token_ids)
            positions[row, start:end] = torch.arange(first_position, first_position + len(part))
            segments[row, start:end] = segment
            soft_index.append(torch.from_numpy(part.soft_positions).long() + row * length + start)
            soft_kinds.append(torch.from_numpy(part.soft_kinds).long())
            soft_values.append(torch.from_numpy(part.soft_values))
            if len(part.added_ids):
                added_ids.append(part.added_ids)
                added_index.append(part.added_positions + (row * length + start))
            start = end
            if segment:
                answers.append(row * length + end - 1)
    return PromptBatch(
        token_ids=token_ids,
        positions=positions,
        mask=_tree_mask(segments),
        soft_index=torch.cat(soft_index),
        soft_kinds=torch.cat(soft_kinds),
        soft_values=torch.cat(soft_values),
        added_ids=_indices(added_ids),
        added_index=_indices(added_index),
        answer_index=torch.tensor(answers, dtype=torch.int64),
    )


def _indices(parts: Sequence[NDArray[np.integer]]) -> Tensor:
    return torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *parts]))


def _tree_mask(segments: Tensor) -> Tensor:  # (prompts, length) -> (prompts, 1, length, length)
    """A token attends to the prefix and to its own segment up to itself.

    Padding attends to padding: a row without any visible key would give NaN.
    """
    length = segments.shape[1]
    queries, keys = segments[:, :, None], segments[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return (causal & ((keys == queries) | ((keys == 0) & (queries > 0))))[:, None]
