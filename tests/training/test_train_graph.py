"""Base embeddings: fitted to clicks, inductive for users, mapped from words for new items."""

import numpy as np
import pytest
import torch

from evaluation.metrics import auc
from event_data.synthetic import synthetic_log
from models.lightgcn import both_directions, propagate
from training.examples import graph_end
from training.tokenizer import fit_tokenizer
from training.train_graph import GraphOptions, train_graph


@pytest.fixture(scope="module")
def trained():
    """The synthetic log, a graph fitted to its first half, and the tokenizer."""
    torch.manual_seed(0)
    log = synthetic_log()
    text = fit_tokenizer(log.items, 600)
    half = log.interactions[: len(log.interactions) // 2]
    return log, train_graph(half, log.items, text, GraphOptions(dim=16, steps=150, regularisation=1e-3)), text


def embeddings_after(graph, events):
    """Users' and items' z, by id, after these events."""
    users = {user: node for node, user in enumerate(dict.fromkeys(event.user_id for event in events))}
    items = {item: len(users) + row for row, item in enumerate(graph.item_ids)}
    clicks = [(users[e.user_id], items[e.item_id]) for e in events if e.positive and e.item_id in items]
    ends = torch.tensor(clicks).T
    base = torch.cat([torch.zeros(len(users), graph.dim), torch.from_numpy(graph.item_embeddings)])
    z = propagate(base, both_directions(ends[0], ends[1]), None, graph.alphas.tolist()).numpy()
    return {user: z[node] for user, node in users.items()}, {item: z[node] for item, node in items.items()}


def test_embeddings_predict_later_clicks_of_the_same_user(trained):
    """Inner products after the slice tell which later impressions are clicked, also for users who came later."""
    log, graph, _ = trained
    until = len(log.interactions) * 3 // 4
    users, items = embeddings_after(graph, log.interactions[:until])
    later = [e for e in log.interactions[until:] if e.user_id in users and e.item_id in items]
    scores = [float(users[e.user_id] @ items[e.item_id]) for e in later]
    assert auc([e.positive for e in later], scores) > 0.6


def test_words_map_to_the_neighbourhood_of_items_that_use_them(trained):
    """An item's base embedding from its text alone points the way of its fitted one, on average."""
    log, graph, text = trained
    fitted = dict(zip(graph.item_ids, graph.item_embeddings, strict=True))
    centre = graph.item_embeddings.mean(axis=0)
    cosines = []
    for item in log.items:
        if item.item_id in fitted:
            told, known = graph.from_text(text.encode_item(item)) - centre, fitted[item.item_id] - centre
            cosines.append(told @ known / (np.linalg.norm(told) * np.linalg.norm(known)))
    assert np.mean(cosines) > 0.4


def test_an_item_without_text_has_no_base_embedding(trained):
    """Nothing known, nothing claimed."""
    assert trained[1].from_text([]) is None


def test_the_same_seed_gives_the_same_embeddings(log, text, preset):
    """Training is reproducible."""
    graphs = []
    for _ in range(2):
        torch.manual_seed(3)
        slice_ = log.interactions[: graph_end(log, preset)]
        graphs.append(train_graph(slice_, log.items, text, preset.graph))
    np.testing.assert_array_equal(graphs[0].item_embeddings, graphs[1].item_embeddings)


def test_only_items_of_the_slice_are_fitted(log, graph, preset):
    """All others come from their text, as they will when serving."""
    met = {event.item_id for event in log.interactions[: graph_end(log, preset)]}
    assert set(graph.item_ids) == met
