"""Requests typed in by hand: scored beside the traffic, a step between two rounds, and explained.

They do not come from Kafka and leave nothing there. Every head is asked; which of them answers within the budget
follows from what the steps took.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from models.evidence import Evidence
from runtime.clock import Clock
from schemas.messages import ImpressionRequest
from worker.compute import ComputeThread
from worker.explain import CandidateExplanation, explanation_steps
from worker.live.ladder import ReachedHead, Rung, answer_within
from worker.live.words import CandidateInWords, InWords
from worker.model import ServingModel
from worker.steps import between_rounds

MOST_CANDIDATES: Final = 8
MOST_BYTES: Final = 4_096
PAUSE_S: Final = 0.25
"""Between the end of one typed request and the start of the next, whoever asks."""
Typed = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class TypedRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is typed in."""

    user_id: Typed
    candidate_item_ids: Annotated[list[Typed], msgspec.Meta(min_length=1, max_length=MOST_CANDIDATES)]
    budget_ms: Annotated[int, msgspec.Meta(ge=0, le=3_600_000)]


class TypedCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate's answer, and what every head said."""

    words: CandidateInWords
    answer: Rung
    heads: Sequence[ReachedHead]
    graph_ctr: float


class TypedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a typed request."""

    user_id: str
    user: str
    prompt: str
    candidates: Sequence[TypedCandidate]
    threshold: float
    """In force when it was answered."""
    took_ms: float
    """All steps, every head included; without the rounds between them."""
    model_version: str


class TooBusy(Exception):
    """Another typed request is being answered, or was a moment ago."""


class TypedRequests:
    """Answers them, one at a time.

    Args:
        model: the one that serves.
        thread: its thread.
        clock: measures the steps.
    """

    def __init__(self, model: ServingModel, thread: ComputeThread, clock: Clock) -> None:
        self._model = model
        self._thread = thread
        self._clock = clock
        self._words = InWords(model)
        self._free_at_s = 0.0
        self._one = asyncio.Lock()
        self._decoder = msgspec.json.Decoder(TypedRequest)

    def decode(self, body: bytes) -> TypedRequest:
        """The request in JSON.

        Raises:
            msgspec.MsgspecError: it is none; says what is wrong with it.
        """
        return self._decoder.decode(body)

    async def answer(self, typed: TypedRequest) -> TypedAnswer:
        """The answer and everything that went into it.

        Raises:
            TooBusy: another one is being answered, or was a moment ago.
            ValueError: the prompt is longer than the model reads.
        """
        if self._one.locked() or self._clock.monotonic() < self._free_at_s:
            raise TooBusy("one typed request at a time, and a moment between two; try again")
        async with self._one:
            try:
                return await self._answer(typed)
            finally:
                self._free_at_s = self._clock.monotonic() + PAUSE_S

    async def _answer(self, typed: TypedRequest) -> TypedAnswer:
        request = ImpressionRequest(
            request_id="typed",
            user_id=typed.user_id,
            candidate_item_ids=typed.candidate_item_ids,
            created_time_ms=self._clock.wall_ms(),
        )
        explanation, spent = await between_rounds(self._thread, explanation_steps(self._model, request), self._clock)
        evidence = Evidence(
            user=explanation.user, candidates=[candidate.evidence for candidate in explanation.candidates]
        )
        prefix, words = await self._thread.call(lambda: self._words.evidence(evidence))
        threshold = self._model.engine.controller.threshold
        reached_ms = head_times_ms(spent, len(self._model.engine.exit_layers))
        return TypedAnswer(
            user_id=typed.user_id,
            user=self._words.user(typed.user_id),
            prompt=prefix,
            candidates=[
                _candidate(told, in_words, reached_ms, threshold, typed.budget_ms)
                for told, in_words in zip(explanation.candidates, words, strict=True)
            ],
            threshold=threshold,
            took_ms=1000 * sum(seconds for _, seconds in spent),
            model_version=explanation.model_version,
        )


def head_times_ms(spent: Sequence[tuple[str, float]], heads: int) -> list[float]:
    """When each head had answered, milliseconds after the start, from what the steps of an explanation took."""
    before_s = sum(seconds for step, seconds in spent if not step.startswith("head"))
    stages_s = [sum(seconds for step, seconds in spent if step == f"head {head}") for head in range(heads)]
    return [1000 * (before_s + sum(stages_s[: head + 1])) for head in range(heads)]


def _candidate(
    told: CandidateExplanation, words: CandidateInWords, reached_ms: Sequence[float], threshold: float, budget_ms: float
) -> TypedCandidate:
    heads = [
        ReachedHead(head.layer, head.ctr, head.confidence, at_ms)
        for head, at_ms in zip(told.heads, reached_ms, strict=True)
    ]
    return TypedCandidate(
        words=words,
        answer=answer_within(heads, told.graph_ctr, threshold, budget_ms),
        heads=heads,
        graph_ctr=told.graph_ctr,
    )
