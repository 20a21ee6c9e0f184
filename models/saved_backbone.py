"""Loads the decoder of a bundle. Its `config.json` is not trusted: transformers never sees the file itself.

A configuration file can name code to run (`auto_map`), kernels or quantisers to fetch, or sizes that exhaust memory.
Here only the numbers that describe a decoder are read, each within bounds and in accord with the weights on disk, and
the class comes from a fixed list.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from models.backbone import FAMILIES, UnsupportedBackbone, no_progress_bars
from models.tensor_file import check_shapes, declared_shapes

_CLASSES: Final = {
    "llama": ("LlamaConfig", "LlamaModel"),
    "mistral": ("MistralConfig", "MistralModel"),
    "qwen2": ("Qwen2Config", "Qwen2Model"),
    "qwen3": ("Qwen3Config", "Qwen3Model"),
}
"""By name, because transformers imports a family's module when it is asked for: a second each."""
_LEADING_ELSEWHERE: Final = ("auto_map", "quantization_config", "attn_implementation", "_attn_implementation")
"""Keys by which a configuration makes transformers import or fetch something."""

_Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 24)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 12)]
_Token = Annotated[int, msgspec.Meta(ge=0, lt=1 << 24)]
_Rope = dict[str, bool | int | float | str | list[float] | None]


class DecoderConfig(msgspec.Struct, omit_defaults=True):
    """What is read of `backbone/config.json`, under the names of transformers; other keys are ignored."""

    model_type: str
    hidden_size: _Size
    intermediate_size: _Size
    num_hidden_layers: _Count
    num_attention_heads: _Count
    vocab_size: _Size
    num_key_value_heads: _Count | None = None
    head_dim: _Size | None = None
    max_position_embeddings: _Size | None = None
    hidden_act: Literal["silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu"] = "silu"
    rms_norm_eps: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    initializer_range: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    attention_bias: bool | None = None
    mlp_bias: bool | None = None
    rope_parameters: _Rope | None = None
    rope_theta: float | None = None
    rope_scaling: _Rope | None = None
    sliding_window: _Size | None = None
    use_sliding_window: bool | None = None
    max_window_layers: Annotated[int, msgspec.Meta(ge=0, le=1 << 12)] | None = None
    layer_types: list[str] | None = None
    tie_word_embeddings: bool | None = None
    pad_token_id: _Token | None = None
    bos_token_id: _Token | list[_Token] | None = None
    eos_token_id: _Token | list[_Token] | None = None

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and values; as many as of queries where not told."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_width(self) -> int:
        """Dimension of a head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads


def read_decoder_config(folder: Path) -> DecoderConfig:
    """The configuration of the decoder in a folder.

    Raises:
        UnsupportedBackbone: another family, or a key that leads to code or files elsewhere.
        ValueError: a value is missing, of the wrong type or out of bounds.
    """
    content = (folder / "config.json").read_bytes()
    parts = msgspec.json.decode(content, type=dict[str, Any])
    for key in _LEADING_ELSEWHERE:
        if parts.get(key) is not None:
            raise UnsupportedBackbone(f"backbone/config.json holds {key}, which a bundle may not")
    if parts.get("model_type") not in FAMILIES:
        raise UnsupportedBackbone(
            f"backbone of type {parts.get('model_type')!r:.60}; supported are {', '.join(FAMILIES)}"
        )
    return msgspec.json.decode(content, type=DecoderConfig)


def load_saved_backbone(folder: Path, decoder: DecoderConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The decoder saved in a folder, its weights complete and of the configured shapes.

    Raises:
        UnsupportedBackbone: weights are missing, left over, or of other shapes.
        ValueError: the configuration does not fit the weights.
    """
    check_shapes(declared_shapes(folder / "model.safetensors"), _sizes(decoder))
    config_class, model_class = (getattr(transformers, name) for name in _CLASSES[decoder.model_type])
    told = {name: part for name, part in msgspec.to_builtins(decoder).items() if name != "model_type"}
    with no_progress_bars():
        model, report = model_class.from_pretrained(
            str(folder),
            config=config_class(**told),
            dtype=dtype,
            attn_implementation="sdpa",
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    if wrong := sorted(str(name) for kind in _INCOMPLETE for name in report.get(kind, ())):
        raise UnsupportedBackbone(f"backbone/model.safetensors does not fit: {', '.join(wrong[:5])}")
    whole: PreTrainedModel = model
    return whole


_INCOMPLETE: Final = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")


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
