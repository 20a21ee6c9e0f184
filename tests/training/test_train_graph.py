"""Base embeddings: fitted to clicks, inductive for users, mapped from words for new items."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from evaluation.metrics import auc
from event_data.event_log import EventLog
from event_data.synthetic import START_MS
from models.lightgcn import both_directions, propagate
from schemas.messages import Interaction, Item
from training.examples import graph_end
from training.rank_items import RankingOptions
from training.tokenizer import fit_tokenizer
from training.train_graph import GraphOptions, train_graph


def topical_log():
    """Titles tell an item's topic, and a user likes topics: what embeddings from words are there for."""
    random = np.random.default_rng(5)
    topics = random.integers(8, size=150)
    tastes = random.choice([-1.5, 1.5], (300, 8))
    words = [
        [f"{topic}{letter}" for letter in "abcdef"]
        for topic in ("sea", "star", "law", "pan", "war", "way", "song", "leaf")
    ]
    titles = [" ".join(random.choice(words[topic], 3)) for topic in topics]
    items = [Item(item_id=f"item-{row}", title=title) for row, title in enumerate(titles)]
    events = []
    for number in range(20_000):
        user, item = random.integers(300), random.integers(150)
        clicked = random.random() < 1 / (1 + np.exp(-tastes[user, topics[item]]))
        events.append(
            Interaction(
                event_id=str(number),
                user_id=f"user-{user}",
                item_id=f"item-{item}",
                kind="click" if clicked else "impression",
                event_time_ms=START_MS + 1_000 * number,
                positive=bool(clicked),
            )
        )
    return EventLog("topical", items, interactions=events)


@pytest.fixture(scope="module")
def trained():
    """A log, a graph fitted to its first half, and the tokenizer."""
    torch.manual_seed(0)
    log = topical_log()
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
    assert auc([e.positive for e in later], scores) > 0.625


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
    assert np.mean(cosines) > 0.65


def test_the_map_from_words_is_a_ridge_regression(trained):
    """Each distinct word of a text counts 1/√words, and what it adds is scikit-learn's ridge solution."""
    log, graph, text = trained
    items = {item.item_id: text.encode_item(item) for item in log.items}
    design = np.zeros((len(graph.item_ids), text.vocabulary_size))
    for row, item_id in zip(design, graph.item_ids, strict=True):
        words = list(set(items[item_id]))
        row[words] = len(words) ** -0.5
    mean = graph.item_embeddings.mean(axis=0)
    ridge = Ridge(alpha=GraphOptions().text_regularisation, fit_intercept=False)
    expected = ridge.fit(design, graph.item_embeddings - mean).predict(design) + mean
    found = np.stack([graph.from_text(items[item_id]) for item_id in graph.item_ids])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def interactions(users, items, clicked):
    """Every user meets every item once, in an order of their own."""
    random = np.random.default_rng(1)
    pairs = [(user, item) for user in range(users) for item in random.permutation(items)]
    return [
        Interaction(
            event_id=f"{user}-{item}",
            user_id=f"u{user}",
            item_id=f"i{item}",
            kind="impression",
            event_time_ms=time,
            positive=bool(clicked(user, item)),
        )
        for time, (user, item) in enumerate(pairs)
    ]


def fit(events, text, **options):
    """A small graph fitted to events."""
    torch.manual_seed(0)
    return train_graph(events, [], text, GraphOptions(dim=8, steps=60, **options))


def test_clicks_alone_make_edges(text):
    """Two circles see all items and click on those of their own: a new user is of the circle they click with."""
    graph = fit(interactions(30, 12, lambda user, item: user % 2 == item % 2), text)
    newcomer = interactions(1, 12, lambda _, item: item in {0, 2})
    users, items = embeddings_after(graph, newcomer)
    affinity = {item: float(users["u0"] @ z) for item, z in items.items()}
    assert min(affinity[f"i{item}"] for item in range(0, 12, 2)) > 0.3
    assert max(affinity[f"i{item}"] for item in range(1, 12, 2)) < -0.3


def test_no_embedding_is_judged_on_an_edge_that_it_was_made_of(text):
    """Random clicks teach nothing. If the loss were computed on edges of the graph, embeddings would grow."""
    coin = np.random.default_rng(0)
    graph = fit(interactions(60, 30, lambda *_: coin.random() < 0.4), text, regularisation=3e-3)
    assert np.square(graph.item_embeddings).sum(axis=1).mean() < 0.15


def test_regularisation_keeps_embeddings_short(text):
    """The same clicks with a larger weight on length give shorter embeddings."""
    events = interactions(30, 12, lambda user, item: user % 2 == item % 2)
    lengths = [np.linalg.norm(fit(events, text, regularisation=weight).item_embeddings) for weight in (1e-3, 0.03)]
    assert lengths[1] < 0.8 * lengths[0]


def test_an_item_without_text_has_no_base_embedding(trained):
    """Without text there is nothing to map."""
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
    """All other items get theirs from their text, as in serving."""
    met = {event.item_id for event in log.interactions[: graph_end(log, preset)]}
    assert set(graph.item_ids) == met


def test_a_graph_fitted_to_rank_serves_like_any_other(text):
    """Embeddings come from clicks alone, and a new user is of the circle that they click with."""
    events = interactions(60, 12, lambda user, item: user % 2 == item % 2 and (user + item) % 5)
    ranking = RankingOptions(
        dim=8, steps=60, users_per_step=30, learning_rate=0.02, temperature=0.1, regularisation=1.0
    )
    graph = train_graph(events, [], text, GraphOptions(ranking=ranking))
    assert (graph.dim, graph.layers) == (8, ranking.layers)
    users, items = embeddings_after(graph, interactions(1, 12, lambda _, item: item in {0, 2}))
    affinity = {item: float(users["u0"] @ z) for item, z in items.items()}
    assert min(affinity[f"i{item}"] for item in range(0, 12, 2)) > max(affinity[f"i{item}"] for item in range(1, 12, 2))


def test_steps_are_those_of_the_objective():
    """What a progress bar counts up to."""
    assert GraphOptions(steps=7).most_steps == 7
    assert GraphOptions(steps=7, ranking=RankingOptions(steps=9)).most_steps == 9


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_without_the_mean_each_node_has_its_last_layer_alone(layers):
    """A layer further away than that is zero, because users begin with nothing."""
    alphas = GraphOptions(layers=layers, average=False).alphas()
    edges = both_directions(torch.tensor([0, 0, 1]), torch.tensor([2, 3, 3]))
    base = torch.tensor([[0.0], [0.0], [1.0], [-3.0]])  # two users, two items
    alone = [
        propagate(base, edges, None, [float(at == layer) for at in range(layers + 1)]) for layer in range(layers + 1)
    ]
    expected = torch.where(alone[layers] != 0, alone[layers], alone[layers - 1])
    torch.testing.assert_close(propagate(base, edges, None, alphas), expected)
    assert GraphOptions(layers=layers).alphas() == pytest.approx([1 / (layers + 1)] * (layers + 1))
