"""The exit transformer: a decoder with soft tokens as input and a click logit after several layers.

`ExitModel.forward` is the reference: plain layers on a padded batch with a tree-shaped mask. Training uses it, and
`worker.engine`, which computes the same without padding, is tested against it. The layers are transformers' own where
a model is made or comes from a checkpoint, those of `models.decoder` where it comes from a bundle.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.decoder_config import FAMILIES, UnsupportedBackbone, read_decoder_config
from models.features import FEATURES, FIRST_FEATURES
from models.prompt_batch import PromptBatch
from models.saved_backbone import check_finite, load_saved_backbone
from models.tensor_file import check_shapes, declared_shapes
from models.token_sequence import SoftKind

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from models.decoder import Decoder

_ONE_FILE: Final = "1000TB"
"""Weights are never split into several files: a bundle's files are known by name."""


@dataclass(frozen=True, slots=True)
class ExitConfig:
    """The layers that have an exit head, and the widths of soft tokens.

    Args:
        exit_layers: number of decoder layers before each head, ascending; the last is the number of all layers.
        embedding_dim: width of users' and items' embeddings.
        soft_width: columns of `TokenSequence.soft_values`.
        statistics: how many of the `FEATURES` the model reads, the leading ones. New features are added at the end, so
            a model from before them goes on with its own; its file does not name the number.
        wide: whether every head adds a part that is linear in the statistics (Wide & Deep, Cheng et al. 2016): it takes
            no layer.

    Raises:
        ValueError: the layers do not ascend, `soft_width` is too small, or there are fewer `FEATURES`.
    """

    exit_layers: tuple[int, ...]
    embedding_dim: int
    soft_width: int
    statistics: int = FIRST_FEATURES
    wide: bool = False

    def __post_init__(self) -> None:
        layers = self.exit_layers
        if not layers or layers[0] < 1 or any(low >= high for low, high in pairwise(layers)):
            raise ValueError(f"exit_layers {layers} must be positive and ascending")
        if not 1 <= self.statistics <= len(FEATURES):
            raise ValueError(f"{self.statistics} statistics where this version knows {len(FEATURES)}")
        if self.soft_width < max(self.embedding_dim, self.statistics):
            raise ValueError(
                f"soft_width {self.soft_width} is too narrow for embeddings of {self.embedding_dim} "
                f"and {self.statistics} statistics"
            )


class SoftTokens(nn.Module):
    """Projects soft tokens to input vectors: linearly for users and items, by a small network for statistics.

    Args:
        config: the widths.
        hidden: width of the backbone.
        initial_std: standard deviation of the initial weights of the linear maps.
    """

    def __init__(self, config: ExitConfig, hidden: int, initial_std: float) -> None:
        super().__init__()
        self.user = nn.Linear(config.embedding_dim, hidden)
        self.item = nn.Linear(config.embedding_dim, hidden)
        self.statistics = nn.Sequential(nn.Linear(config.statistics, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        for projection in (self.user, self.item):
            nn.init.normal_(projection.weight, std=initial_std)
            nn.init.zeros_(projection.bias)

    def forward(self, kinds: Tensor, values: Tensor) -> Tensor:
        """Input vectors (soft, hidden) of soft tokens with kinds (soft,) and values (soft, width)."""
        vectors = values.new_empty(len(kinds), self.user.out_features)
        for kind, projection, width in (
            (SoftKind.USER, self.user, self.user.in_features),
            (SoftKind.ITEM, self.item, self.item.in_features),
            (SoftKind.STATISTICS, self.statistics, self.statistics[0].in_features),
        ):
            rows = (kinds == kind).nonzero().squeeze(1)
            vectors.index_copy_(0, rows, projection(values[rows, :width]))
        return vectors


class ExitHead(nn.Module):
    """Norm, then a linear map from a hidden state to one logit."""

    def __init__(self, hidden: int, epsilon: float) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(hidden, eps=epsilon)
        self.linear = nn.Linear(hidden, 1)

    def forward(self, hidden: Tensor) -> Tensor:  # (n, hidden) -> (n,)
        """Raw logits (n,) of hidden states (n, hidden)."""
        # Heads are in float32 whatever the backbone is in.
        logits: Tensor = self.linear(self.norm(hidden.to(self.linear.weight.dtype)))
        return logits.squeeze(-1)


class ExitModel(nn.Module):
    """A decoder with soft tokens and exit heads.

    Args:
        backbone: a decoder of one of `FAMILIES`, without a language-model head.
        config: exits and widths.

    Attributes:
        recompute: whether the backward pass computes each layer's activations again instead of keeping them (gradient
            checkpointing): less memory, more time. For training; False at first.
        mixed_precision: whether layers multiply in bfloat16 what is kept in float32: less time, fewer digits. For
            training; False at first.

    Raises:
        UnsupportedBackbone: the backbone's family is unknown, or its depth is not the last exit layer.
    """

    def __init__(self, backbone: PreTrainedModel | Decoder, config: ExitConfig) -> None:
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
        self.recompute = self.mixed_precision = False
        self._saved_as: torch.dtype | None = None
        self.backbone: Any = backbone  # which parts its layers have depends on the family
        self.soft = SoftTokens(config, decoder.hidden_size, decoder.initializer_range)
        heads = [ExitHead(decoder.hidden_size, decoder.rms_norm_eps) for _ in config.exit_layers]
        heads[-1].norm.load_state_dict(backbone.norm.state_dict())
        self.heads = nn.ModuleList(heads)
        self.wide = nn.Linear(config.statistics, 1) if config.wide else None
        # Soft tokens and heads are in float32 whatever the dtype of the backbone: they cost nothing, and what they map
        # (counts, logarithms, the answer) needs its digits.

    @classmethod
    def from_config(cls, decoder: PretrainedConfig, config: ExitConfig) -> ExitModel:
        """A model with random weights."""
        from transformers import AutoModel  # noqa: PLC0415 - see `models.decoder`

        return cls(AutoModel.from_config(decoder, attn_implementation="sdpa"), config)

    @classmethod
    def from_pretrained(
        cls, path_or_hub_name: str, config: ExitConfig, lora: str | None = None, dtype: torch.dtype = torch.float32
    ) -> ExitModel:
        """A model on any Hugging Face checkpoint of the families; soft tokens and heads have random weights.

        Args:
            path_or_hub_name: a local folder or a name on the hub.
            config: exits and widths.
            lora: folder or hub name of a LoRA adapter to merge into the weights (needs the extra `lora`).
            dtype: number format of the weights in memory.

        Raises:
            UnsupportedBackbone: the checkpoint is of another family, or the adapter does not fit it.
        """
        from models.backbone import load_backbone  # noqa: PLC0415 - imports transformers

        return cls(load_backbone(path_or_hub_name, lora, dtype), config)

    def round_backbone(self, dtype: torch.dtype) -> None:
        """Round the backbone's weights to what `dtype` can hold, and save them in it from now on. In memory they keep
        their format; and constants, such as the angles of positions, all their digits.
        """
        self._saved_as = dtype
        with torch.no_grad():
            for weight in self.backbone.parameters():
                weight.copy_(weight.to(dtype))

    def save(self, folder: Path) -> None:
        """Write `backbone/` (in the format of transformers), `exits.safetensors` and `exits.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: part.to(self._saved_as or part.dtype) for name, part in self.backbone.state_dict().items()}
        self.backbone.save_pretrained(folder / "backbone", state_dict=weights, max_shard_size=_ONE_FILE)
        ours = {name: part.contiguous() for name, part in self.state_dict().items() if not _is_backbone(name)}
        save_file(ours, str(folder / "exits.safetensors"))
        (folder / "exits.json").write_text(json.dumps(asdict(self.config), indent=1))

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype = torch.float32) -> ExitModel:
        """Read what `save` wrote; the model is in evaluation mode.

        Nothing is computed or allocated before the files' headers are seen to hold what `config.json` and `exits.json`
        promise; no code of the folder is run, and nothing is asked of the hub.

        Raises:
            UnsupportedBackbone: the weights have other names or shapes than this version's, or are not finite.
            ValueError: a file is malformed.
        """
        config = msgspec.json.decode((folder / "exits.json").read_bytes(), type=ExitConfig)
        decoder = read_decoder_config(folder / "backbone")
        _check_exits(folder / "exits.safetensors", config, decoder.hidden_size)
        model = cls(load_saved_backbone(folder / "backbone", decoder, dtype), config)
        ours = load_file(str(folder / "exits.safetensors"))
        expected = {name for name in model.state_dict() if not _is_backbone(name)}
        if set(ours) != expected:
            raise UnsupportedBackbone(f"{folder}/exits.safetensors does not fit: {sorted(set(ours) ^ expected)}")
        try:
            model.load_state_dict(ours, strict=False)
        except RuntimeError as error:
            raise UnsupportedBackbone(f"{folder}/exits.safetensors does not fit: {error}") from error
        check_finite(model)
        return model.eval()

    def embed(
        self,
        token_ids: Tensor,
        soft_index: Tensor,
        soft_kinds: Tensor,
        soft_values: Tensor,
        added_ids: Tensor,
        added_index: Tensor,
    ) -> Tensor:
        """Input vectors of tokens: words are looked up, soft tokens projected. Where soft tokens and added words are, a
        token's vector is their sum.

        Args:
            token_ids: (tokens,).
            soft_index: (soft,) positions of the soft tokens.
            soft_kinds: (soft,) `SoftKind` codes.
            soft_values: (soft, width).
            added_ids: (added,).
            added_index: (added,) positions of the added words.

        Returns:
            (tokens, hidden).
        """
        look_up = self.backbone.embed_tokens
        words: Tensor = look_up(token_ids)
        soft = self.soft(soft_kinds, soft_values.to(self.soft.item.weight.dtype)).to(words.dtype)
        words = words.index_fill_(0, torch.cat([soft_index, added_index]), 0.0)
        return words.index_add_(0, soft_index, soft).index_add_(0, added_index, look_up(added_ids))

    @property
    def is_silent(self) -> bool:
        """Whether the heads add nothing to the regression on the statistics, whatever the layers compute."""
        heads = [head for head in self.heads if isinstance(head, ExitHead)]
        return self.wide is not None and not any(part.any() for head in heads for part in head.linear.parameters())

    def forward(self, batch: PromptBatch) -> Tensor:
        """Raw logits (candidates, heads); candidates by prompt, then in the order of its suffixes."""
        vectors = self.embed(*batch.inputs)
        hidden = vectors.view(*batch.token_ids.shape, -1)  # (prompts, length, hidden)
        rotation = self.backbone.rotary_emb(hidden, position_ids=batch.positions)
        exits = dict(zip(self.config.exit_layers, self.heads, strict=True))
        logits = []
        for depth, layer in enumerate(self.backbone.layers, start=1):
            run = partial(layer, attention_mask=batch.mask, position_ids=batch.positions, position_embeddings=rotation)
            with torch.autocast(hidden.device.type, torch.bfloat16, enabled=self.mixed_precision):
                again = self.recompute and self.training
                hidden = checkpoint(run, hidden, use_reentrant=False) if again else run(hidden)
            if depth in exits:
                logits.append(exits[depth](hidden.flatten(0, 1)[batch.answer_index]))
        deep = torch.stack(logits, dim=1)
        return deep if self.wide is None else deep + self.wide(self._statistics(batch))

    def _statistics(self, batch: PromptBatch) -> Tensor:  # (candidates, statistics)
        """Each suffix has one such token, in the order of the candidates."""
        return batch.soft_values[batch.soft_kinds == SoftKind.STATISTICS][:, : self.config.statistics]


def _check_exits(path: Path, config: ExitConfig, hidden: int) -> None:
    """Check soft tokens and heads against the configuration, whose numbers decide how much is allocated for them."""
    declared = declared_shapes(path)
    widths = {f"soft.{kind}.weight": (hidden, config.embedding_dim) for kind in ("user", "item")}
    check_shapes(declared, widths | {f"heads.{len(config.exit_layers) - 1}.norm.weight": (hidden,)})


def _is_backbone(name: str) -> bool:
    return name.startswith("backbone.")
