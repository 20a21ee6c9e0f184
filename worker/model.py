"""A loaded bundle, ready to serve: one object, so that another bundle can take its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from models.bundle import Bundle
from models.calibration import ExitCalibration
from models.prompt import PromptBuilder
from models.text import Text
from worker.budget.controller import ControllerSettings, ThresholdController
from worker.engine.engine import ScoringEngine
from worker.graph_scores import GraphScorer
from worker.job import Job
from worker.retrieval import Retriever
from worker.settings import WorkerSection
from worker.state_store.tables import Tables


@dataclass(frozen=True, slots=True)
class ServingModel:
    """What one bundle brings: retrieval, prompts, inference with its exit threshold, the graph score."""

    version: str
    tables: Tables
    retriever: Retriever
    prompts: PromptBuilder
    engine: ScoringEngine[Job]
    graph: GraphScorer
    text: Text
    calibration: ExitCalibration

    @classmethod
    def from_bundle(
        cls, bundle: Bundle, tables: Tables, settings: WorkerSection, monotonic: Callable[[], float]
    ) -> ServingModel:
        """The bundle over these tables, warmed up. Takes seconds; to be called by the thread that will own it."""
        model = cls.cold(bundle, tables, settings, monotonic)
        model.engine.warm_up()
        return model

    @classmethod
    def cold(
        cls, bundle: Bundle, tables: Tables, settings: WorkerSection, monotonic: Callable[[], float]
    ) -> ServingModel:
        """The bundle over these tables, not warmed up.

        Args:
            bundle: the trained model. Its layers are released, so that memory holds them once.
            tables: what is known; they must have been made for the bundle's tokenizer and embeddings.
            settings: how to run.
            monotonic: the clock of deadlines, in seconds.
        """
        controller = make_controller(bundle, settings.controller)
        engine: ScoringEngine[Job] = ScoringEngine(
            bundle.model, bundle.calibration, settings.engine, controller, clock=monotonic, owns_model=True
        )
        return cls.around(engine, bundle, tables)

    @classmethod
    def around(cls, engine: ScoringEngine[Job], bundle: Bundle, tables: Tables) -> ServingModel:
        """The bundle over these tables with an engine that was made of it."""
        return cls(
            version=bundle.version,
            tables=tables,
            retriever=Retriever(tables, bundle.limits),
            prompts=bundle.prompt_builder(),
            engine=engine,
            graph=GraphScorer(tables, bundle.calibration),
            text=bundle.text,
            calibration=bundle.calibration,
        )


def make_controller(bundle: Bundle, settings: ControllerSettings) -> ThresholdController:
    """Thresholds as calibrated, unless the settings say otherwise; a lower base threshold lowers the floor."""
    calibration = bundle.calibration
    base = calibration.base_threshold if settings.base_threshold is None else settings.base_threshold
    floor = calibration.floor_threshold if settings.floor_threshold is None else settings.floor_threshold
    return ThresholdController(base, min(floor, base), calibration.frontier, settings)
