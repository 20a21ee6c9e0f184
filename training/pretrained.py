"""A model on pre-trained weights: which parameters train, in which format, and how it becomes plain weights again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from models.checkpoint import Checkpoint, default_exits
from models.exit_model import ExitConfig, ExitModel
from models.features import FEATURES
from runtime.errors import CheckpointError, MissingDependency
from training.words_in_use import Words, WordsInUse

_WORDS: Final = "backbone.embed_tokens.weight"
_LORA_TARGETS: Final = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True, slots=True)
class PretrainedOptions:
    """How to train from pre-trained weights."""

    where: str
    """A Hugging Face folder or name, a GGUF file, or `smollm2`."""
    layers: int | None = None
    """How many decoder layers are kept, from the first; None: all."""
    exit_after: tuple[int, ...] = ()
    """Layers with an exit head; empty: about four, evenly spaced."""
    lora: int = 0
    """Rank of the adapters on attention and MLP projections; 0 trains all weights, word embeddings included."""
    dtype: str = "auto"
    """Format in which layers compute while they train: float32, bfloat16, or auto: bfloat16 where the processor or GPU
    computes with it. Frozen weights are kept in it too; what trains is kept in float32."""
    saved_as: str = "float32"
    """Format of the layers and words in the bundle: float32, or bfloat16 for a file of half the size."""
    checkpointing: bool = False
    """Compute a layer's activations again in the backward pass: less memory, about a third more time."""
    rate_of_new: float = 1e-3
    """Learning rate of soft tokens, heads and wide part, which no checkpoint has."""
    rate_of_words: float = 1e-3
    """Learning rate of the word embeddings. A step meets few of them, and each of these seldom."""
    rate_of_lora: float = 1e-3
    rate_of_full: float = 3e-4
    step_candidates: int | None = 48
    """Candidates of a step and process, about: with larger steps there are too few to learn anything in. None takes as
    many as `batch_tokens` of the preset hold, which are the most in any case."""
    save_every_minutes: float = 10.0

    def compute_dtype(self, device: torch.device) -> torch.dtype:
        """The format in which layers compute on the device that trains.

        Raises:
            CheckpointError: an unknown format, also of what is saved.
        """
        if self.saved_as not in {"float32", "bfloat16"}:
            raise CheckpointError(f"--save-as {self.saved_as} is unknown; give float32 or bfloat16")
        if self.dtype not in {"auto", "float32", "bfloat16"}:
            raise CheckpointError(f"--dtype {self.dtype} is unknown; give auto, float32 or bfloat16")
        wanted = self.dtype == "bfloat16" or (self.dtype == "auto" and _has_bfloat16(device))
        return torch.bfloat16 if wanted else torch.float32

    def weights_dtype(self, compute_dtype: torch.dtype) -> torch.dtype:
        """The format in which the checkpoint's weights are kept: that of computing where they are frozen."""
        return compute_dtype if self.lora else torch.float32


class PretrainedModel:
    """An exit model on pre-trained weights, ready to train.

    Args:
        checkpoint: the weights.
        options: which of them train, and where the heads are.
        embedding_dim: dimension of users' and items' embeddings.
        compute_dtype: in which layers compute.

    Attributes:
        model: trains those parameters that require gradients.
        size: number of parameters, adapters included.

    Raises:
        CheckpointError: the exits do not fit the layers.
        MissingDependency: LoRA without the package peft.
    """

    def __init__(
        self, checkpoint: Checkpoint, options: PretrainedOptions, embedding_dim: int, compute_dtype: torch.dtype
    ) -> None:
        backbone = checkpoint.model
        layers = backbone.config.num_hidden_layers
        exits = options.exit_after or default_exits(layers)
        try:
            config = ExitConfig(exits, embedding_dim, max(embedding_dim, len(FEATURES)), len(FEATURES), wide=True)
            self.model = ExitModel(backbone, config)
        except ValueError as error:
            raise CheckpointError(f"--exit-after {','.join(map(str, exits))}: {error}") from error
        self._options = options
        _scale_soft_tokens(self.model)
        self._adapted = _with_lora(backbone, options.lora) if options.lora else None
        self._words: WordsInUse | None = None
        backbone.norm.requires_grad_(requires_grad=False)  # the heads have norms of their own; this one is unused
        self.model.recompute = options.checkpointing
        self.model.mixed_precision = compute_dtype != options.weights_dtype(compute_dtype)
        self.size = sum(part.numel() for part in self.model.parameters())

    @property
    def trains_words(self) -> bool:
        """Whether word embeddings train."""
        return not self._options.lora

    def train_words(self, words: Words) -> None:
        """Train only these rows (ids, ascending) of the table of word embeddings; without a call, all of them."""
        self._words = WordsInUse(self.model.backbone.embed_tokens, words)
        self.model.backbone.embed_tokens = self._words

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that train, by name."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def parameter_groups(self, weight_decay: float) -> Iterator[dict[str, Any]]:
        """Groups for the optimiser: what is new learns faster than what is not; vectors and words do not decay."""
        rates: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, part in self.trained().items():
            decays = part.ndim > 1 and name != _WORDS
            rates.setdefault((self._rate_of(name), weight_decay if decays else 0.0), []).append(part)
        for (rate, decay), parts in rates.items():
            yield {"params": parts, "lr": rate, "weight_decay": decay}

    def _rate_of(self, name: str) -> float:
        options = self._options
        if not name.startswith("backbone."):
            return options.rate_of_new
        if name == _WORDS:
            return options.rate_of_words
        return options.rate_of_lora if options.lora else options.rate_of_full

    def finished(self) -> ExitModel:
        """The model on the CPU, in float32, with adapters merged into its weights: serving pays nothing for them. With
        `saved_as`, its numbers are those that the file will hold.
        """
        self.model.recompute = self.model.mixed_precision = False
        backbone = self.model.cpu().backbone
        if self._words is not None:
            backbone.embed_tokens = self._words.merged()
        backbone.float()
        if self._adapted is not None:
            self._adapted.merge_and_unload()
        backbone.config.dtype = torch.float32
        if self._options.saved_as == "bfloat16":
            self.model.round_backbone(torch.bfloat16)  # now: what is calibrated and evaluated is what will be loaded
        return self.model.requires_grad_(requires_grad=True).eval()


def _scale_soft_tokens(model: ExitModel) -> None:
    """Start soft tokens at the scale of the checkpoint's word embeddings, which its first layer is used to.

    Embeddings of users and items have entries near 1/√dim, so a row of the projection adds up to about its own scale.
    """
    with torch.no_grad():
        scale = float(model.backbone.embed_tokens.weight.float().std())
        for projection in (model.soft.user, model.soft.item):
            nn.init.normal_(projection.weight, std=scale)
        statistics: Any = model.soft.statistics  # nn.Sequential tells mypy nothing about its parts
        last = statistics[-1]
        probe = statistics[:-1](torch.randn(256, len(FEATURES), dtype=last.weight.dtype))
        last.weight.mul_(scale / max(float((probe @ last.weight.T).std()), 1e-6))
        last.bias.zero_()


def _with_lora(backbone: nn.Module, rank: int) -> Any:  # noqa: ANN401 - peft has no types
    try:
        from peft import LoraConfig, LoraModel  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise MissingDependency(
            "LoRA takes the package peft: pip install 'exitstream[pretrained]', or train all weights with --lora 0"
        ) from error
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=_LORA_TARGETS)
    # The tuner itself, without peft's wrapper around models that it saves: it asks transformers for what is deprecated.
    adapted = LoraModel(backbone, config, "default")  # changes the backbone in place: frozen, with adapters
    for parameter in backbone.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        flags = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags
