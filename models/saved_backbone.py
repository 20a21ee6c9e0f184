"""Loads the decoder of a bundle, whose files are not trusted: see `models.decoder_config`."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from models.decoder import Decoder
from models.decoder_config import DecoderConfig, UnsupportedBackbone
from models.tensor_file import check_shapes, declared_shapes


def load_saved_backbone(folder: Path, config: DecoderConfig, dtype: torch.dtype) -> Decoder:
    """The decoder saved in a folder, its weights complete and of the configured shapes.

    Weights that are saved in the format asked for are not copied: they stay mapped into memory until they are packed.

    Raises:
        UnsupportedBackbone: weights are missing or left over, or the engine does not compute such layers.
        ValueError: the configuration does not fit the weights.
    """
    path = folder / "model.safetensors"
    declared = declared_shapes(path)
    check_shapes(declared, _sizes(config))
    with torch.device("meta"):  # shapes without memory: the file brings the numbers
        decoder = Decoder(config, (folder / "config.json").read_bytes())
    expected = {name: tuple(part.shape) for name, part in decoder.state_dict().items()}
    if wrong := sorted(set(declared) ^ set(expected)):
        raise UnsupportedBackbone(f"backbone/model.safetensors does not fit: {', '.join(wrong[:5])}")
    check_shapes(declared, expected)
    weights = {name: part.to(dtype) for name, part in load_file(path).items()}
    decoder.load_state_dict(weights, assign=True)
    return decoder


def check_finite(model: nn.Module) -> None:
    """Check every weight and every constant of a model.

    Raises:
        UnsupportedBackbone: a number is NaN or infinite; the first such tensor is named.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        lowest, highest = torch.aminmax(tensor.detach())  # one pass; NaN in, NaN out
        if not (torch.isfinite(lowest) and torch.isfinite(highest)):
            raise UnsupportedBackbone(f"{name} holds numbers that are not finite")


def _sizes(decoder: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all matrices, which is nearly everything that a model of this configuration allocates."""
    hidden, inner = decoder.hidden_size, decoder.intermediate_size
    queries, keys = decoder.num_attention_heads * decoder.head_width, decoder.key_value_heads * decoder.head_width
    layer = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    layers = range(decoder.num_hidden_layers)
    matrices = {f"layers.{n}.{name}.weight": shape for n in layers for name, shape in layer.items()}
    return {"embed_tokens.weight": (decoder.vocab_size, hidden), **matrices}
