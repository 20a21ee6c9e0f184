"""Trains the exit transformer from scratch: all heads jointly, with distillation from the deepest to the others.

As in OptiRAG-Rec (arXiv 2501.02173), every head has its own loss, and shallow layers have a higher learning rate.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig

from models.exit_model import ExitConfig, ExitModel
from models.features import FEATURES
from models.prompt_batch import PromptBatch, collate
from models.token_sequence import SoftKind
from training.batches import as_shards, batches, planned
from training.best_epoch import BestEpoch, labels_of
from training.regression import Regression, begin_together, share_in_words
from training.replay import Example


@dataclass(frozen=True, slots=True)
class ExitOptions:
    """Size of the model, and hyperparameters of its training."""

    hidden: int = 96
    intermediate: int = 256
    attention_heads: int = 4
    exit_layers: tuple[int, ...] = (1, 2, 4)
    initial_std: float = field(default=0.02, repr=False)
    """Standard deviation of the initial weights. Only a training from scratch reads it: it is no part of what
    identifies one from pre-trained weights, which may go on."""
    epochs: int = 3
    patience: int = 1
    """So many epochs in a row without improvement end the training."""
    batch_tokens: int = 8_192
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    depth_decay: float = 0.85
    """Learning rate of a layer, as a share of that of the layer before it."""
    warm_up: float = 0.06
    """Share of the steps over which the learning rate rises."""
    distillation: float = 0.3
    """Weight of the deepest head's answer, against the label, in the targets of the other heads."""
    embedding_dropout: float = 0.1
    """Share of users' and items' soft tokens that are replaced by unknown ones in training, for cold starts."""
    word_dropout: float = 0.1
    """Share of words that are replaced by token 0 in training."""
    averaging: float = 0.995
    """Decay of the moving average of the weights; the average is the result."""


def new_model(options: ExitOptions, vocabulary: int, embedding_dim: int) -> ExitModel:
    """A Llama with random weights and heads after `exit_layers`."""
    decoder = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=options.hidden,
        intermediate_size=options.intermediate,
        num_hidden_layers=options.exit_layers[-1],
        num_attention_heads=options.attention_heads,
        num_key_value_heads=options.attention_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        use_cache=False,
        initializer_range=options.initial_std,
    )
    exits = ExitConfig(options.exit_layers, embedding_dim, max(embedding_dim, len(FEATURES)), len(FEATURES), wide=True)
    return ExitModel.from_config(decoder, exits)


def train_exits(
    model: ExitModel,
    examples: Sequence[Example],
    validation: Sequence[Example],
    options: ExitOptions,
    seed: int,
    on_step: Callable[[int, str], None] = lambda _candidates, _note: None,
    say: Callable[[str], None] = lambda _line: None,
) -> ExitModel:
    """The model after the epoch with the lowest validation loss; stops after `patience` epochs without improvement.

    With each epoch's answer that of the regression on the statistics is mixed as is best for the validation examples;
    it is the regression alone where no epoch is better.

    Args:
        model: to train; changed in place.
        examples: to train on.
        validation: for early stopping, and for the share of the regression.
        options: hyperparameters.
        seed: of shuffling and dropout, and of the heads' initial weights.
        on_step: called after each batch with its number of candidates and a note about the loss.
        say: told what share of the regression was mixed in.
    """
    regression = None if model.wide is None else Regression.fitted(examples, model.config.statistics)
    regression_logits = None if regression is None else regression.logits(validation)
    epochs = BestEpoch(labels_of(validation), regression_logits, options.patience)
    begin_together(model, seed)
    best = copy.deepcopy(model.state_dict())
    random = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(_parameter_groups(model, options), betas=(0.9, 0.98))
    rates = [group["lr"] for group in optimiser.param_groups]
    plan = planned(as_shards(examples).tokens, options.batch_tokens, np.random.default_rng(seed))
    steps = options.epochs * sum(1 for _ in plan)
    average, step = copy.deepcopy(model), 0
    for _ in range(options.epochs):
        model.train()
        for batch in batches(examples, options.batch_tokens, random):
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * schedule(min(step / steps, 1.0), options.warm_up)
            loss = _step(model, optimiser, batch, options, random)
            _follow(average, model, min(options.averaging, (1 + step) / (10 + step)))
            step += 1
            on_step(sum(len(example) for example in batch), f"loss {loss:.4f}")
        if epochs.take(predict(average, validation, options.batch_tokens)[:, -1]):
            best = copy.deepcopy(average.state_dict())
        if epochs.is_over:
            break
    model.load_state_dict(best)
    if regression is not None:
        regression.mix_into(model, epochs.share)
        say(share_in_words(epochs.share))
    return model.eval()


def schedule(progress: float, warm_up: float) -> float:
    """Learning rate as a share of the highest: linear warm-up, then cosine decay to a hundredth."""
    if progress < warm_up:
        return (progress + 1e-3) / (warm_up + 1e-3)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))


def predict(
    model: ExitModel,
    examples: Sequence[Example],
    batch_tokens: int = 16_384,
    advance: Callable[[int], object] = lambda _examples: None,
) -> np.ndarray:
    """Raw logits (candidates, heads) of all candidates, in the order of the examples; `advance` counts these."""
    rows = np.cumsum([0, *(len(example) for example in examples)])
    place = {id(example): at for at, example in enumerate(examples)}
    logits = np.empty((rows[-1], len(model.heads)), np.float32)
    model.eval()
    device = next(model.parameters()).device
    with torch.inference_mode():
        for batch in batches(examples, batch_tokens):
            answers = model(collate([example.prompt for example in batch]).to(device)).cpu().numpy()
            where = np.concatenate([np.arange(rows[at], rows[at + 1]) for at in (place[id(e)] for e in batch)])
            logits[where] = answers
            advance(len(batch))
    return logits


def _parameter_groups(model: ExitModel, options: ExitOptions) -> Iterator[dict[str, object]]:
    """Parameter groups: per layer, matrices with weight decay and vectors without."""
    depths: dict[int, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        depths.setdefault(_depth(name, model.config.exit_layers), []).append(parameter)
    for depth, parameters in depths.items():
        rate = options.learning_rate * options.depth_decay**depth
        matrices = [parameter for parameter in parameters if parameter.ndim > 1]
        vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
        yield {"params": matrices, "lr": rate, "weight_decay": options.weight_decay}
        yield {"params": vectors, "lr": rate, "weight_decay": 0.0}


def _depth(name: str, exit_layers: Sequence[int]) -> int:
    """Number of layers below a parameter; 0 for embeddings and soft tokens."""
    parts = name.split(".")
    if parts[:2] == ["backbone", "layers"]:
        return int(parts[2])
    if parts[0] == "heads":
        return exit_layers[int(parts[1])] - 1
    return 0


def _step(
    model: ExitModel,
    optimiser: torch.optim.Optimizer,
    batch: Sequence[Example],
    options: ExitOptions,
    random: np.random.Generator,
) -> float:
    prompts = with_dropout(collate([example.prompt for example in batch]), options, random)
    labels = torch.from_numpy(np.concatenate([example.labels for example in batch]))
    loss = joint_loss(model(prompts), labels, options.distillation)
    optimiser.zero_grad()
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


def joint_loss(logits: Tensor, labels: Tensor, distillation: float) -> Tensor:
    """Cross-entropy, averaged over heads; the targets of shallow heads mix the label and the deepest head's answer.

    Args:
        logits: (candidates, heads).
        labels: (candidates,) 0 or 1.
        distillation: weight of the deepest head's answer in the targets of the others.
    """
    teacher = torch.sigmoid(logits[:, -1:]).detach()
    targets = labels[:, None].expand_as(logits).clone()
    targets[:, :-1] = (1 - distillation) * targets[:, :-1] + distillation * teacher
    return functional.binary_cross_entropy_with_logits(logits, targets)


def with_dropout(batch: PromptBatch, options: ExitOptions, random: np.random.Generator) -> PromptBatch:
    """Replaces some embeddings of users and items by zeros (unknown) and some words by token 0.

    Statistics, where answers are read, stay as they are.
    """
    soft, words, added = (
        torch.from_numpy(random.random(tuple(part.shape)))
        for part in (batch.soft_kinds, batch.token_ids, batch.added_ids)
    )
    return _dropped(batch, options, soft, words, added)


def with_dropout_by_row(
    batch: PromptBatch, options: ExitOptions, randoms: Sequence[np.random.Generator]
) -> PromptBatch:
    """The same with a generator per row: what a row loses does not depend on the rows beside it."""
    length = batch.token_ids.shape[1]
    draws = torch.from_numpy(np.stack([random.random(length) for random in randoms]))  # (rows, length)
    counts = np.bincount(batch.added_index.numpy() // length, minlength=len(randoms)).tolist()
    added = np.concatenate([random.random(count) for random, count in zip(randoms, counts, strict=True)])
    return _dropped(batch, options, draws.flatten()[batch.soft_index], draws, torch.from_numpy(added))


def _dropped(
    batch: PromptBatch, options: ExitOptions, soft_draws: Tensor, word_draws: Tensor, added_draws: Tensor
) -> PromptBatch:
    """Without what has a number from [0, 1) below its share.

    Args:
        batch: of prompts.
        options: the shares.
        soft_draws: (soft,) for soft tokens.
        word_draws: (rows, length) for words.
        added_draws: (added,) for added words.
    """
    dropped = (soft_draws < options.embedding_dropout) & (batch.soft_kinds != SoftKind.STATISTICS)
    words = word_draws < options.word_dropout
    return replace(
        batch,
        soft_values=batch.soft_values.masked_fill(dropped[:, None], 0.0),
        token_ids=batch.token_ids.masked_fill(words, 0),
        added_ids=batch.added_ids.masked_fill(added_draws < options.word_dropout, 0),
    )


def _follow(average: ExitModel, model: ExitModel, decay: float) -> None:
    with torch.no_grad():
        for kept, current in zip(average.parameters(), model.parameters(), strict=True):
            kept.lerp_(current, 1 - decay)
