"""A decoder of the supported families in plain PyTorch, its parts named as in transformers.

A worker needs a checkpoint's weights and little else. transformers' own classes give the same numbers (tested to the
last bit), but importing them takes seconds and well over 100 MB, so they are left to training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from models.decoder_config import DecoderConfig, UnsupportedBackbone

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines, each (prompts, length, head_dim)."""


class Decoder(nn.Module):
    """Word embeddings, layers, final norm; no language-model head. `models.exit_model.ExitModel` runs the layers.

    Args:
        config: the sizes; weights are made with them, on the default device.
        config_file: the `config.json` that it was read from.

    Raises:
        UnsupportedBackbone: an activation other than SiLU.
        ValueError: the rope scaling lacks a number.
    """

    def __init__(self, config: DecoderConfig, config_file: bytes | None = None) -> None:
        super().__init__()
        if config.hidden_act != "silu":
            raise UnsupportedBackbone(f"activation {config.hidden_act!r}; only silu is computed")
        self.config, self.config_file = config, config_file
        # Not left to the constructor: its random numbers, on torch's device for shapes alone, import the compiler.
        words = torch.empty(config.vocab_size, config.hidden_size)
        self.embed_tokens = nn.Embedding.from_pretrained(words, freeze=False)  # type: ignore[no-untyped-call]
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = RotaryEmbedding(config)

    def save_pretrained(self, folder: Path, state_dict: Mapping[str, Tensor] | None = None, **_: object) -> None:
        """Write the files that transformers would, the configuration as it was read; with other weights if given."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_bytes(self.config_file or msgspec.json.format(msgspec.json.encode(self.config)))
        weights = {name: part.contiguous() for name, part in (state_dict or self.state_dict()).items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


class DecoderLayer(nn.Module):
    """Attention, then an MLP, each behind a norm and added to what goes in."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = GatedMLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, hidden: Tensor, *, attention_mask: Tensor, position_ids: Tensor, position_embeddings: Rotation
    ) -> Tensor:
        """Hidden states (prompts, length, hidden) behind the layer.

        Args:
            hidden: (prompts, length, hidden).
            attention_mask: (prompts, 1, length, length), which keys a query sees.
            position_ids: not used; transformers' layers take them too.
            position_embeddings: of the positions, from `RotaryEmbedding`.
        """
        del position_ids
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), attention_mask, position_embeddings)
        deeper: Tensor = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return deeper


class Attention(nn.Module):
    """Multi-head attention with rotary positions; several query heads may share one of keys and values."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.head_dim = config.head_width
        self._group = config.num_attention_heads // config.key_value_heads
        queries, keys = config.num_attention_heads * self.head_dim, config.key_value_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=config.query_bias)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=config.query_bias)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=config.query_bias)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=config.output_bias)
        if config.model_type == "qwen3":
            self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
            self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps)

    def forward(self, hidden: Tensor, mask: Tensor, rotation: Rotation) -> Tensor:
        """(prompts, length, hidden) from the same."""
        split = (*hidden.shape[:-1], -1, self.head_dim)
        query, key, value = (projection(hidden).view(split) for projection in (self.q_proj, self.k_proj, self.v_proj))
        if hasattr(self, "q_norm"):
            query, key = self.q_norm(query), self.k_norm(key)
        query, key = (_rotated(part.transpose(1, 2), rotation) for part in (query, key))
        key, value = (part.repeat_interleave(self._group, dim=1) for part in (key, value.transpose(1, 2)))
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        outcome: Tensor = self.o_proj(attended.transpose(1, 2).flatten(2))
        return outcome


class GatedMLP(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        sizes, bias = (config.hidden_size, config.intermediate_size), config.gate_bias
        self.gate_proj = nn.Linear(*sizes, bias=bias)
        self.up_proj = nn.Linear(*sizes, bias=bias)
        self.down_proj = nn.Linear(*sizes[::-1], bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(prompts, length, hidden) from the same."""
        outcome: Tensor = self.down_proj(functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden))
        return outcome


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32 whatever it is given (Zhang and Sennrich 2019, arXiv 1910.07467)."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self._epsilon = epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., width) from the same."""
        wide = hidden.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self._epsilon)
        return self.weight * normed.to(hidden.dtype)


class RotaryEmbedding(nn.Module):
    """Rotary positions (Su et al. 2021, arXiv 2104.09864). Scaled ones are left to transformers, which is imported for
    them: there are many kinds, few checkpoints have one, and the library keeps them right.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        rope = config.rope
        self.rope_type = str(rope["rope_type"])
        if self.rope_type == "default":
            even = torch.arange(0, config.head_width, 2, dtype=torch.float, device="cpu")
            frequencies, self._scale = 1.0 / (_number(rope, "rope_theta") ** (even / config.head_width)), 1.0
        else:
            frequencies, self._scale = _scaled_frequencies(config, self.rope_type)
        self.register_buffer("inv_freq", frequencies, persistent=False)
        self.inv_freq: Tensor

    @torch.no_grad()
    def forward(self, like: Tensor, *, position_ids: Tensor) -> Rotation:
        """Cosines and sines of positions (prompts, length), on the device and in the format of `like`."""
        angles = position_ids[..., None].float() * self.inv_freq.to(like.device)
        angles = torch.cat([angles, angles], dim=-1)
        return (angles.cos() * self._scale).to(like.dtype), (angles.sin() * self._scale).to(like.dtype)


def _number(rope: dict[str, Any], name: str) -> float:
    number = rope.get(name)
    if isinstance(number, bool) or not isinstance(number, int | float) or not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} is {number!r:.60}, expected a positive number")
    return float(number)


def _scaled_frequencies(config: DecoderConfig, rope_type: str) -> tuple[Tensor, float]:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS  # noqa: PLC0415 - most checkpoints need none

    if rope_type not in ROPE_INIT_FUNCTIONS:
        known = ", ".join(("default", *ROPE_INIT_FUNCTIONS))
        raise UnsupportedBackbone(f"rope_type {rope_type!r:.60}; supported are {known}")
    with torch.device("cpu"):  # whatever the weights are made on
        frequencies, scale = ROPE_INIT_FUNCTIONS[rope_type](config.for_transformers())
    return frequencies, float(scale)


def _rotated(heads: Tensor, rotation: Rotation) -> Tensor:
    """Queries or keys (prompts, heads, length, head_dim), every pair (i, i + head_dim / 2) turned by its angle."""
    cosine, sine = (part.unsqueeze(1) for part in rotation)
    first, second = heads.chunk(2, dim=-1)
    return heads * cosine + torch.cat([-second, first], dim=-1) * sine
