"""The exit transformer: a Hugging Face decoder, soft tokens going in, a click logit coming out after several layers.

`ExitModel.forward` is the plain way to compute it: transformers' own layers, a padded batch, a tree-shaped mask.
It is what training trains and what `worker.engine`, which computes the same without padding, is tested against.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from models.features import FEATURES
from models.prompt import Prompt, SoftKind

FAMILIES: Final = ("llama", "mistral", "qwen2", "qwen3")
"""Model types whose decoder layers `worker.engine` computes."""


class UnsupportedBackbone(ValueError):
    """The checkpoint is not one of the families, or does not fit the exits. The text says what and what to use."""


@dataclass(frozen=True, slots=True)
class ExitConfig:
    """Where the exits are and how wide the soft tokens' numbers come.

    Args:
        exit_layers: number of decoder layers that are run before each head, ascending; the last equals all layers.
        embedding_dim: width of users' and items' embeddings.
        soft_width: columns of `TokenSequence.soft_values`.

    Raises:
        ValueError: the layers do not ascend, or the soft tokens' numbers do not fit their columns.
    """

    exit_layers: tuple[int, ...]
    embedding_dim: int
    soft_width: int

    def __post_init__(self) -> None:
        layers = self.exit_layers
        if not layers or layers[0] < 1 or any(low >= high for low, high in pairwise(layers)):
            raise ValueError(f"exit_layers {layers} must be positive and ascending")
        if self.soft_width < max(self.embedding_dim, len(FEATURES)):
            raise ValueError(
                f"soft_width {self.soft_width} is too narrow for embeddings of {self.embedding_dim} "
                f"and {len(FEATURES)} statistics"
            )


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """Prompts as padded rows, one each: the prefix, then all suffixes, whose positions go on at the prefix's end."""

    token_ids: Tensor  # (prompts, length) int64, 0 where soft or padding
    positions: Tensor  # (prompts, length) int64
    mask: Tensor  # (prompts, 1, length, length) bool: may this query see this key
    soft_index: Tensor  # (soft,) int64 into the flattened rows
    soft_kinds: Tensor  # (soft,) int64
    soft_values: Tensor  # (soft, width) float32
    answer_index: Tensor  # (candidates,) int64 into the flattened rows: each suffix's last token

    def to(self, device: torch.device | str) -> PromptBatch:
        """The same batch on another device."""
        return replace(self, **{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def collate(prompts: Sequence[Prompt]) -> PromptBatch:
    """Lay prompts out as a padded batch. Rows of similar length waste least."""
    length = max(prompt.tokens for prompt in prompts)
    token_ids = torch.zeros(len(prompts), length, dtype=torch.int64)
    positions = torch.zeros(len(prompts), length, dtype=torch.int64)
    segments = torch.full((len(prompts), length), -1)  # 0: prefix, 1..: suffixes, -1: padding
    soft_index, soft_kinds, soft_values, answers = [], [], [], []
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
        answer_index=torch.tensor(answers, dtype=torch.int64),
    )


def _tree_mask(segments: Tensor) -> Tensor:  # (prompts, length) -> (prompts, 1, length, length)
    """A token sees the prefix and its own segment up to itself; padding sees padding, so that no row is empty."""
    length = segments.shape[1]
    queries, keys = segments[:, :, None], segments[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return (causal & ((keys == queries) | ((keys == 0) & (queries > 0))))[:, None]


class SoftTokens(nn.Module):
    """Numbers into input vectors: a linear map for users and for items, a small network for a candidate's statistics.

    Args:
        config: the widths.
        hidden: width of the backbone.
        initial_std: standard deviation that the backbone's word embeddings start with.
    """

    def __init__(self, config: ExitConfig, hidden: int, initial_std: float) -> None:
        super().__init__()
        self.user = nn.Linear(config.embedding_dim, hidden)
        self.item = nn.Linear(config.embedding_dim, hidden)
        self.statistics = nn.Sequential(nn.Linear(len(FEATURES), hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        for projection in (self.user, self.item):
            nn.init.normal_(projection.weight, std=initial_std)
            nn.init.zeros_(projection.bias)

    def forward(self, kinds: Tensor, values: Tensor) -> Tensor:
        """Input vectors (soft, hidden) of soft tokens with kinds (soft,) and numbers (soft, width)."""
        vectors = values.new_empty(len(kinds), self.user.out_features)
        for kind, projection, width in (
            (SoftKind.USER, self.user, self.user.in_features),
            (SoftKind.ITEM, self.item, self.item.in_features),
            (SoftKind.STATISTICS, self.statistics, len(FEATURES)),
        ):
            rows = (kinds == kind).nonzero().squeeze(1)
            vectors.index_copy_(0, rows, projection(values[rows, :width]))
        return vectors


class ExitHead(nn.Module):
    """Reads the answer off a hidden state: norm, then one logit."""

    def __init__(self, hidden: int, epsilon: float) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(hidden, eps=epsilon)
        self.linear = nn.Linear(hidden, 1)

    def forward(self, hidden: Tensor) -> Tensor:  # (n, hidden) -> (n,)
        """Raw logits of hidden states."""
        logits: Tensor = self.linear(self.norm(hidden))
        return logits.squeeze(-1)


class ExitModel(nn.Module):
    """A decoder with soft tokens and exit heads.

    Args:
        backbone: a transformers decoder of one of `FAMILIES`, without a language-model head.
        config: exits and widths.

    Raises:
        UnsupportedBackbone: the backbone's family is unknown, or its depth is not the last exit layer.
    """

    def __init__(self, backbone: PreTrainedModel, config: ExitConfig) -> None:
        super().__init__()
        decoder = backbone.config
        if decoder.model_type not in FAMILIES:
            raise UnsupportedBackbone(f"backbone of type {decoder.model_type!r}; supported are {', '.join(FAMILIES)}")
        if config.exit_layers[-1] != decoder.num_hidden_layers:
            raise UnsupportedBackbone(
                f"the last of exit_layers {config.exit_layers} must be {decoder.num_hidden_layers}, "
                f"the backbone's number of layers"
            )
        self.config = config
        self.backbone = backbone
        self.soft = SoftTokens(config, decoder.hidden_size, decoder.initializer_range)
        heads = [ExitHead(decoder.hidden_size, decoder.rms_norm_eps) for _ in config.exit_layers]
        heads[-1].norm.load_state_dict(backbone.norm.state_dict())
        self.heads = nn.ModuleList(heads)
        # Not self.to(...): the backbone's rotary frequencies stay in float32 whatever its weights are in.
        self.soft.to(backbone.dtype)
        self.heads.to(backbone.dtype)

    @classmethod
    def from_config(cls, decoder: PretrainedConfig, config: ExitConfig) -> ExitModel:
        """A model with random weights."""
        return cls(AutoModel.from_config(decoder, attn_implementation="sdpa"), config)

    @classmethod
    def from_pretrained(
        cls, path_or_hub_name: str, config: ExitConfig, lora: str | None = None, dtype: torch.dtype = torch.float32
    ) -> ExitModel:
        """A model over the weights of any Hugging Face checkpoint of the families; soft tokens and heads start fresh.

        Args:
            path_or_hub_name: a local folder or a name on the hub.
            config: exits and widths.
            lora: folder or hub name of a LoRA adapter, merged into the weights here (needs the extra `lora`).
            dtype: number format of the weights in memory.

        Raises:
            UnsupportedBackbone: the checkpoint is of another family, or the adapter does not fit it.
        """
        family = AutoConfig.from_pretrained(path_or_hub_name).model_type
        if family not in FAMILIES:
            raise UnsupportedBackbone(f"{path_or_hub_name} is a {family!r}; supported are {', '.join(FAMILIES)}")
        with _no_progress_bars():
            if lora is not None:
                return cls(_merged_with_adapter(path_or_hub_name, lora, dtype), config)
            return cls(AutoModel.from_pretrained(path_or_hub_name, dtype=dtype, attn_implementation="sdpa"), config)

    def save(self, folder: Path) -> None:
        """Write `backbone/` (as transformers reads it), `exits.safetensors` and `exits.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        with _no_progress_bars():
            self.backbone.save_pretrained(folder / "backbone")
        ours = {name: part.contiguous() for name, part in self.state_dict().items() if not _is_backbone(name)}
        save_file(ours, str(folder / "exits.safetensors"))
        (folder / "exits.json").write_text(json.dumps(asdict(self.config), indent=1))

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype = torch.float32) -> ExitModel:
        """What `save` wrote, in evaluation mode.

        Raises:
            UnsupportedBackbone: soft tokens or heads were saved by another layout of this model.
        """
        parts = json.loads((folder / "exits.json").read_text())
        config = ExitConfig(**{**parts, "exit_layers": tuple(parts["exit_layers"])})
        model = cls.from_pretrained(str(folder / "backbone"), config, dtype=dtype)
        ours = load_file(str(folder / "exits.safetensors"))
        expected = {name for name in model.state_dict() if not _is_backbone(name)}
        if set(ours) != expected:
            raise UnsupportedBackbone(f"{folder}/exits.safetensors does not fit: {sorted(set(ours) ^ expected)}")
        try:
            model.load_state_dict(ours, strict=False)
        except RuntimeError as error:
            raise UnsupportedBackbone(f"{folder}/exits.safetensors does not fit: {error}") from error
        return model.eval()

    def embed(self, token_ids: Tensor, soft_index: Tensor, soft_kinds: Tensor, soft_values: Tensor) -> Tensor:
        """Input vectors of tokens, words looked up and soft tokens projected.

        Args:
            token_ids: (tokens,).
            soft_index: (soft,) which of the tokens are soft.
            soft_kinds: (soft,) `SoftKind` codes.
            soft_values: (soft, width).

        Returns:
            (tokens, hidden).
        """
        words: Tensor = self.backbone.embed_tokens(token_ids)
        soft = self.soft(soft_kinds, soft_values.to(self.soft.item.weight.dtype))
        return words.index_copy_(0, soft_index, soft.to(words.dtype))

    def forward(self, batch: PromptBatch) -> Tensor:
        """Raw logits (candidates, heads), candidates in order of prompts, then suffixes."""
        vectors = self.embed(batch.token_ids.flatten(), batch.soft_index, batch.soft_kinds, batch.soft_values)
        hidden = vectors.view(*batch.token_ids.shape, -1)  # (prompts, length, hidden)
        rotation = self.backbone.rotary_emb(hidden, position_ids=batch.positions)
        exits = dict(zip(self.config.exit_layers, self.heads, strict=True))
        logits = []
        for depth, layer in enumerate(self.backbone.layers, start=1):
            hidden = layer(
                hidden, attention_mask=batch.mask, position_ids=batch.positions, position_embeddings=rotation
            )
            if depth in exits:
                logits.append(exits[depth](hidden.flatten(0, 1)[batch.answer_index]))
        return torch.stack(logits, dim=1)


def _is_backbone(name: str) -> bool:
    return name.startswith("backbone.")


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """A worker's log is no terminal: transformers' bars off, and back as they were."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _merged_with_adapter(path_or_hub_name: str, lora: str, dtype: torch.dtype) -> PreTrainedModel:
    """The backbone with the adapter's changes folded into its weights: no cost per token."""
    from peft import PeftConfig, PeftModel  # noqa: PLC0415 - an optional extra

    # An adapter's tensors are named after the class that it was trained on.
    whole = PeftConfig.from_pretrained(lora).task_type == "CAUSAL_LM"
    loader = AutoModelForCausalLM if whole else AutoModel
    model = loader.from_pretrained(path_or_hub_name, dtype=dtype, attn_implementation="sdpa")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            merged = PeftModel.from_pretrained(model, lora).merge_and_unload()
        except UserWarning as error:
            raise UnsupportedBackbone(f"the adapter {lora} does not fit {path_or_hub_name}: {error}") from error
    return merged.model if whole else merged
