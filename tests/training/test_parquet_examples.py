"""Training examples in files."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.prompt import Prompt
from models.token_sequence import TokenSequence
from runtime.errors import CheckpointError
from training import shards
from training.batches import batches
from training.examples import make_examples
from training.parquet_examples import parquet_in, read_examples
from training.progress import Silent
from training.replay import Example
from training.shards import ShardedExamples, in_memory
from training.train_exits import new_model, train_exits

WIDTH = 3


def sequence(random, length, soft):
    """A sequence with so many soft tokens and any numbers, infinities and NaN included."""
    values = random.standard_normal((soft, WIDTH)).astype(np.float32)
    values[random.random(values.shape) < 0.1] = random.choice([np.nan, np.inf, -0.0])
    return TokenSequence(
        random.integers(0, 50_000, length, np.int32),
        np.sort(random.permutation(length)[:soft]).astype(np.int32),
        random.integers(0, 3, soft, np.int8),
        values,
        added := random.integers(0, 50_000, 2 * soft, np.int32),
        np.sort(random.integers(0, max(length, 1), len(added), np.int32)),
    )


def examples_of(seed, count):
    """Examples of any shape: parts without soft tokens, prefixes without words."""
    random = np.random.default_rng(seed)
    examples = []
    for number in range(count):
        sizes = random.integers(0, 5, 1 + random.integers(1, 4))
        prefix, *suffixes = [sequence(random, int(size) + int(soft), int(soft)) for size, soft in enumerate(sizes)]
        labels = random.random(len(suffixes)).astype(np.float32)
        examples.append(Example(Prompt(prefix, suffixes), labels, np.arange(len(suffixes)) + 10 * number))
    return examples


def same(one, other):
    """Whether two examples are equal bit by bit, in every field there is."""
    parts = [(example.prompt.prefix, *example.prompt.suffixes) for example in (one, other)]
    arrays = [
        [getattr(part, field.name) for part in part_list for field in msgspec.structs.fields(TokenSequence)]
        + [example.labels, example.events, example.prompt.suffix_lengths]
        for part_list, example in zip(parts, (one, other), strict=True)
    ]
    return len(arrays[0]) == len(arrays[1]) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in zip(*arrays, strict=True)
    )


@given(seed=st.integers(0, 10_000), count=st.integers(1, 40), shard=st.integers(1, 30))
@settings(max_examples=25, deadline=None)
def test_what_is_read_is_what_was_written_in_the_order_of_memory(tmp_path_factory, seed, count, shard):
    """Any examples come back bit by bit, in the same shards and order as if they had been kept in memory."""
    examples = examples_of(seed, count)
    candidates = sum(map(len, examples))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "CANDIDATES_PER_SHARD", shard)
        kept = in_memory(iter(examples), candidates, seed)
        written = parquet_in(tmp_path_factory.mktemp("examples"))(iter(examples), candidates, seed)
    assert len(written) == len(kept) == count
    assert all(same(one, other) for one, other in zip(written, kept, strict=True))
    assert sorted(int(one.events[0]) for one in kept) == [10 * number for number in range(count)]
    for one, other in ((written.tokens, kept.tokens), (written.candidates, kept.candidates)):
        assert [part.tolist() for part in one] == [part.tolist() for part in other]
    assert same(written[count // 2], kept[count // 2])
    assert same(written[-1], kept[-1])


def test_prompts_have_no_field_that_files_leave_out():
    """A new field of prompts or examples must be written too."""
    assert [field.name for field in msgspec.structs.fields(TokenSequence)] == [
        "token_ids",
        "soft_positions",
        "soft_kinds",
        "soft_values",
        "added_ids",
        "added_positions",
    ]
    assert list(Prompt.__dataclass_fields__) == ["prefix", "suffixes", "suffix_lengths"]
    assert list(Example.__dataclass_fields__) == ["prompt", "labels", "events"]


def test_training_from_files_gives_the_weights_of_training_from_memory(log, graph, text, preset, tmp_path, monkeypatch):
    """The same batches in the same order, whichever the examples come from: not one bit differs."""
    monkeypatch.setattr(shards, "CANDIDATES_PER_SHARD", 200)
    options = replace(preset.exits, epochs=2)
    weights = []
    for keep in (in_memory, parquet_in(tmp_path / "examples")):
        sets = make_examples(log, graph, text, preset, Silent(), keep)
        assert len(sets.train.tokens) == 4
        torch.manual_seed(1)
        model = new_model(options, text.vocabulary_size, graph.dim)
        weights.append(train_exits(model, sets.train, sets.to_fit, options, 0).state_dict())
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())


def test_an_epoch_opens_each_shard_once():
    """Shards are read one after the other, in an order of each epoch's own, and one is in memory at a time."""
    held, opened = [examples_of(number, 30) for number in range(6)], []
    whole = ShardedExamples.of(held)

    def open_shard(number):
        opened.append(number)
        return held[number]

    sharded, random = ShardedExamples(open_shard, whole.tokens, whole.candidates), np.random.default_rng(0)
    epochs = []
    for _ in range(3):
        read = sum(len(batch) for batch in batches(sharded, 20, random))
        assert read == len(sharded) == 180
        epochs.append(opened[:])
        opened.clear()
    # A shard that ends one epoch and begins the next is still open.
    assert all(len(set(epoch)) == len(epoch) >= 5 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_files_from_before_are_replaced(tmp_path):
    """What an interrupted training left behind is not mixed with the new examples."""
    keep = parquet_in(tmp_path)
    keep(examples_of(1, 30), 30, 0)
    assert len(keep(examples_of(2, 5), 5, 0)) == 5


def test_a_folder_without_examples_is_told(tmp_path):
    """Not an empty training set."""
    with pytest.raises(CheckpointError, match="no training examples"):
        read_examples(tmp_path)


def test_a_broken_file_is_told(tmp_path):
    """With its path."""
    (tmp_path / "shard-00000.parquet").write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"shard-00000\.parquet cannot be read"):
        read_examples(tmp_path)
