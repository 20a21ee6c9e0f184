"""How many examples does a small decoder need until its deeper heads are worth more than the first?

A world without anything else: two words make a title, each of one of two hidden sides. A user likes sides, and above
all whether both words are of the same side, or of different ones. The prompt tells 12 titles and what the user did,
then 8 candidates. Examples are drawn anew for every step, unless `--examples` sets how many there are.

    python -m benchmarks.where_depth_pays --layout words
    python -m benchmarks.where_depth_pays --layout summed --examples 40000

Prints, as training goes on, the candidates trained on and the AUC of each head, after the limit of this world.
"""

from __future__ import annotations

import math
from argparse import ArgumentParser, Namespace
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig

from evaluation.metrics import auc
from models.exit_model import ExitConfig, ExitModel
from models.prompt_batch import _tree_mask as tree_mask
from training.train_exits import schedule

PAST: Final = 12
SHOWN: Final = 8
WORDS: Final = 32
"""Of each of the two places of a title."""
EXITS: Final = (1, 2, 4)
TESTED: Final = 1_000
"""Prompts to test on."""


class World(NamedTuple):
    """Prompts; the last `SHOWN` items of each are its candidates."""

    first: NDArray[np.int64]  # (prompts, items) word
    second: NDArray[np.int64]  # (prompts, items) word
    clicks: NDArray[np.float32]  # (prompts, items)
    statistics: NDArray[np.float32]  # (prompts, SHOWN, 3): the user's rate, a noisy quality of the item, 1
    log_odds: NDArray[np.float64]  # (prompts, SHOWN)

    def some(self, rows: NDArray[np.int64] | slice) -> World:
        """These prompts."""
        return World(self.first[rows], self.second[rows], self.clicks[rows], self.statistics[rows], self.log_odds[rows])


def main() -> None:
    """Train and print."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--layout", choices=("words", "summed"), default="words", help="3 tokens a title, or their sum")
    parser.add_argument("--examples", type=int, default=0, help="candidates in all; 0: new ones in every step")
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--prompts", type=int, default=16, help="prompts a step, of 8 candidates each")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--cross", type=float, default=1.4, help="log-odds for titles of one side, or against them")
    parser.add_argument("--lean", type=float, default=0.5, help="0: as many users like them as not; 1: all like them")
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    sides = np.stack([np.repeat(random.permutation(np.resize([1.0, -1.0], 8)), WORDS // 8) for _ in range(2)])
    train(arguments, sides, random)


def draw(count: int, sides: NDArray[np.float64], arguments: Namespace, random: np.random.Generator) -> World:
    """`count` users, each with a past and candidates."""
    likes = random.normal(0.5, 0.5, (2, count, 1))
    same = np.where(random.random(count) < 0.5 + arguments.lean / 2, arguments.cross, -arguments.cross)
    same = (same + random.normal(0.0, 0.3, count))[:, None]
    first, second = random.integers(WORDS, size=(2, count, PAST + SHOWN))
    quality = random.normal(0.0, 0.5, (count, PAST + SHOWN))
    one, other = sides[0][first], sides[1][second]
    log_odds = random.normal(-0.3, 0.5, (count, 1)) + quality + likes[0] * one + likes[1] * other + same * one * other
    clicks = (random.random(log_odds.shape) < 1 / (1 + np.exp(-log_odds))).astype(np.float32)
    clicked = clicks[:, :PAST].sum(axis=1, keepdims=True)
    statistics = np.ones((count, SHOWN, 3), np.float32)
    statistics[..., 0] = np.log((clicked + 2) / (PAST - clicked + 2))
    statistics[..., 1] = quality[:, PAST:] + random.normal(0.0, 0.3, (count, SHOWN))
    return World(first, second, clicks, statistics, log_odds[:, PAST:])


def new_model() -> ExitModel:
    """Four layers of width 64 with three heads."""
    decoder = LlamaConfig(
        vocab_size=3 + 2 * WORDS,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=EXITS[-1],
        num_attention_heads=4,
        num_key_value_heads=4,
        use_cache=False,
        initializer_range=0.1,
    )
    return ExitModel.from_config(decoder, ExitConfig(EXITS, 3, 3, 3))


def answers(model: ExitModel, world: World, layout: str) -> Tensor:
    """Logits (candidates, heads)."""
    look_up = model.backbone.embed_tokens
    one = look_up(3 + torch.from_numpy(world.first))
    other = look_up(3 + WORDS + torch.from_numpy(world.second))
    done = look_up(1 + torch.from_numpy(world.clicks[:, :PAST]).long())
    asked = model.soft.statistics(torch.from_numpy(world.statistics))
    last = torch.cat([done, asked], dim=1)  # (prompts, items, hidden)
    width = 3 if layout == "words" else 1
    hidden = torch.stack([one, other, last], dim=2).flatten(1, 2) if width == 3 else one + other + last
    past = width * PAST
    place = torch.cat([torch.arange(past), past + torch.arange(width).repeat(SHOWN)])[None].expand(len(hidden), -1)
    segments = torch.cat([torch.zeros(past), 1 + torch.arange(SHOWN).repeat_interleave(width)])[None]
    mask = tree_mask(segments).expand(len(hidden), -1, -1, -1)
    rotation = model.backbone.rotary_emb(hidden, position_ids=place)
    logits = []
    for depth, layer in enumerate(model.backbone.layers, start=1):
        hidden = layer(hidden, attention_mask=mask, position_ids=place, position_embeddings=rotation)
        if depth in EXITS:
            logits.append(model.heads[EXITS.index(depth)](hidden[:, past + width - 1 :: width].flatten(0, 1)))
    return torch.stack(logits, dim=1)


def train(arguments: Namespace, sides: NDArray[np.float64], random: np.random.Generator) -> None:
    """Train, and print what each head reaches."""
    model, tested = new_model(), draw(TESTED, sides, arguments, random)
    print(f"limit {auc(tested.clicks[:, PAST:].ravel(), tested.log_odds.ravel()):.4f}", flush=True)
    kept = draw(math.ceil(arguments.examples / SHOWN), sides, arguments, random) if arguments.examples else None
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.05)
    for step in range(1, arguments.steps + 1):
        if kept is None:
            world = draw(arguments.prompts, sides, arguments, random)
        else:
            world = kept.some(random.integers(len(kept.first), size=arguments.prompts))
        optimiser.param_groups[0]["lr"] = arguments.learning_rate * schedule(step / arguments.steps, 0.06)
        logits = answers(model, world, arguments.layout)
        labels = torch.from_numpy(world.clicks[:, PAST:].ravel())[:, None].expand_as(logits)
        loss = functional.binary_cross_entropy_with_logits(logits, labels)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 500 == 0 or step == arguments.steps:
            with torch.inference_mode():
                told = answers(model, tested, arguments.layout).numpy()
            aucs = ", ".join(f"{auc(tested.clicks[:, PAST:].ravel(), head):.4f}" for head in told.T)
            print(f"{step * arguments.prompts * SHOWN:,} candidates: {aucs}", flush=True)


if __name__ == "__main__":
    main()
