"""The decoder's weights as the layer loop wants them: fused, permuted and packed once at load.

- q, k and v are one product, gate and up a pair; the norm's weight before each is folded into it.
- Rotary pairs (i, i + d/2) of a head are laid side by side by permuting the rows of q and k: a rotation is then one
  complex multiplication, and since both sides of the dot product are permuted alike, attention does not notice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from models.decoder_config import UnsupportedBackbone
from models.exit_model import ExitHead, ExitModel
from worker.engine.settings import Precision
from worker.engine.transformer.linear import Linear, WeightAndBias, joined, pack_gated, pack_linear

HfModule: TypeAlias = Any
"""A module of transformers, or one of `models.decoder`: which parts it has depends on the family, which its types do
not tell.
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """The decoder in numbers."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    epsilon: float
    max_positions: int
    """Longest prompt (prefix and one suffix) that the weights and this engine support."""

    @property
    def query_width(self) -> int:
        """Columns of q."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Columns of k, and of v."""
        return self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder layer."""

    qkv: Linear
    head_norm: Tensor | None  # (heads + kv_heads, head_dim), those of queries first
    output: Linear
    gated: Linear  # silu(gate) * up
    down: Linear


@dataclass(frozen=True, slots=True)
class ExitLayer:
    """The layer right before a head, for the answers' rows: query and key-value products apart."""

    query: Linear
    key_value: Linear
    query_norm: Tensor | None  # (heads, head_dim)
    key_norm: Tensor | None  # (kv_heads, head_dim)
    rest: LayerWeights


@dataclass(frozen=True, slots=True)
class Stage:
    """The way from one head to the next.

    `layers` are run in full, beginning with the layer before the last head, which has been run for answers only so far;
    `exit_layer` comes behind them and is run for answers only.
    """

    first_layer: int
    layers: tuple[LayerWeights, ...]
    exit_layer: ExitLayer
    head: ExitHead


@dataclass(frozen=True, slots=True)
class Weights:
    """All stages, and what stands before them."""

    shape: Shape
    stages: tuple[Stage, ...]
    rotary: HfModule


def pack_weights(model: ExitModel, precision: Precision, *, release: bool = False) -> Weights:
    """Pack a model that is already on its device and in its number format.

    Args:
        model: its decoder layers are read one after the other.
        precision: of the packed weights.
        release: empties each layer of the model as soon as it is packed, so that memory holds its weights once. The
            model cannot compute any more.

    Raises:
        UnsupportedBackbone: an activation other than SiLU.
    """
    config = model.backbone.config
    if config.hidden_act != "silu":
        raise UnsupportedBackbone(f"activation {config.hidden_act!r}; the engine computes silu")
    shape = _shape(model)
    packed: list[LayerWeights] = []
    exits: dict[int, ExitLayer] = {}
    for depth, layer in enumerate(model.backbone.layers, start=1):
        packed.append(_pack_layer(layer, shape, precision))
        if depth in model.config.exit_layers:
            exits[depth] = _pack_exit(layer, packed[-1], shape, precision)
        if release:
            _empty(layer)
    # Each stage begins where the one before has answered: one layer short of that head.
    starts = (0, *(layers - 1 for layers in model.config.exit_layers[:-1]))
    stages = tuple(
        Stage(start, tuple(packed[start : end - 1]), exits[end], head)
        for start, end, head in zip(starts, model.config.exit_layers, _float_heads(model), strict=True)
    )
    return Weights(shape, stages, model.backbone.rotary_emb)


def _empty(layer: HfModule) -> None:
    for parameter in layer.parameters():
        parameter.data = parameter.data.new_empty(0)


def rotation_table(rotary: HfModule, positions: int, device: torch.device) -> Tensor:
    """(positions, head_dim / 2) complex64: the rotation of every pair at every position, rope scaling included."""
    anything = torch.zeros(1, device=device)
    cosine, sine = rotary(anything, position_ids=torch.arange(positions, device=device)[None])
    half = cosine.shape[-1] // 2
    return torch.complex(cosine[0, :, :half].contiguous(), sine[0, :, :half].contiguous())


def _shape(model: ExitModel) -> Shape:
    config = model.backbone.config
    layer = model.backbone.layers[0]
    return Shape(
        hidden=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=layer.self_attn.head_dim,
        epsilon=config.rms_norm_eps,
        max_positions=_max_positions(model),
    )


def _max_positions(model: ExitModel) -> int:
    """Within this every token sees all before it, and rotations do not depend on the prompt's length."""
    config = model.backbone.config
    bounds = [config.max_position_embeddings]
    window = getattr(config, "sliding_window", None)
    layer_types = getattr(config, "layer_types", None)
    if window is not None and (layer_types is None or "sliding_attention" in layer_types):
        bounds.append(window)
    if model.backbone.rotary_emb.rope_type in ("dynamic", "longrope"):
        bounds.append(config.rope_parameters.get("original_max_position_embeddings", config.max_position_embeddings))
    return int(min(bounds))


def _float_heads(model: ExitModel) -> tuple[ExitHead, ...]:
    """Heads stay in float32 whatever the layers run in: they cost nothing and their last digits are the answer."""
    return tuple(head.float() for head in model.heads if isinstance(head, ExitHead))


def _pack_layer(layer: HfModule, shape: Shape, precision: Precision) -> LayerWeights:
    attention, mlp = layer.self_attn, layer.mlp
    order, norm = _pair_order(shape.head_dim), layer.post_attention_layernorm
    qkv = [_paired(attention.q_proj, order), _paired(attention.k_proj, order), _plain(attention.v_proj)]
    return LayerWeights(
        qkv=pack_linear(*_behind(layer.input_layernorm, joined(qkv)), precision),
        head_norm=_head_norm(attention, shape, order) if hasattr(attention, "q_norm") else None,
        output=pack_linear(*_plain(attention.o_proj), precision),
        gated=pack_gated(_behind(norm, _plain(mlp.gate_proj)), _behind(norm, _plain(mlp.up_proj)), precision),
        down=pack_linear(*_plain(mlp.down_proj), precision),
    )


def _pack_exit(layer: HfModule, rest: LayerWeights, shape: Shape, precision: Precision) -> ExitLayer:
    attention, norm = layer.self_attn, layer.input_layernorm
    order, heads = _pair_order(shape.head_dim), rest.head_norm
    return ExitLayer(
        query=pack_linear(*_behind(norm, _paired(attention.q_proj, order)), precision),
        key_value=pack_linear(
            *_behind(norm, joined([_paired(attention.k_proj, order), _plain(attention.v_proj)])), precision
        ),
        query_norm=None if heads is None else heads[: shape.heads],
        key_norm=None if heads is None else heads[shape.heads :],
        rest=rest,
    )


def _plain(linear: HfModule) -> WeightAndBias:
    # Products copy the weight when they lay it out. A bias may be a view of the whole file, mapped into memory.
    return linear.weight.detach(), None if linear.bias is None else linear.bias.detach().clone()


def _paired(linear: HfModule, order: Tensor) -> WeightAndBias:
    """A projection's rows (and bias) with every head's rotary pairs side by side."""
    weight, bias = _plain(linear)
    rows = torch.arange(len(weight)).view(-1, len(order))[:, order].flatten()
    return weight[rows], None if bias is None else bias[rows]


def _head_norm(attention: HfModule, shape: Shape, order: Tensor) -> Tensor:  # (heads + kv_heads, head_dim)
    query, key = (norm.weight.detach()[order] for norm in (attention.q_norm, attention.k_norm))
    return torch.cat([query.expand(shape.heads, -1), key.expand(shape.kv_heads, -1)])


def _pair_order(head_dim: int) -> Tensor:  # 0, d/2, 1, d/2 + 1, ...
    return torch.arange(head_dim).view(2, -1).t().flatten()


def _behind(norm: HfModule, projection: WeightAndBias) -> WeightAndBias:
    """A projection of what a norm gives, as one of what it gives less its weight."""
    weight, bias = projection
    return (weight.float() * norm.weight.detach().float()).to(weight.dtype), bias
