"""Every message exitstream reads or writes, as tagged msgspec Structs.

Evolution rules: a new field has a default; a field or tag name is never reused; `SCHEMA_VERSION` grows when a reader
of the old version could misread the new one. Times are Unix milliseconds, embeddings little-endian bytes.
"""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import msgspec

SCHEMA_VERSION = 1
"""Version of the whole set of messages; travels in the `schema-version` header of every record."""

Identifier = Annotated[
    str, msgspec.Meta(min_length=1, max_length=1024, description="An opaque id, any Unicode, not empty.")
]
LATEST_MS = 253_402_300_799_999
"""The end of the year 9999."""
UnixMillis = Annotated[int, msgspec.Meta(ge=0, le=LATEST_MS, description="Unix time in milliseconds.")]
Finite = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
"""Any number but NaN and the infinities, which MessagePack carries: a bound lets the decoder itself refuse them."""
Probability = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]

LEAST_WEIGHT = 1e-6
"""The lightest edge that the updater takes in. Single precision must hold it beside edges of the largest weight, many
half-lives apart."""

FULL_GRADE = 255
"""The best grade where grades are kept as whole numbers: a byte each, and sums that do not depend on the order."""

InteractionKind = Literal["impression", "click", "purchase", "rating", "like", "dislike", "view", "removal", "other"]
"""What the user did. `removal` withdraws an earlier interaction of the same user and item."""

MadeBy = Literal["confident", "final", "deadline", "graph"]
"""How a score came about: an early head was confident enough; the final head answered; time ran out and the deepest
head reached answered; no head could be reached in time and the calibrated graph score answered."""

QualityFloor = Literal["graph", "first_head", "final_head"]
"""The least a requester accepts, even at the price of being late."""

RequestStatus = Literal["ok", "late", "empty"]
"""`late`: the deadline had passed when the scores were made; `empty`: the request named no candidates."""

EmbeddingDtype = Literal["float16", "float32"]


class Interaction(msgspec.Struct, tag="interaction", frozen=True, kw_only=True):
    """One thing a user did with (or was shown of) an item.

    `positive` says whether it counts as a click for the model: None leaves it to the settings' list of positive kinds.
    `weight` is the strength of the edge in the graph; of one pair's interactions the latest in event time counts. A
    weight below 0.000001 becomes a dead letter: to take an interaction back, send a `removal`.

    `grade` says how good it was for the user, from 0 (as bad as can be) to 1: a rating on its scale, the share of a
    video that was watched. None counts as 1 for a click and 0 for anything else.
    """

    event_id: Identifier
    user_id: Identifier
    item_id: Identifier
    kind: InteractionKind
    event_time_ms: UnixMillis
    positive: bool | None = None
    weight: Annotated[float, msgspec.Meta(gt=0.0, le=1e6)] = 1.0
    grade: Probability | None = None


class Item(msgspec.Struct, tag="item", frozen=True, kw_only=True):
    """An entry of the catalogue. Title and attributes are plain text: nothing in them is ever a control token."""

    item_id: Identifier
    title: str | None = None
    attributes: dict[str, str] = {}


class ImpressionRequest(msgspec.Struct, tag="impression-request", frozen=True, kw_only=True):
    """Score these candidates for this user, until `created_time_ms + budget_ms` (None: the worker's default budget)."""

    request_id: Identifier
    user_id: Identifier
    candidate_item_ids: list[Identifier]
    created_time_ms: UnixMillis
    budget_ms: Annotated[int, msgspec.Meta(ge=0, le=3_600_000)] | None = None
    quality_floor: QualityFloor = "graph"
    context: dict[str, str] = {}


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of evidence that stood in the prompt."""

    kind: Literal["past_item", "similar_user", "similar_item"]
    id: Identifier
    similarity: Finite
    positive: bool | None = None
    """Whether that user clicked the candidate / this user clicked that item; None where it is a rate over many."""


class CandidateScore(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate's calibrated click-through rate and how it was made."""

    item_id: Identifier
    ctr: Probability
    made_by: MadeBy
    exit_layer: Annotated[int, msgspec.Meta(ge=0)]
    """Number of decoder layers that were run for it; 0 for a graph score."""
    confidence: Probability
    """Estimate that the final head would not have changed the answer; for `final` 1, for `graph` 0."""
    neighbours: list[Neighbour] = []


class StepTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds spent per step of one request, in the order of the steps."""

    transit_ms: Finite = 0.0
    """From the request's created time until the worker decoded it (the clocks of two machines)."""
    queue_ms: Finite = 0.0
    retrieve_ms: Finite = 0.0
    prompt_ms: Finite = 0.0
    infer_ms: Finite = 0.0


class ImpressionScores(msgspec.Struct, tag="impression-scores", frozen=True, kw_only=True):
    """The answer to one `ImpressionRequest`: a score per distinct candidate, in the order of the request."""

    request_id: Identifier
    user_id: Identifier
    status: RequestStatus
    scores: list[CandidateScore]
    model_version: str
    created_time_ms: UnixMillis
    deadline_ms: UnixMillis
    scored_time_ms: UnixMillis
    exit_threshold: Finite
    """The threshold in force when the last of its candidates left."""
    lateness_ms: Finite = 0.0
    """How long after the deadline the scores were made; 0 when in time."""
    embedding_version: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Version of the user's embedding that was used; 0 when there was none."""
    embedding_age_ms: Finite | None = None
    """Age of the newest event that the user's embedding knows of; None when there was none."""
    step_times: StepTimes = StepTimes()
    user_state_read: bool = True
    """False: the worker had not (or not yet) read the partition in which the user's state stands, so that the scores
    are those of a user of whom nothing is known."""


class PastInteraction(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """An entry of a user's recent history; packed as an array because there are many."""

    item_id: Identifier
    event_time_ms: UnixMillis
    positive: bool
    event_id: Identifier
    """As sent, or, beyond 40 bytes of UTF-8, its BLAKE2 digest in 40 characters: enough to know a repetition by."""
    grade: Annotated[int, msgspec.Meta(ge=0, le=FULL_GRADE)] | None = None
    """In 255ths, as it is kept. None where the outcome implies it: 255 for a click, 0 for none."""


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    """A vector of `dim` numbers as little-endian bytes of `dtype`."""

    data: bytes
    dtype: EmbeddingDtype
    dim: Annotated[int, msgspec.Meta(ge=1, le=65_536)]
    version: Annotated[int, msgspec.Meta(ge=1)]
    """Grows with every publication of this id; after an updater's crash it goes on from its last snapshot's number."""
    space: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """Identity of the base embeddings that it was made of. Embeddings of two spaces cannot be compared. Empty where the
    updater did not tell."""


class UserState(msgspec.Struct, tag="user-state", frozen=True, kw_only=True):
    """What the worker needs to know of a user; the latest one replaces all before it."""

    user_id: Identifier
    embedding: Embedding | None
    recent: list[PastInteraction]
    """The last K interactions, oldest first."""
    impressions: Annotated[int, msgspec.Meta(ge=0)]
    """Interactions ever seen of this user, positive or not."""
    positives: Annotated[int, msgspec.Meta(ge=0)]
    last_event_time_ms: UnixMillis
    published_time_ms: UnixMillis
    grades: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Sum of the grades of these interactions, in 255ths. None: each click has 255, as an earlier updater means it."""


class ItemState(msgspec.Struct, tag="item-state", frozen=True, kw_only=True):
    """What the worker needs to know of an item; the latest one replaces all before it."""

    item_id: Identifier
    embedding: Embedding | None
    impressions: Annotated[int, msgspec.Meta(ge=0)]
    positives: Annotated[int, msgspec.Meta(ge=0)]
    last_event_time_ms: UnixMillis
    published_time_ms: UnixMillis
    grades: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Sum of the grades of these interactions, in 255ths; None as for a user."""


class ItemPart(msgspec.Struct, tag="item-part", frozen=True, kw_only=True):
    """What one of several updaters that share the users knows of an item from its own users; the latest one replaces
    all before it. Updaters write these for each other.
    """

    item_id: Identifier
    shard: Annotated[int, msgspec.Meta(ge=0)]
    shards: Annotated[int, msgspec.Meta(ge=2)]
    space: str
    """Identity of the base embeddings that the sums are made of, as of an `Embedding`."""
    degree: Annotated[float, msgspec.Meta(ge=0.0, le=sys.float_info.max)]
    """Sum of the weights of the item's edges."""
    edges: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
    """How many edges the item has."""
    landmark_ms: Annotated[int, msgspec.Meta(ge=-1, le=2 * LATEST_MS)]
    """What the weights are relative to, with decay."""
    sums: bytes
    """Weighted sums of the users' vectors, layer by layer: float32, little-endian."""
    impressions: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    positives: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    grades: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    last_event_time_ms: UnixMillis
    mentioned: bool
    """Whether it is in a user's history."""


def grades_of(state: UserState | ItemState) -> int:
    """The sum of the grades that a state tells, or that its clicks imply."""
    return min(FULL_GRADE * state.positives, 2**63 - 1) if state.grades is None else state.grades


Message = Interaction | Item | ImpressionRequest | ImpressionScores | UserState | ItemState | ItemPart
