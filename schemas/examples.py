"""A full and a minimal instance of every message, for the generated documents and the tests' golden bytes."""

from __future__ import annotations

from typing import Final

from schemas.messages import (
    CandidateScore,
    Embedding,
    ImpressionRequest,
    ImpressionScores,
    Interaction,
    Item,
    ItemPart,
    ItemState,
    Message,
    Neighbour,
    PastInteraction,
    StepTimes,
    UserState,
)

_NOON: Final = 1_767_268_800_000  # 2026-01-01 12:00 UTC

FULL: Final[tuple[Message, ...]] = (
    Interaction(
        event_id="order-77120",
        user_id="u-42",
        item_id="film-318",
        kind="purchase",
        event_time_ms=_NOON,
        positive=True,
        weight=2.5,
        grade=0.75,
    ),
    Item(item_id="film-318", title="Amélie", attributes={"genre": "comedy", "year": "2001"}),
    ImpressionRequest(
        request_id="r-9001",
        user_id="u-42",
        candidate_item_ids=["film-318", "film-7"],
        created_time_ms=_NOON,
        budget_ms=120,
        quality_floor="first_head",
        context={"place": "front page"},
    ),
    ImpressionScores(
        request_id="r-9001",
        user_id="u-42",
        status="ok",
        scores=[
            CandidateScore(
                item_id="film-318",
                ctr=0.25,
                made_by="confident",
                exit_layer=4,
                confidence=0.875,
                neighbours=[
                    Neighbour(kind="past_item", id="film-12", similarity=0.75, positive=True),
                    Neighbour(kind="similar_user", id="u-7", similarity=0.5, positive=False),
                    Neighbour(kind="similar_item", id="film-319", similarity=-0.125),
                ],
            ),
            CandidateScore(item_id="film-7", ctr=0.03125, made_by="graph", exit_layer=0, confidence=0.0),
        ],
        model_version="2026-01-01.a1b2c3",
        created_time_ms=_NOON,
        deadline_ms=_NOON + 120,
        scored_time_ms=_NOON + 45,
        exit_threshold=0.75,
        lateness_ms=0.0,
        embedding_version=17,
        embedding_age_ms=230.5,
        user_state_read=False,
        step_times=StepTimes(transit_ms=3.0, queue_ms=1.5, retrieve_ms=2.25, prompt_ms=0.5, infer_ms=37.75),
    ),
    UserState(
        user_id="u-42",
        embedding=Embedding(data=b"\x00\x3c\x00\xb8", dtype="float16", dim=2, version=17, space="5d41402abc4b"),
        recent=[
            PastInteraction(item_id="film-12", event_time_ms=_NOON - 60_000, positive=True, event_id="e-1", grade=191),
            PastInteraction(item_id="film-318", event_time_ms=_NOON, positive=False, event_id="e-2"),
        ],
        impressions=9,
        positives=4,
        last_event_time_ms=_NOON,
        published_time_ms=_NOON + 80,
        grades=956,
    ),
    ItemState(
        item_id="film-318",
        embedding=Embedding(
            data=b"\x00\x00\x80\x3f\x00\x00\x00\xbf", dtype="float32", dim=2, version=3, space="5d41402abc4b"
        ),
        impressions=120,
        positives=31,
        last_event_time_ms=_NOON,
        published_time_ms=_NOON + 80,
        grades=7841,
    ),
    ItemPart(
        item_id="film-318",
        shard=1,
        shards=2,
        space="5d41402abc4b",
        degree=31.5,
        edges=31,
        landmark_ms=-1,
        sums=b"\x00\x00\x80\x3f\x00\x00\x00\xbf",
        impressions=64,
        positives=31,
        grades=7841,
        last_event_time_ms=_NOON,
        mentioned=True,
    ),
)

SMALLEST: Final[tuple[Message, ...]] = (
    Interaction(event_id="e", user_id="u", item_id="i", kind="impression", event_time_ms=0),
    Item(item_id="i"),
    ImpressionRequest(request_id="r", user_id="u", candidate_item_ids=[], created_time_ms=0),
    ImpressionScores(
        request_id="r",
        user_id="u",
        status="empty",
        scores=[],
        model_version="",
        created_time_ms=0,
        deadline_ms=0,
        scored_time_ms=0,
        exit_threshold=1.0,
    ),
    UserState(
        user_id="u",
        embedding=None,
        recent=[],
        impressions=0,
        positives=0,
        last_event_time_ms=0,
        published_time_ms=0,
    ),
    ItemState(item_id="i", embedding=None, impressions=0, positives=0, last_event_time_ms=0, published_time_ms=0),
    ItemPart(
        item_id="i",
        shard=0,
        shards=2,
        space="",
        degree=0.0,
        edges=0,
        landmark_ms=-1,
        sums=b"",
        impressions=0,
        positives=0,
        grades=0,
        last_event_time_ms=0,
        mentioned=False,
    ),
)
