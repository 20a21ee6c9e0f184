"""Embeddings that the heads' loss moves: who is shifted, by how much, and that nothing else differs."""

from dataclasses import replace
from itertools import repeat

import numpy as np
import pytest
import torch

from benchmarks.ablation_tables import joint_embeddings
from benchmarks.joint_embeddings import (
    COMPARED,
    UNKNOWN,
    NumberedReplay,
    ShiftedSoftTokens,
    Shifts,
    measure,
    with_shifts,
)
from benchmarks.learning_curve import world
from benchmarks.quality_peers import embeddings_alone
from graph_updater.graph.base_embeddings import bundled_base
from models.prompt_batch import collate
from models.token_sequence import SoftKind
from training.presets import DEMO
from training.progress import Silent
from training.replay import Replay, replay_examples
from training.train_exits import new_model

TINY = replace(
    DEMO,
    graph=replace(DEMO.graph, dim=8, steps=20),
    exits=replace(DEMO.exits, hidden=16, intermediate=32, attention_heads=2, exit_layers=(1, 2), epochs=1),
    vocabulary=400,
)


@pytest.fixture(scope="module")
def log():
    """A small world."""
    return world(600)


@pytest.fixture(scope="module")
def trained(log):
    """Base embeddings and tokenizer."""
    return embeddings_alone(log, TINY, Silent())


@pytest.fixture(scope="module")
def examples(log, trained):
    """The same requests by a usual replay, and by one that numbers items."""
    graph, text = trained
    told = []
    for kind in (Replay, NumberedReplay):
        replay = kind(log.items, bundled_base(graph, text), text, TINY.limits, template=TINY.template)
        replay.advance(log.interactions[:400])
        told.append(list(replay_examples(replay, log.interactions[400:480], repeat(4), 400)))
    return told


def test_items_are_numbered_by_the_catalogue_and_nothing_else_is_changed(log, examples):
    """The candidate is a suffix's last item."""
    for usual, numbered in zip(*examples, strict=True):
        for event, suffix in zip(numbered.events, numbered.prompt.suffixes, strict=True):
            number = int(suffix.soft_values[suffix.soft_kinds == SoftKind.ITEM][-1, 8])
            assert log.items[number - 1].item_id == log.interactions[event].item_id
        for one, other in zip(
            (usual.prompt.prefix, *usual.prompt.suffixes),
            (numbered.prompt.prefix, *numbered.prompt.suffixes),
            strict=True,
        ):
            values = other.soft_values.copy()
            values[other.soft_kinds == SoftKind.ITEM, 8] = 0
            np.testing.assert_array_equal(values, one.soft_values)
            np.testing.assert_array_equal(other.token_ids, one.token_ids)


def test_each_number_stands_behind_the_embedding_of_its_item(log, trained):
    """Of past items as of candidates."""
    graph, text = trained
    replay = NumberedReplay(log.items, bundled_base(graph, text), text, TINY.limits, template=TINY.template)
    replay.advance(log.interactions[:400])
    numbers = set()
    for event in log.interactions[400:420]:
        prompt = replay.prompt(event.user_id, [event.item_id])
        for part in (prompt.prefix, *prompt.suffixes):
            for row in part.soft_values[part.soft_kinds == SoftKind.ITEM]:
                number = int(row[8])
                numbers.add(number)
                item = replay.evidence(event.user_id, [log.items[number - 1].item_id]).candidates[0].item
                np.testing.assert_array_equal(row[:8], 0 if number == UNKNOWN else item.embedding)
    assert len(numbers) > 10


def test_a_shift_is_added_to_each_token_of_its_item_and_learns_from_them(trained, examples):
    """Without shifts the answers are the usual ones; an item that nobody was shown, and an unknown one, stay put."""
    torch.manual_seed(0)
    model = new_model(TINY.exits, trained[1].vocabulary_size, 8)
    batch = collate([example.prompt for example in examples[1]])
    usual = model(batch)
    shifts = Shifts(2_400, 8)
    model.soft = ShiftedSoftTokens(model.soft, shifts)
    torch.testing.assert_close(model(batch), usual)
    model(batch).sum().backward()
    shown = np.unique(batch.soft_values[batch.soft_kinds == SoftKind.ITEM][:, 8].numpy()).astype(int)
    moved = np.flatnonzero(shifts.table.weight.grad.abs().sum(1).numpy())
    assert set(moved.tolist()) == set(shown.tolist()) - {UNKNOWN}
    rows = batch.soft_kinds == SoftKind.ITEM
    with torch.no_grad():
        shifts.table.weight[1:] = 1.0
        by_hand = batch.soft_values.clone()
        by_hand[rows, :8] += (batch.soft_values[rows, 8] > 0).float()[:, None]
        torch.testing.assert_close(
            model.soft(batch.soft_kinds, batch.soft_values), model.soft.soft(batch.soft_kinds, by_hand)
        )


def test_shifted_base_embeddings_give_shifted_embeddings(log, trained):
    """Each item's own part of its embedding moves by its shift, whether its base is trained or made of its text."""
    graph, text = trained
    shifts = np.random.default_rng(0).normal(size=(len(log.items), 8)).astype(np.float32)
    moved = with_shifts(graph, log, text, shifts)
    before = with_shifts(graph, log, text, np.zeros_like(shifts))
    change = moved.alphas[0] * (moved.item_embeddings - before.item_embeddings)
    np.testing.assert_allclose(change, shifts, atol=1e-5)
    places = {item.item_id: place for place, item in enumerate(log.items)}
    kept = [before.item_embeddings[places[item_id]] for item_id in graph.item_ids]
    np.testing.assert_array_equal(kept, graph.item_embeddings)


@pytest.mark.slow
def test_each_way_is_trained_and_compared(log):
    """By head, with what each gains over embeddings that were trained apart."""
    longer = replace(TINY, exits=replace(TINY.exits, epochs=8, learning_rate=0.01))
    figures = measure(log, longer, Silent())
    assert figures["tested"] == len(log.interactions) - log.split().validation_end
    ways = figures["ways"]
    for name, way in ways.items():
        assert len(way["auc"]) == 2
        assert ("gain" in way) == (name in COMPARED)
    for name, reference in COMPARED.items():
        assert ways[name]["auc"] != ways[reference]["auc"]  # the shifts are not zero
        assert ways[name]["gain"]["difference"] == pytest.approx(ways[name]["auc"][-1] - ways[reference]["auc"][-1])
    told = joint_embeddings(figures, figures).splitlines()
    assert len(told) == 2 + 2 * len(ways)
    assert f"{ways['later_everywhere']['auc'][-1]:.4f}" in told[-1]
