# ruff: noqa: PLC0415 - torch and the like load only for those tests that need a model
"""A complete model of minute size, for everything that needs one to run."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the numeric libraries are imported: tests share few cores

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("no deadline", deadline=None)  # a busy machine is no fault
if settings.get_current_profile_name() == "default":  # CI and the mutation run have their own
    settings.load_profile("no deadline")

pytest_plugins = ("broker_fixtures",)  # in tests/support: `embedded_broker`, `docker_engine`


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory):
    """A saved bundle with random weights: four layers, heads after 1, 2 and 4, embeddings of 8 numbers."""
    import torch
    from transformers import LlamaConfig

    from models.bundle import Bundle
    from models.calibration import CONFIDENCE_FEATURES, ExitCalibration, FrontierPoint
    from models.exit_model import ExitConfig, ExitModel
    from models.features import FEATURES, GRAPH_FEATURES
    from models.golden_check import with_golden
    from models.graph_base import GraphBase
    from models.prompt import PromptLimits
    from models.text import Text
    from schemas.messages import Item
    from training.golden import invented_requests

    torch.manual_seed(7)
    torch.set_num_threads(1)
    generator = np.random.default_rng(7)
    dim, layers = 8, (1, 2, 4)
    text = Text.train([f"title number {number} of a genre" for number in range(50)], 400)
    decoder = LlamaConfig(
        vocab_size=text.vocabulary_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers[-1],
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    heads = len(layers)
    calibration = ExitCalibration(
        slopes=np.ones(heads),
        intercepts=np.zeros(heads),
        confidence_weights=generator.normal(size=(heads - 1, len(CONFIDENCE_FEATURES))),
        tolerance=0.1,
        base_threshold=0.9,
        floor_threshold=0.3,
        frontier=(FrontierPoint(0.3, 0.3, 0.02), FrontierPoint(0.6, 0.6, 0.01), FrontierPoint(0.9, 0.9, 0.0)),
        graph_mean=np.zeros(len(GRAPH_FEATURES)),
        graph_scale=np.ones(len(GRAPH_FEATURES)),
        graph_weights=generator.normal(size=len(GRAPH_FEATURES)) * 0.1,
        graph_bias=-0.5,
    )
    graph = GraphBase(
        alphas=np.full(3, 1 / 3, np.float32),
        item_ids=[f"i{number}" for number in range(20)],
        item_embeddings=generator.normal(size=(20, dim)).astype(np.float32),
        word_vectors=generator.normal(size=(text.vocabulary_size, dim)).astype(np.float32),
        word_bias=np.zeros(dim, np.float32),
    )
    exits = ExitConfig(layers, dim, max(dim, len(FEATURES)), len(FEATURES), wide=True)
    model = ExitModel.from_config(decoder, exits).eval()
    bundle = Bundle(model=model, calibration=calibration, graph=graph, text=text, limits=PromptLimits(), dataset="none")
    items = [Item(item_id=f"i{number}", title=f"title number {number}") for number in range(20)]
    return with_golden(bundle, invented_requests(items, seed=7)).save(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def tiny_bundle_folder(tiny_bundle, tmp_path_factory) -> Path:
    """The same as a folder of its own."""
    folder = tmp_path_factory.mktemp("bundle-folder")
    tiny_bundle.save(folder)
    return folder
