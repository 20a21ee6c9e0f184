"""All hyperparameters of a training run, and the presets that ship."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from models.prompt import PromptLimits
from models.prompt_template import COMPACT, TERSE, WORDS, PromptTemplate
from training.calibrate import CalibrationOptions
from training.train_exits import ExitOptions
from training.train_graph import GraphOptions


@dataclass(frozen=True, slots=True)
class Preset:
    """All hyperparameters of a training run."""

    limits: PromptLimits = field(default_factory=PromptLimits)
    template: PromptTemplate = TERSE
    """The words of a prompt."""
    graph: GraphOptions = field(default_factory=GraphOptions)
    exits: ExitOptions = field(default_factory=ExitOptions)
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)
    vocabulary: int = 2_000
    graph_share: float = 0.5
    """Share of the training part that base embeddings are fitted to; later examples have embeddings."""
    tick: int = 8
    """Largest number of events by which a training example's history may lag."""
    most_graph_events: int = 2_000_000
    """Largest number of events to fit base embeddings to; the latest are taken."""
    most_examples: int = 200_000
    """Largest number of candidates to train the heads on; the latest are taken."""
    examples_in_memory: int = field(default=500_000, repr=False)
    """Of more candidates to train on, the examples are kept in files. It changes no result, so a training may go on
    with another number: it is no part of what identifies one."""
    most_held_out: int = 20_000
    """Largest number of candidates to calibrate on; the latest are taken."""
    threads: int | None = field(default=None, repr=False)  # changes no step of a training
    """Threads to compute with; None: all. Small models are no faster on several, which wait for each other where a
    machine has other work, and then take many times as long."""
    most_tested: int = field(default=100_000, repr=False)  # changes no step of a training
    """Largest number of candidates to evaluate on at the end; the latest are taken."""
    seed: int = 0


GRADED_HISTORY_LENGTH: Final = 200
"""Past interactions kept per user where events have grades: what a rating says holds for long, while among clicks the
latest tell more of what a user looks for now (docs/decisions/grades.md)."""
DEMO: Final = Preset(
    template=COMPACT,
    limits=PromptLimits(
        title_tokens=8, candidate_title_tokens=8, similar_title_tokens=8, similar_users_shown=0, similar_items=0
    ),
    graph=GraphOptions(steps=400, regularisation=1e-3),
    exits=ExitOptions(
        hidden=64,
        intermediate=128,
        exit_layers=(1, 2, 4),
        epochs=8,
        batch_tokens=1_024,
        initial_std=0.1,
        weight_decay=0.2,
        depth_decay=1.0,
        distillation=0.0,
        patience=2,
    ),
    threads=1,
)
"""For small logs, such as the built-in synthetic data: about three minutes on two cores."""
STANDARD: Final = replace(
    DEMO,
    limits=replace(DEMO.limits, title_tokens=16, candidate_title_tokens=16, similar_title_tokens=16),
    graph=GraphOptions(),
    exits=replace(DEMO.exits, hidden=96, intermediate=256, epochs=4, batch_tokens=2_048, initial_std=0.08),
    vocabulary=8_000,
    threads=None,
)
"""For real data sets: a somewhat wider model, longer titles. Twice the width was no better on 100,000 examples."""
PRETRAINED: Final = Preset(
    template=WORDS,
    limits=PromptLimits(recent_items=8, title_tokens=16, candidate_title_tokens=24, attributes_shown=2),
    exits=ExitOptions(epochs=8, patience=2, batch_tokens=4_096, word_dropout=0.0, weight_decay=0.1, distillation=0.0),
    most_examples=50_000,
)
"""For pre-trained weights: titles are shown, because words are what such weights know, and of fewer past items. The
sizes in `exits` are the checkpoint's own. Its graph is trained as that of a log of the same size without them."""
COMPACT_PRETRAINED: Final = replace(
    PRETRAINED,
    template=COMPACT,
    limits=STANDARD.limits,
    most_examples=30_000,
    most_held_out=4_000,
    most_tested=4_000,
)
"""For pre-trained weights where two cores have to be enough: a candidate takes some ten tokens."""
