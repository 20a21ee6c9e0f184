"""The numbers that describe a decoder, as a bundle's `backbone/config.json` tells them under the names of transformers.

That file is not trusted, and transformers never sees it: a configuration can name code to run (`auto_map`), kernels or
quantisers to fetch, or sizes that exhaust memory. Only the numbers listed here are read, each within bounds.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec

if TYPE_CHECKING:
    from transformers import PretrainedConfig

FAMILIES: Final = ("llama", "mistral", "qwen2", "qwen3")
"""Model types whose decoder layers `models.decoder` and `worker.engine` compute."""

_LEADING_ELSEWHERE: Final = ("auto_map", "quantization_config", "attn_implementation", "_attn_implementation")
"""Keys by which a configuration makes transformers import or fetch something."""

_POSITIONS: Final = {"llama": 2_048, "mistral": 131_072, "qwen2": 32_768, "qwen3": 32_768}
"""Longest text where a file does not tell."""
_Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 24)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 12)]
_Token = Annotated[int, msgspec.Meta(ge=0, lt=1 << 24)]
_Rope = dict[str, bool | int | float | str | list[float] | None]


class UnsupportedBackbone(ValueError):
    """The checkpoint is of an unsupported family, or does not fit the exits or the adapter."""


class DecoderConfig(msgspec.Struct, omit_defaults=True):
    """What is read of `backbone/config.json`; other keys are ignored. Defaults are those of transformers."""

    model_type: Literal["llama", "mistral", "qwen2", "qwen3"]
    hidden_size: _Size
    intermediate_size: _Size
    num_hidden_layers: _Count
    num_attention_heads: _Count
    vocab_size: _Size
    num_key_value_heads: _Count | None = None
    head_dim: _Size | None = None
    max_position_embeddings: _Size | None = None
    hidden_act: Literal["silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu"] = "silu"
    rms_norm_eps: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1e-6
    initializer_range: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.02
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

    def __post_init__(self) -> None:
        """Fill in what the family's configuration class in transformers would.

        Raises:
            ValueError: the heads of keys and values do not divide those of queries.
        """
        self.num_key_value_heads, self.head_dim = self.key_value_heads, self.head_width
        if self.num_attention_heads % self.key_value_heads:
            raise ValueError(f"{self.num_key_value_heads} num_key_value_heads do not divide {self.num_attention_heads}")
        self.max_position_embeddings = self.max_position_embeddings or _POSITIONS[self.model_type]
        self.rope_parameters, self.rope_scaling = self.rope, None
        if self.model_type.startswith("qwen"):
            self._set_windows()

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and values; as many as of queries where not told."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_width(self) -> int:
        """Dimension of a head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def query_bias(self) -> bool:
        """Whether the projections to queries, keys and values have a bias."""
        return self.model_type == "qwen2" or self.output_bias

    @property
    def output_bias(self) -> bool:
        """Whether the projection of what attention gives has a bias."""
        return self.model_type in ("llama", "qwen3") and bool(self.attention_bias)

    @property
    def gate_bias(self) -> bool:
        """Whether the projections of the MLP have a bias."""
        return self.model_type == "llama" and bool(self.mlp_bias)

    @property
    def rope(self) -> _Rope:
        """How positions are encoded: `rope_type`, `rope_theta` and what the type needs. Files from before transformers
        5 tell the base and the scaling apart, and call the type `type`.
        """
        told = dict(self.rope_parameters or self.rope_scaling or {})
        told["rope_type"] = told.get("rope_type") or told.pop("type", None) or "default"
        told.setdefault("rope_theta", self.rope_theta or 10_000.0)
        return told

    def for_transformers(self) -> PretrainedConfig:
        """The same in the family's configuration class. It imports transformers, which takes seconds."""
        from transformers import AutoConfig  # noqa: PLC0415 - see `models.decoder`

        told = {name: part for name, part in msgspec.to_builtins(self).items() if name != "model_type"}
        return AutoConfig.for_model(self.model_type, **told)

    def _set_windows(self) -> None:
        if not self.use_sliding_window:
            self.sliding_window = None
        if self.layer_types is None:
            full = self.num_hidden_layers if self.sliding_window is None else self._full_layers()
            sliding = self.num_hidden_layers - full
            self.layer_types = ["full_attention"] * full + ["sliding_attention"] * sliding

    def _full_layers(self) -> int:
        first_sliding = 28 if self.max_window_layers is None else self.max_window_layers
        return min(first_sliding, self.num_hidden_layers)


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
