"""A loaded bundle, ready to serve: one object, so that another bundle can take its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from models.bundle import Bundle
from models.prompt import PromptBuilder
from worker.budget import ThresholdController
from worker.engine.engine import ScoringEngine
from worker.graph_scores import GraphScorer
from worker.retrieval import Retriever
from worker.settings import WorkerSection
from worker.tables import Tables


@dataclass(frozen=True, slots=True)
class ServingModel:
    """What one bundle brings: retrieval, prompts, inference, the graph score and the exit threshold."""

    version: str
    retriever: Retriever
    prompts: PromptBuilder
    engine: ScoringEngine
    graph: GraphScorer
    controller: ThresholdController

    @classmethod
    def from_bundle(
        cls, bundle: Bundle, tables: Tables, settings: WorkerSection, monotonic: Callable[[], float]
    ) -> ServingModel:
        """The bundle over these tables, warmed up. Takes seconds; to be called by the thread that will own it.

        Args:
            bundle: the trained model.
            tables: what is known; they must have been made for the bundle's tokenizer and embeddings.
            settings: how to run.
            monotonic: the clock of deadlines, in seconds.
        """
        calibration = bundle.calibration
        engine = ScoringEngine(bundle.model, calibration, settings.engine.settings(), monotonic)
        engine.warm_up()
        return cls(
            version=bundle.version,
            retriever=Retriever(tables, bundle.limits),
            prompts=bundle.prompt_builder(),
            engine=engine,
            graph=GraphScorer(tables, calibration),
            controller=make_controller(bundle, settings),
        )


def make_controller(bundle: Bundle, settings: WorkerSection) -> ThresholdController:
    """Thresholds as calibrated, unless the settings say otherwise; a base threshold below the floor takes it along."""
    wanted = settings.controller
    base = bundle.calibration.base_threshold if wanted.base_threshold is None else wanted.base_threshold
    floor = bundle.calibration.floor_threshold if wanted.floor_threshold is None else wanted.floor_threshold
    return ThresholdController(base, min(floor, base), bundle.calibration.frontier, wanted.settings())
