"""The topics as contracts: what each carries, its key, its writer, how it is kept; and the headers of dead letters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from schemas.messages import (
    ImpressionRequest,
    ImpressionScores,
    Interaction,
    Item,
    ItemPart,
    ItemState,
    Message,
    UserState,
)


@dataclass(frozen=True)
class Channel:
    """A topic as a contract.

    Attributes:
        topic: its default name.
        message: what it carries.
        key: what the records' key is.
        action: seen from exitstream, which receives what the user's systems write and sends what they may read.
        compacted: whether the latest record of each key is kept, instead of all for some time.
        description: for people.
    """

    topic: str
    message: type[Message]
    key: str
    action: Literal["send", "receive"]
    compacted: bool
    description: str


INTERACTIONS: Final = Channel(
    "interactions", Interaction, "user id", "receive", False, "What users do with items, as it happens."
)
ITEMS: Final = Channel("items", Item, "item id", "receive", True, "The catalogue; an item's latest record counts.")
IMPRESSION_REQUESTS: Final = Channel(
    "impression-requests", ImpressionRequest, "user id", "receive", False, "Candidates to score by a deadline."
)
CTR_SCORES: Final = Channel(
    "ctr-scores", ImpressionScores, "request id", "send", False, "One answer for every request."
)
SHADOW_SCORES: Final = Channel(
    "shadow-scores",
    ImpressionScores,
    "request id",
    "send",
    False,
    "What another bundle would have answered to a share of the requests, for comparison; nobody is served from it.",
)
USER_STATES: Final = Channel(
    "user-states", UserState, "user id", "send", True, "Embedding and recent history of every user."
)
ITEM_STATES: Final = Channel(
    "item-states", ItemState, "item id", "send", True, "Embedding and statistics of every item."
)
ITEM_PARTS: Final = Channel(
    "item-parts",
    ItemPart,
    "number of the shard, `-of-`, number of shards, `/` and item id",
    "send",
    True,
    "What updaters that share the users tell each other of items; empty where one updater has them all.",
)
CHANNELS: Final = (
    INTERACTIONS,
    ITEMS,
    IMPRESSION_REQUESTS,
    CTR_SCORES,
    SHADOW_SCORES,
    USER_STATES,
    ITEM_STATES,
    ITEM_PARTS,
)
DEAD_LETTER_SUFFIX: Final = ".dead-letter"
"""Of the topic that keeps what could not be read from an input; the default."""
REASON: Final = "dead-letter-reason"
PROGRAM: Final = "dead-letter-program"
TOPIC: Final = "dead-letter-topic"
PARTITION: Final = "dead-letter-partition"
OFFSET: Final = "dead-letter-offset"
TIME: Final = "dead-letter-time-ms"
RECORD_TIME: Final = "dead-letter-record-time-ms"
ATTEMPT: Final = "dead-letter-attempt"
NULL_VALUE: Final = "dead-letter-null-value"
REPLAYED: Final = "dead-letter-replayed"
DEAD_LETTER_HEADERS: Final = {
    REASON: "What was wrong, for people. The first of our headers: the record's own ones stand before it.",
    PROGRAM: "Which program refused it.",
    TOPIC: "The topic it was read from.",
    PARTITION: "The partition it was read from.",
    OFFSET: "Its offset there.",
    TIME: "When it was refused, Unix milliseconds.",
    RECORD_TIME: "The record's own timestamp, Unix milliseconds.",
    ATTEMPT: "1 for the first refusal, one more after each replay; a replayed record carries the number to come.",
}
"""What each header of a dead letter says; every letter has all of them."""
NULL_VALUE_HEADERS: Final = {
    NULL_VALUE: "`true`: the record had neither key nor value; the empty value here stands for none.",
}
"""What only some dead letters have."""
REPLAY_MARK_HEADERS: Final = {
    REPLAYED: "`true`: no letter, but the mark of one whose record `exitstream dead-letters replay` has written again.",
    TOPIC: "Where the letter's record was read: its topic,",
    PARTITION: "its partition",
    OFFSET: "and its offset there.",
    RECORD_TIME: "That record's own timestamp, Unix milliseconds.",
    TIME: "When it was replayed, Unix milliseconds.",
}
"""What each header of a replay mark says. A mark stands in the dead-letter topic, behind its letter."""
