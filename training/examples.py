"""Makes examples to train and calibrate on: which events, and with or without embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from random import Random
from typing import NamedTuple, TypeVar

import numpy as np

from event_data.event_log import EventLog
from graph_updater.graph.base_embeddings import BaseEmbeddings, bundled_base
from models.graph_base import GraphBase
from models.text import Text
from training.presets import Preset
from training.progress import Advance, Reporter
from training.replay import Example, Replay, replay_examples
from training.shards import Keep, ShardedExamples, in_memory

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ExampleSets:
    """Training examples, and two random halves of the validation part."""

    train: ShardedExamples
    to_fit: list[Example]
    """For early stopping, for the share of the regression, and to fit the calibration."""
    to_test: list[Example]
    """To test the exit threshold; nothing is fitted to it."""


class Spans(NamedTuple):
    """Indices in the log of where examples begin. The training part ends, and the validation part begins, where the
    log's split says.
    """

    first: int
    """Of the training examples."""
    seeing: int
    """Of those of them that have embeddings."""
    held_out: int
    """Of the validation examples."""

    @classmethod
    def of(cls, log: EventLog, preset: Preset) -> Spans:
        """Those of a log: the latest examples of either part, as many as the preset takes."""
        split = log.split()
        first = max(0, split.train_end - preset.most_examples)
        held_out = max(split.train_end, split.validation_end - preset.most_held_out)
        return cls(first, max(first, graph_end(log, preset)), held_out)


def graph_end(log: EventLog, preset: Preset) -> int:
    """Index in the log of the end of the slice that base embeddings are fitted to."""
    return round(log.split().train_end * preset.graph_share)


def make_examples(
    log: EventLog,
    graph: GraphBase,
    text: Text,
    preset: Preset,
    reporter: Reporter,
    keep: Keep = in_memory,
    replay: type[Replay] = Replay,
) -> ExampleSets:
    """Examples of the training and the validation part; `keep` says where those to train on are kept, `replay` what
    makes their prompts.

    Base embeddings know the labels of the slice they were fitted to. So examples from that slice have none: they
    teach words, histories and counts, and how to score while embeddings are missing. All later examples have the
    embeddings that serving will have. Held-out examples are made as of each event, without lag.
    """
    split = log.split()
    first, start, held_out_from = Spans.of(log, preset)
    ticks = tick_lengths(preset)
    with reporter.step("examples by replay", split.validation_end - first) as advance:
        blind = replay(log.items, without_embeddings(graph), text, preset.limits, template=preset.template)
        seeing = replay(log.items, bundled_base(graph, text), text, preset.limits, template=preset.template)
        blind.advance(log.interactions[:first])
        seeing.advance(log.interactions[:start])
        early = replay_examples(blind, log.interactions[first:start], ticks, first)
        late = replay_examples(seeing, log.interactions[start : split.train_end], ticks, start)
        train = keep(_told(chain(early, late), advance), split.train_end - first, preset.seed)
        seeing.advance(log.interactions[split.train_end : held_out_from])
        validation = log.interactions[held_out_from : split.validation_end]
        held_out = list(_told(replay_examples(seeing, validation, repeat(1), held_out_from), advance))
    return ExampleSets(train, *halves(held_out, preset.seed))


def _told(examples: Iterator[Example], advance: Advance) -> Iterator[Example]:
    for example in examples:
        yield example
        advance(len(example))


def tick_lengths(preset: Preset) -> Iterator[int]:
    """Random tick lengths: some histories are up to date, others a few events behind, as in serving."""
    random = Random(preset.seed)
    while True:
        yield random.randint(1, preset.tick)


def without_embeddings(graph: GraphBase) -> BaseEmbeddings:
    """Base embeddings with the graph's dimension and layers, for no item."""
    return BaseEmbeddings(
        item_ids=(), item_vectors=np.zeros((0, graph.dim), np.float32), alphas=tuple(graph.alphas.tolist())
    )


def halves(examples: Sequence[T], seed: int) -> tuple[list[T], list[T]]:
    """To fit, and to test: a random half each."""
    order = np.random.default_rng(seed).permutation(len(examples))
    middle = len(order) // 2
    return [examples[place] for place in order[:middle]], [examples[place] for place in order[middle:]]
