"""Trains a small model on what a variant leaves, and scores the last tenth with each of its heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.ablation_evidence import CHOICES, Choice, Recorded, Records, chosen
from models.features import FEATURES
from models.prompt import Prompt, PromptBuilder
from models.text import Text
from models.token_sequence import NONE, SoftKind, TokenSequence
from training.calibrate import HeldOut
from training.presets import Preset
from training.progress import Reporter
from training.replay import Example
from training.shards import in_memory
from training.train import computing_on
from training.train_exits import new_model, predict, train_exits


@dataclass(frozen=True, slots=True)
class Inputs:
    """Which inputs a model reads, of evidence as shipped."""

    words: str
    """What a table calls it."""
    titles: bool = True
    soft: bool = True
    """Soft tokens of users and items."""
    statistics: bool = True
    """The soft token of a candidate's statistics."""
    regression: bool = True
    """The regression on the statistics that every head adds."""


ALL_INPUTS: Final = Inputs("all")
NO_REGRESSION: Final = Inputs("all, without the regression on the statistics", regression=False)
INPUTS: Final = {
    "words": Inputs("words only", soft=False, statistics=False, regression=False),
    "soft": Inputs("soft tokens only", titles=False, statistics=False, regression=False),
    "statistics": Inputs("statistics only", titles=False, soft=False),
    "no_regression": NO_REGRESSION,
    "all": ALL_INPUTS,
}


@dataclass(frozen=True, slots=True)
class Variant:
    """What is left of the model."""

    evidence: Choice = CHOICES["shipped"]
    inputs: Inputs = ALL_INPUTS


@dataclass(frozen=True, slots=True)
class Answers:
    """Of a trained variant."""

    last_tenth: HeldOut
    """Logits (candidates, heads), labels and lengths."""
    to_fit: HeldOut
    to_test: HeldOut
    tokens: float
    """Mean length of a training example."""


def train_variant(
    name: str, variant: Variant, records: Records, text: Text, preset: Preset, reporter: Reporter
) -> Answers:
    """Its answers. Every variant begins with the same weights and has the same requests."""
    prompts = prompt_maker(variant, text, preset)
    to_fit = _examples(records.to_fit, prompts)
    train = in_memory(
        _examples(records.train, prompts), sum(len(one.request.labels) for one in records.train), preset.seed
    )
    torch.manual_seed(preset.seed)
    model = new_model(preset.exits, text.vocabulary_size, preset.graph.dim)
    if not variant.inputs.regression:
        model.wide, model.config = None, replace(model.config, wide=False)
    total = preset.exits.epochs * sum(len(example) for example in train)
    with computing_on(preset.threads), reporter.step(name, total) as advance:
        train_exits(model, train, to_fit, preset.exits, preset.seed, advance)
    tokens = float(np.mean([example.prompt.tokens for example in train]))
    del train

    def answers(examples: Sequence[Example]) -> HeldOut:
        return HeldOut.of(examples, predict(model, examples))

    to_test, last_tenth = _examples(records.to_test, prompts), _examples(records.last_tenth, prompts)
    return Answers(answers(last_tenth), answers(to_fit), answers(to_test), tokens)


def prompt_maker(variant: Variant, text: Text, preset: Preset) -> Callable[[Recorded], Prompt]:
    """Makes a variant's prompts."""
    inputs = variant.inputs
    titles = () if inputs.titles else ("title_tokens", "candidate_title_tokens", "similar_title_tokens")
    limits = replace(preset.limits, **dict.fromkeys(titles, 0))
    builder = PromptBuilder(text, preset.graph.dim, limits, len(FEATURES), template=preset.template)

    def made(recorded: Recorded) -> Prompt:
        prompt = builder.build(chosen(recorded, variant.evidence, preset.limits))
        if not inputs.titles and not inputs.soft:
            return _statistics_alone(prompt)
        without = [*([] if inputs.soft else [SoftKind.USER, SoftKind.ITEM])]
        parts = [_without(part, without, inputs.statistics) for part in (prompt.prefix, *prompt.suffixes)]
        return Prompt(parts[0], parts[1:])

    return made


def _examples(records: Sequence[Recorded], made: Callable[[Recorded], Prompt]) -> list[Example]:
    return [Example(made(one), one.request.labels, one.request.events) for one in records]


def _without(part: TokenSequence, kinds: Sequence[SoftKind], statistics: bool) -> TokenSequence:
    """The sequence without soft tokens of these kinds, and without tokens that were nothing else. The answer is read at
    the token of the statistics, so that one stays, with zeros where they are not to be read.
    """
    if not kinds and statistics:
        return part
    left_out = np.isin(part.soft_kinds, kinds)
    keep = np.ones(len(part), np.bool_)
    keep[part.soft_positions[left_out]] = False
    keep[part.soft_positions[~left_out]] = True
    keep[part.added_positions] = True
    kept = _kept(part, keep, ~left_out)
    if statistics:
        return kept
    is_statistics = (kept.soft_kinds == SoftKind.STATISTICS)[:, None]
    return msgspec.structs.replace(kept, soft_values=np.where(is_statistics, np.float32(0), kept.soft_values))


def _statistics_alone(prompt: Prompt) -> Prompt:
    """A prefix of its first token without what is summed into it, and suffixes of the token of the statistics, with
    nothing else in it.
    """
    prefix = prompt.prefix
    first = _kept(prefix, np.arange(len(prefix)) == 0, np.zeros(len(prefix.soft_kinds), np.bool_), words=False)
    suffixes = [
        _kept(part, np.arange(len(part)) == len(part) - 1, part.soft_kinds == SoftKind.STATISTICS, words=False)
        for part in prompt.suffixes
    ]
    return Prompt(first, suffixes)


def _kept(
    part: TokenSequence, keep: NDArray[np.bool_], soft: NDArray[np.bool_], *, words: bool = True
) -> TokenSequence:
    """What is kept of a sequence.

    Args:
        part: the sequence.
        keep: its tokens (n,), those with anything that is kept in them.
        soft: its soft tokens (s,).
        words: whether added words are.
    """
    places = np.cumsum(keep) - 1
    return TokenSequence(
        token_ids=part.token_ids[keep],
        soft_positions=places[part.soft_positions[soft]].astype(np.int32),
        soft_kinds=part.soft_kinds[soft],
        soft_values=part.soft_values[soft],
        added_ids=part.added_ids if words else NONE,
        added_positions=places[part.added_positions].astype(np.int32) if words else NONE,
    )
