"""Small random models and prompts for the engine's tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, PretrainedConfig

from models.calibration import CONFIDENCE_FEATURES, ExitCalibration
from models.exit_model import ExitConfig, ExitModel
from models.features import FEATURES, GRAPH_FEATURES
from models.prompt import Prompt
from models.token_sequence import SoftKind, TokenSequence
from worker.engine.scoring_job import ScoringJob

VOCABULARY = 50
EMBEDDING_DIM = 6
WIDTH = len(FEATURES)
EXIT_LAYERS = (1, 3, 4)
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": EXIT_LAYERS[-1],
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}

GRAPH_RATE = 0.25
"""What the graph says of every candidate in these tests."""

PromptMaker = Callable[[int, Sequence[int]], Prompt]
ModelMaker = Callable[..., ExitModel]


class Source:
    """A `PromptSource` of ready-made prompts that notes in which order parts are prepared."""

    def __init__(self) -> None:
        self.prepared: list[ScoringJob] = []
        self._prompts: dict[int, Prompt] = {}

    def job(self, prompt: Prompt, **more: object) -> ScoringJob:
        """A request for all candidates of a prompt."""
        job = ScoringJob(len(prompt.suffixes), **{"arrived_s": 1000.0} | more)
        self._prompts[id(job)] = prompt
        return job

    def prepare(self, job: ScoringJob, places: np.ndarray) -> Prompt:
        """The prompt of some candidates."""
        self.prepared.append(job)
        prompt = self._prompts[id(job)]
        return Prompt(prompt.prefix, [prompt.suffixes[place] for place in places])

    def graph_ctr(self, asked: Sequence[tuple[ScoringJob, np.ndarray]]) -> list[np.ndarray]:
        """The same rate for all."""
        return [np.full(len(places), GRAPH_RATE) for _, places in asked]


@pytest.fixture
def source() -> Source:
    """Prompts by request."""
    return Source()


@pytest.fixture
def random() -> np.random.Generator:
    """The same random numbers for every test."""
    return np.random.default_rng(11)


@pytest.fixture
def make_prompt(random) -> PromptMaker:
    """Prompts of random words and soft tokens, by length of the prefix and of every suffix."""

    def make(prefix: int, suffixes: Sequence[int]) -> Prompt:
        return Prompt(
            random_sequence(random, prefix, SoftKind.USER),
            [random_sequence(random, length, SoftKind.STATISTICS) for length in suffixes],
        )

    return make


def random_sequence(random: np.random.Generator, length: int, first: SoftKind) -> TokenSequence:
    """A sequence with two soft tokens where there is room, and words added to them: the given kind, then an item."""
    positions = np.sort(random.choice(length, min(2, length), replace=False))
    token_ids = random.integers(1, VOCABULARY, length)
    token_ids[positions] = 0
    added = random.integers(1, VOCABULARY, len(positions) // 2 * 3)  # words that share the place of a soft token
    return TokenSequence(
        token_ids.astype(np.int32),
        positions.astype(np.int32),
        np.array([first, SoftKind.ITEM][: len(positions)], np.int8),
        random.standard_normal((len(positions), WIDTH)).astype(np.float32),
        added.astype(np.int32),
        np.sort(random.choice(positions, len(added))).astype(np.int32),
    )


@pytest.fixture
def make_model() -> ModelMaker:
    """Small models, the same ones every time, none of whose weights, biases and norms are at their neutral start."""

    def make(family: type[PretrainedConfig] = LlamaConfig, **changes: object) -> ExitModel:
        torch.manual_seed(3)
        model = ExitModel.from_config(
            family(**SMALL | changes), ExitConfig(EXIT_LAYERS, EMBEDDING_DIM, WIDTH, WIDTH, wide=True)
        ).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() == 1 or name.endswith("linear.weight"):
                    parameter.add_(0.2 * torch.randn_like(parameter))
        return model

    return make


@pytest.fixture
def calibration() -> ExitCalibration:
    """A calibration of three heads whose confidence grows with the distance from even odds."""
    heads, features = len(EXIT_LAYERS), len(GRAPH_FEATURES)
    return ExitCalibration(
        slopes=np.linspace(0.6, 1.0, heads),
        intercepts=np.linspace(0.2, 0.0, heads),
        confidence_weights=np.outer([2.0, 1.0], np.array(CONFIDENCE_FEATURES) == "distance"),
        tolerance=0.1,
        base_threshold=0.9,
        floor_threshold=0.1,
        frontier=(),
        graph_mean=np.zeros(features),
        graph_scale=np.ones(features),
        graph_weights=np.zeros(features),
        graph_bias=0.0,
    )
