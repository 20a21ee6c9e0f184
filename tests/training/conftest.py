# ruff: noqa: PLC0415 - torch loads only for those tests that need it
"""A log, a graph and a model that are small enough to train in a test."""

from dataclasses import replace

import pytest

from event_data.synthetic import SyntheticSize, synthetic_log


@pytest.fixture(scope="session")
def log():
    """Eight hundred interactions of forty users with thirty items."""
    return synthetic_log(SyntheticSize(users=40, items=30, sessions=100, shown=8))


@pytest.fixture(scope="session")
def preset():
    """Hyperparameters that train within seconds."""
    from models.prompt import PromptLimits
    from models.prompt_template import TERSE
    from training.presets import DEMO
    from training.train_exits import ExitOptions

    return replace(
        DEMO,
        limits=PromptLimits(recent_items=6, title_tokens=0, candidate_title_tokens=4),
        graph=replace(DEMO.graph, dim=8, steps=20),
        template=TERSE,
        exits=ExitOptions(
            hidden=16, intermediate=32, attention_heads=2, exit_layers=(1, 2), epochs=1, batch_tokens=2_048
        ),
        vocabulary=400,
    )


@pytest.fixture(scope="session")
def text(log, preset):
    """The log's tokenizer."""
    from training.tokenizer import fit_tokenizer

    return fit_tokenizer(log.items, preset.vocabulary)


@pytest.fixture(scope="session")
def graph(log, text, preset):
    """Base embeddings of the log's first part."""
    import torch

    from training.examples import graph_end
    from training.train_graph import train_graph

    torch.manual_seed(0)
    return train_graph(log.interactions[: graph_end(log, preset)], log.items, text, preset.graph)


@pytest.fixture
def new_replay(log, graph, text, preset):
    """Makes replays without any event yet."""
    from graph_updater.graph.base_embeddings import bundled_base
    from training.replay import Replay

    def make(**limits):
        return Replay(log.items, bundled_base(graph, text), text, replace(preset.limits, **limits))

    return make
