"""Decoders in the classes of transformers: from Hugging Face checkpoints, LoRA adapters merged, or from bundles."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from models.decoder import Decoder
from models.decoder_config import FAMILIES, UnsupportedBackbone

_WEIGHTS_ONLY: Final = {"attn_implementation": "sdpa", "trust_remote_code": False, "use_safetensors": True}
"""No checkpoint brings code along: neither in Python files of its own nor in pickled weights."""


def load_backbone(path_or_hub_name: str, lora: str | None, dtype: torch.dtype) -> PreTrainedModel:
    """The decoder of a checkpoint, without its language-model head.

    Args:
        path_or_hub_name: a local folder or a name on the hub.
        lora: folder or hub name of a LoRA adapter to merge into the weights (needs the extra `lora`).
        dtype: number format of the weights in memory.

    Raises:
        UnsupportedBackbone: the checkpoint is of another family, or the adapter does not fit it.
    """
    family = AutoConfig.from_pretrained(path_or_hub_name, trust_remote_code=False).model_type
    if family not in FAMILIES:
        raise UnsupportedBackbone(f"{path_or_hub_name} is a {family!r}; supported are {', '.join(FAMILIES)}")
    with no_progress_bars():
        if lora is not None:
            return _merged_with_adapter(path_or_hub_name, lora, dtype)
        return AutoModel.from_pretrained(path_or_hub_name, dtype=dtype, **_WEIGHTS_ONLY)


def as_transformers(decoder: Decoder) -> PreTrainedModel:
    """A bundle's decoder as transformers computes it, with the same weights in memory."""
    model: PreTrainedModel = AutoModel.from_config(decoder.config.for_transformers(), attn_implementation="sdpa")
    model.load_state_dict(decoder.state_dict(), assign=True)
    return model.eval()


def _merged_with_adapter(path_or_hub_name: str, lora: str, dtype: torch.dtype) -> PreTrainedModel:
    """The backbone with the adapter merged into its weights, so that it costs nothing per token."""
    from peft import PeftConfig, PeftModel  # noqa: PLC0415 - an optional extra

    # An adapter names its tensors after the class it was trained on.
    whole = PeftConfig.from_pretrained(lora).task_type == "CAUSAL_LM"
    loader = AutoModelForCausalLM if whole else AutoModel
    model = loader.from_pretrained(path_or_hub_name, dtype=dtype, **_WEIGHTS_ONLY)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            merged = PeftModel.from_pretrained(model, lora).merge_and_unload()
        except UserWarning as error:
            raise UnsupportedBackbone(f"the adapter {lora} does not fit {path_or_hub_name}: {error}") from error
    return merged.model if whole else merged


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Switches transformers' progress bars off for a while: they would fill a worker's log."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
