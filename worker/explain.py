"""Why this score? One request answered at full depth: its evidence, its prompt, every head's answer."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from models.evidence import CandidateEvidence, Evidence, UserEvidence
from models.features import Features
from models.prompt import Prompt
from models.prompt_rendering import render, title_of
from models.text import Text
from schemas.messages import ImpressionRequest
from worker.engine.engine import ScoringEngine
from worker.engine.settings import EngineSettings
from worker.engine.trace import Trace
from worker.job import Job
from worker.model import ServingModel
from worker.state_store.tables import Tables
from worker.steps import to_its_end


@dataclass(frozen=True, slots=True)
class HeadAnswer:
    """What one head says of one candidate."""

    layer: int
    """Decoder layers up to it."""
    ctr: float
    confidence: float


@dataclass(frozen=True, slots=True)
class CandidateExplanation:
    """Everything that went into one candidate's score."""

    item_id: str
    evidence: CandidateEvidence
    statistics: Features
    """As the model reads them: the leading `FEATURES`."""
    suffix: str
    """Its part of the prompt, as a person reads it."""
    heads: Sequence[HeadAnswer]
    """From the shallowest to the final one."""
    exit_at: int
    """Which of them would have answered without load: the first whose confidence reaches the base threshold."""
    graph_ctr: float
    """Its score from the graph, which it would have got without time for any head."""

    @property
    def answer(self) -> HeadAnswer:
        """The head that would have answered without load."""
        return self.heads[self.exit_at]


@dataclass(frozen=True, slots=True)
class Explanation:
    """How one request is scored."""

    user: UserEvidence
    prefix: str
    """The part of the prompt that all candidates share, as a person reads it."""
    candidates: Sequence[CandidateExplanation]
    titles: Mapping[str, str]
    """By item id, of every item in the evidence that has one."""
    base_threshold: float
    model_version: str


def explain(bundle: Bundle, tables: Tables, request: ImpressionRequest) -> Explanation:
    """Scores a request through retrieval, prompt and engine as the worker does, asking every head.

    Args:
        bundle: the trained model; its model is taken over by an engine.
        tables: what is known; made for the bundle's tokenizer and embeddings.
        request: its distinct candidates are explained in their order.

    Raises:
        ValueError: the prompt is longer than the model reads.
    """
    engine: ScoringEngine[Job] = ScoringEngine(bundle.model, bundle.calibration, EngineSettings())
    return to_its_end(explanation_steps(ServingModel.around(engine, bundle, tables), request))


def explanation_steps(model: ServingModel, request: ImpressionRequest) -> Generator[str, None, Explanation]:
    """The same by a worker's own model, a step at a time: the thread that owns the model can serve between two steps.

    Yields:
        What was done: `retrieve`, `prompt` (with the graph score), then `head 0` behind the first stage, and so on; of
        a long request, once for each of its batches.

    Raises:
        ValueError: the prompt is longer than the model reads.
    """
    item_ids = list(dict.fromkeys(request.candidate_item_ids))
    evidence = model.retriever.retrieve(request.user_id, item_ids)
    yield "retrieve"
    prompt = model.prompts.build(evidence)
    graph_ctr = model.graph.score([(request.user_id, item_ids)])[0]
    yield "prompt"
    stages = model.engine.trace_steps(prompt)
    while True:
        try:
            head = next(stages)
        except StopIteration as end:
            return _explanation(model, evidence, prompt, end.value, graph_ctr)
        yield f"head {head}"


def _explanation(
    model: ServingModel, evidence: Evidence, prompt: Prompt, trace: Trace, graph_ctr: NDArray[np.float64]
) -> Explanation:
    shared, *own = model.prompts.soft_items(evidence)
    base = model.calibration.base_threshold
    return Explanation(
        user=evidence.user,
        prefix=render(prompt.prefix, model.text, shared),
        candidates=[
            CandidateExplanation(
                item_id=candidate.item.item_id,
                evidence=candidate,
                statistics=prompt.suffixes[row].soft_values[-1, : model.prompts.statistics],
                suffix=render(prompt.suffixes[row], model.text, own[row]),
                heads=[
                    HeadAnswer(layer, float(ctr), float(confidence))
                    for layer, ctr, confidence in zip(
                        model.engine.exit_layers, trace.ctr[row], trace.confidence[row], strict=True
                    )
                ],
                exit_at=_first_confident(trace.confidence[row], base),
                graph_ctr=float(graph_ctr[row]),
            )
            for row, candidate in enumerate(evidence.candidates)
        ],
        titles=_titles(evidence, model.text),
        base_threshold=base,
        model_version=model.version,
    )


def _titles(evidence: Evidence, text: Text) -> dict[str, str]:
    items = chain(
        (past.item for past in evidence.user.recent),
        *((past.item for past in candidate.past) for candidate in evidence.candidates),
        *((near.item for near in candidate.similar_items) for candidate in evidence.candidates),
        (candidate.item for candidate in evidence.candidates),
    )
    titles = {item.item_id: title_of(item, text) for item in items}
    return {item_id: title for item_id, title in titles.items() if title}


def _first_confident(confidence: NDArray[np.float64], threshold: float) -> int:
    """The first head that reaches the threshold; the final one if none does."""
    reached = np.flatnonzero(confidence >= threshold)
    return int(reached[0]) if len(reached) else len(confidence) - 1
