"""What a contestant of `benchmarks.engine` needs besides its decoder: input vectors, and the model's wide part."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.exit_model import ExitModel
from models.prompt import Prompt
from models.prompt_batch import collate

Floats = NDArray[np.float64]


def padded_rows(model: ExitModel, prompt: Prompt) -> tuple[Tensor, Tensor]:
    """Input vectors (candidates, length, hidden) of prefix plus suffix, and a mask that is 0 on padding."""
    batch = collate([Prompt(prompt.prefix, [suffix]) for suffix in prompt.suffixes])
    vectors = model.embed(*batch.inputs)
    lengths = torch.from_numpy(len(prompt.prefix) + prompt.suffix_lengths)
    visible = torch.arange(batch.token_ids.shape[1]) < lengths[:, None]
    return vectors.view(*batch.token_ids.shape, -1), visible.long()


def vectors_of(model: ExitModel, prompt: Prompt) -> Tensor:
    """Input vectors (tokens, hidden) of the prefix, then of all suffixes, nothing repeated."""
    batch = collate([prompt])
    return model.embed(*batch.inputs)


@torch.inference_mode()
def wide(model: ExitModel, prompt: Prompt) -> NDArray[np.float32]:
    """What the model's regression on the statistics adds to each candidate's logit (candidates,)."""
    if model.wide is None:
        return np.zeros(len(prompt.suffixes), np.float32)
    statistics = torch.from_numpy(prompt.statistics(model.config.statistics))
    return np.asarray(model.wide(statistics)[:, 0].numpy())


def without_layers(model: ExitModel) -> ExitModel:
    """The model for what comes before and behind its layers, which somebody else computes: words, soft tokens, heads.
    It shares its weights with the model that is given, which stays whole.
    """
    rest = copy.copy(model)
    rest._modules = dict(model._modules)  # noqa: SLF001 - a shallow copy of a module shares the table of its parts
    backbone = copy.copy(model.backbone)
    backbone._modules = dict(backbone._modules) | {"layers": nn.ModuleList()}  # noqa: SLF001 - the same
    rest.backbone = backbone
    return rest
