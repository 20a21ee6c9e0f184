"""A bundle on pre-trained weights whose heads and graph nobody has trained: that changes scores, and neither times nor
memory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from benchmarks.engine_shapes import neutral_calibration
from event_data.event_log import EventLog
from models.bundle import Bundle
from models.checkpoint import default_exits, open_checkpoint
from models.exit_model import ExitConfig, ExitModel
from models.features import FEATURES
from models.golden_check import with_golden
from models.graph_base import GraphBase
from training.golden import invented_requests
from training.presets import PRETRAINED

DIM = 32
"""Width of embeddings."""
PROPAGATION_STEPS = 2


def save_untrained(backbone: str, layers: int | None, log: EventLog, folder: Path) -> Bundle:
    """Saves a bundle as a training from these weights would: in bfloat16, with golden requests.

    Args:
        backbone: a Hugging Face folder, a GGUF file, or `smollm2`.
        layers: decoder layers to keep, from the first; None: all.
        log: its catalogue is the bundle's.
        folder: where to.

    Raises:
        ExitstreamError: the weights cannot be read.
    """
    checkpoint = open_checkpoint(backbone, layers)
    exits = default_exits(checkpoint.model.config.num_hidden_layers)
    torch.manual_seed(0)
    model = ExitModel(checkpoint.model, ExitConfig(exits, DIM, max(DIM, len(FEATURES)), len(FEATURES))).eval()
    for head in model.heads:
        # Random weights would enlarge rounding errors beyond what the answers to golden requests may differ by.
        torch.nn.init.zeros_(head.linear.weight)  # type: ignore[union-attr, arg-type]
    model.round_backbone(torch.bfloat16)
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return random.normal(0.0, 0.1, shape).astype(np.float32)

    items = [item.item_id for item in log.items]
    alphas = np.full(PROPAGATION_STEPS + 1, 1 / (PROPAGATION_STEPS + 1), np.float32)
    words = normal(checkpoint.text.largest_token_id + 1, DIM)
    graph = GraphBase(alphas, items, normal(len(items), DIM), words, normal(DIM))
    bundle = Bundle(
        model,
        neutral_calibration(len(exits)),
        graph,
        checkpoint.text,
        PRETRAINED.limits,
        dataset=log.name,
        template=PRETRAINED.template,
    )
    return with_golden(bundle, invented_requests(log.items, seed=0)).save(folder)
