"""All choices of a training run in one place, and the two sets of them that ship."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from models.prompt import PromptLimits
from training.calibrate import CalibrationOptions
from training.train_exits import ExitOptions
from training.train_graph import GraphOptions


@dataclass(frozen=True, slots=True)
class Preset:
    """How a bundle is trained."""

    limits: PromptLimits = field(default_factory=PromptLimits)
    graph: GraphOptions = field(default_factory=GraphOptions)
    exits: ExitOptions = field(default_factory=ExitOptions)
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)
    vocabulary: int = 2_000
    graph_share: float = 0.5
    """Share of the training part that the base embeddings are fitted to; heads learn from embeddings only after it."""
    tick: int = 8
    """Most events that go by between two looks at the world when training examples are made."""
    most_graph_events: int = 2_000_000
    """Events to fit base embeddings to; of a longer slice, the latest are taken."""
    most_examples: int = 200_000
    """Candidates to train the heads on; of more, the latest are taken."""
    most_held_out: int = 20_000
    """Candidates to calibrate on; of more, the latest are taken."""
    seed: int = 0


DEMO: Final = Preset(
    limits=PromptLimits(title_tokens=0, candidate_title_tokens=8),
    graph=GraphOptions(steps=400, regularisation=1e-3),
    exits=ExitOptions(hidden=64, intermediate=128, exit_layers=(1, 2, 4), epochs=3, batch_tokens=4_096),
    vocabulary=600,
)
"""For the built-in synthetic data: trained in less than two minutes on two cores."""
STANDARD: Final = Preset(
    limits=PromptLimits(title_tokens=0),
    graph=GraphOptions(),
    exits=ExitOptions(
        hidden=192, intermediate=512, attention_heads=6, exit_layers=(1, 2, 4, 6), epochs=2, learning_rate=1.5e-3
    ),
)
"""For real data sets from MovieLens 100K upwards, on which it trains for some fifteen minutes on two cores."""
