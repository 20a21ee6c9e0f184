"""A random start in the layers of a checkpoint: what pre-trained weights are compared with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModel, PreTrainedTokenizerFast

from models.backbone import no_progress_bars
from models.checkpoint import open_checkpoint
from training.pretrained import PretrainedOptions


def random_start(options: PretrainedOptions, folder: Path, seed: int) -> PretrainedOptions:
    """Options to train the same layers from random weights, which are written to the folder.

    Tokenizer, exits and everything else stay the same; all weights train, since adapters alone could not teach random
    layers anything.

    Raises:
        CheckpointError: the weights to compare with cannot be used.
        MissingDependency: a package that they take is not installed.
    """
    checkpoint = open_checkpoint(options.where, options.layers)
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    with no_progress_bars():
        AutoModel.from_config(checkpoint.model.config).save_pretrained(folder)
    tokenizer = Tokenizer.from_str(checkpoint.text.content.decode())
    start = checkpoint.text.start_tokens
    names = {"bos_token": tokenizer.id_to_token(start[0])} if start else {}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return replace(options, where=str(folder), layers=None, lora=0)
