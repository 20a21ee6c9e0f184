"""User and item states as columns of bytes: a reader takes numbers out of many records at once, without decoding each.

A record is a header (`HEADER`), then the columns of the history, then text. Every part begins at a multiple of 8 bytes
from the beginning of the record, and the record's length is one, so that records laid end to end can be read as arrays
of whole numbers. All numbers are little-endian:

    header           72 bytes, see `HEADER`
    times            8 bytes an interaction, Unix milliseconds, oldest first
    item hashes      8 bytes an interaction, see `id_hash`
    embedding        `dim` numbers of `dtype`
    outcomes         a byte an interaction: 1 for a click, else 0
    grades           a byte an interaction: 0 to `FULL_GRADE`
    name lengths     2 bytes an interaction: bytes of the item's id
    event lengths    2 bytes an interaction: bytes of the event's id
    text             id, space of the embedding, ids of the items, ids of the events, end to end, UTF-8

The state of an item is the same without interactions. What stands here, one record at a time and in plain Python, is
the reference for the updater's and the worker's readers and writers of many at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate
from typing import Any, Final, TypeVar

import numpy as np

from schemas.codec import FORMAT_HEADER, VERSION_HEADER, Headers, MalformedRecord, MessageDecoder
from schemas.messages import (
    FULL_GRADE,
    LATEST_MS,
    SCHEMA_VERSION,
    Embedding,
    EmbeddingDtype,
    ItemState,
    PastInteraction,
    UserState,
    grades_of,
)

CONTENT_TYPE: Final = b"application/vnd.exitstream.packed-state"
PACKED_HEADERS: Final = ((FORMAT_HEADER, CONTENT_TYPE), (VERSION_HEADER, str(SCHEMA_VERSION).encode()))
"""Of every packed record."""
USER_MAGIC: Final = b"ESU1"
ITEM_MAGIC: Final = b"ESI1"
HEADER: Final = np.dtype(
    [
        ("magic", "<u4"),  # USER_MAGIC or ITEM_MAGIC
        ("dtype", "u1"),  # of the embedding, an index into DTYPES
        ("unused", "u1"),
        ("space_bytes", "<u2"),
        ("dim", "<u4"),  # 0 without embedding
        ("past", "<u4"),  # interactions in the history
        ("version", "<i8"),  # of the embedding
        ("impressions", "<i8"),
        ("positives", "<i8"),
        ("grades", "<i8"),
        ("last_event_time_ms", "<i8"),
        ("published_time_ms", "<i8"),
        ("id_bytes", "<u4"),
        ("record_bytes", "<u4"),
    ]
)
DTYPES: Final[tuple[EmbeddingDtype | None, ...]] = (None, "float16", "float32")
NUMBER_BYTES: Final = (0, 2, 4)
"""Of one number of an embedding, by `DTYPES`."""
MOST_NAME_BYTES: Final = 4 * 1_024
"""Of an id, see `schemas.messages.Identifier`."""
_NUMBERS: Final = ("impressions", "positives", "grades", "last_event_time_ms", "published_time_ms")
_WORD: Final = 8
_HASHES_KEPT: Final = 1 << 15
_MOST: Final = 2**63 - 1
S = TypeVar("S", bound=UserState | ItemState)


@lru_cache(_HASHES_KEPT)
def id_hash(name: str) -> int:
    """By which a packed history refers to an item: 64 bits of the id's BLAKE2b. Among a million ids two have the same
    with a probability of 3e-8.
    """
    return int.from_bytes(blake2b(name.encode(), digest_size=_WORD).digest(), "little")


def padded(length: int) -> int:
    """The next multiple of 8."""
    return -(-length // _WORD) * _WORD


def pack_state(state: UserState | ItemState) -> bytes:
    """The state as a packed record.

    Raises:
        MalformedRecord: a count is beyond 64 bits, or the embedding has not as many bytes as it tells.
    """
    is_user = isinstance(state, UserState)
    name = (state.user_id if isinstance(state, UserState) else state.item_id).encode()
    past: Sequence[PastInteraction] = state.recent if isinstance(state, UserState) else ()
    embedding, space = state.embedding, b""
    header = np.zeros((), HEADER)
    header["magic"] = int.from_bytes(USER_MAGIC if is_user else ITEM_MAGIC, "little")
    if embedding is not None:
        size = embedding.dim * NUMBER_BYTES[DTYPES.index(embedding.dtype)]
        if len(embedding.data) != size:
            raise MalformedRecord(
                f"an embedding of {embedding.dim} {embedding.dtype} numbers takes {size} bytes, "
                f"not {len(embedding.data)}"
            )
        space = embedding.space.encode()
        header["dtype"], header["dim"] = DTYPES.index(embedding.dtype), embedding.dim
    numbers = {field: getattr(state, field) for field in _NUMBERS} | {"grades": grades_of(state)}
    numbers["version"] = 0 if embedding is None else embedding.version
    for field, number in numbers.items():
        if not 0 <= number <= _MOST:
            raise MalformedRecord(f"the number {number} of {field} is beyond 64 bits")
        header[field] = number
    header["space_bytes"], header["past"], header["id_bytes"] = len(space), len(past), len(name)
    names = [one.item_id.encode() for one in past]
    events = [one.event_id.encode() for one in past]
    body = b"".join(
        [
            np.array([one.event_time_ms for one in past], "<i8").tobytes(),
            np.array([id_hash(one.item_id) for one in past], "<u8").tobytes(),
            _to_words(b"" if embedding is None else embedding.data),
            _to_words(bytes(one.positive for one in past)),
            _to_words(bytes(FULL_GRADE * one.positive if one.grade is None else one.grade for one in past)),
            _to_words(np.array([len(one) for one in names], "<u2").tobytes()),
            _to_words(np.array([len(one) for one in events], "<u2").tobytes()),
            _to_words(b"".join([name, space, *names, *events])),
        ]
    )
    header["record_bytes"] = HEADER.itemsize + len(body)
    return header.tobytes() + body


def unpack_user_state(value: bytes) -> UserState:
    """The state in a packed record.

    Raises:
        MalformedRecord: what is wrong with it, in words.
    """
    parts = _Parts(value, USER_MAGIC, "user state")
    return UserState(
        user_id=parts.name,
        embedding=parts.embedding(),
        recent=parts.past(),
        **{field: parts.number(field) for field in _NUMBERS},
    )


def unpack_item_state(value: bytes) -> ItemState:
    """The state in a packed record.

    Raises:
        MalformedRecord: what is wrong with it, in words.
    """
    parts = _Parts(value, ITEM_MAGIC, "item state")
    return ItemState(
        item_id=parts.name,
        embedding=parts.embedding(),
        **{field: parts.number(field) for field in _NUMBERS},
    )


def unpack_history(value: bytes) -> list[PastInteraction]:
    """The history in a packed user state, without the rest.

    Raises:
        MalformedRecord: what is wrong with it, in words.
    """
    return _Parts(value, USER_MAGIC, "user state").past()


class StateDecoder(MessageDecoder[S]):
    """Reads states in any format: packed, MessagePack or JSON.

    Args:
        message_type: the state to expect.
        max_bytes: larger records are refused without decoding.
    """

    def __init__(self, message_type: type[S], max_bytes: int = 1_048_576) -> None:
        super().__init__(message_type, max_bytes)
        unpack: Callable[[bytes], Any] = unpack_user_state if message_type is UserState else unpack_item_state
        self._unpack: Callable[[bytes], S] = unpack

    def decode(self, value: bytes | None, headers: Headers = ()) -> S:
        """As `MessageDecoder.decode`."""
        if value is not None and is_packed(headers):
            self.check_size(value)
            return self._unpack(value)
        return super().decode(value, headers)


def is_packed(headers: Headers) -> bool:
    """Whether a record with these headers is packed."""
    return any(name == FORMAT_HEADER and content == CONTENT_TYPE for name, content in headers)


class _Parts:
    """The parts of one record, each checked before it is read."""

    def __init__(self, value: bytes, magic: bytes, what: str) -> None:
        if len(value) < HEADER.itemsize:
            raise MalformedRecord(f"{len(value)} bytes are fewer than the header of a packed {what}")
        if value[:4] != magic:
            raise MalformedRecord(f"not a packed {what}: it begins with {value[:4]!r} instead of {magic!r}")
        self._value = value
        self._header = np.frombuffer(value, HEADER, 1)[0]
        if int(self._header["dtype"]) >= len(DTYPES):
            raise MalformedRecord(f"an embedding of the unknown kind {int(self._header['dtype'])}")
        self._lay_out()
        self.name = self._texts(self._text_start, [int(self._header["id_bytes"])], "id")[0]

    def number(self, field: str) -> int:
        """A number of the header."""
        number = int(self._header[field])
        if number < 0 or (field.endswith("_ms") and number > LATEST_MS):
            raise MalformedRecord(f"{field} is {number}, which cannot be")
        return number

    def embedding(self) -> Embedding | None:
        """The embedding, if there is one."""
        dtype = DTYPES[int(self._header["dtype"])]
        if dtype is None or not self._dim:
            return None
        size = self._dim * NUMBER_BYTES[int(self._header["dtype"])]
        at = self._text_start + int(self._header["id_bytes"])
        space = self._text(at, int(self._header["space_bytes"]), "space")
        data = self._value[self._embedding_start : self._embedding_start + size]
        return Embedding(data=data, dtype=dtype, dim=self._dim, version=max(1, self.number("version")), space=space)

    def past(self) -> list[PastInteraction]:
        """The history, oldest first."""
        names = self._column(self._names_start, "<u2")
        events = self._column(self._events_start, "<u2")
        if self._name_start + int(names.sum()) + int(events.sum()) > len(self._value):
            raise MalformedRecord("the ids of the history go beyond the end of the record")
        outcomes, grades = self._column(self._outcomes_start, "u1"), self._column(self._grades_start, "u1")
        rows = zip(
            self._texts(self._name_start, names.tolist(), "item"),
            self._column(HEADER.itemsize, "<i8").tolist(),
            outcomes.tolist(),
            self._texts(self._name_start + int(names.sum()), events.tolist(), "event"),
            grades.tolist(),
            strict=True,
        )
        return [
            PastInteraction(
                item_id=item,
                event_time_ms=time_ms,
                positive=bool(outcome),
                event_id=event,
                grade=None if grade == FULL_GRADE * bool(outcome) else grade,
            )
            for item, time_ms, outcome, event, grade in rows
        ]

    def _lay_out(self) -> None:
        header = self._header
        past, self._dim = int(header["past"]), int(header["dim"])
        sizes = (
            2 * _WORD * past,
            padded(self._dim * NUMBER_BYTES[int(header["dtype"])]),
            padded(past),
            padded(past),
            padded(2 * past),
            padded(2 * past),
        )
        self._past = past
        *starts, self._text_start = accumulate(sizes, initial=HEADER.itemsize)
        _, self._embedding_start, self._outcomes_start, self._grades_start = starts[:4]
        self._names_start, self._events_start = starts[4:]
        self._name_start = self._text_start + int(header["id_bytes"]) + int(header["space_bytes"])
        if self._name_start > len(self._value) or int(header["record_bytes"]) != len(self._value):
            raise MalformedRecord(
                f"{len(self._value)} bytes where the header tells {int(header['record_bytes'])} "
                f"and {self._name_start} before the ids of the history"
            )

    def _column(self, start: int, dtype: str) -> np.ndarray:  # (past,)
        return np.frombuffer(self._value, dtype, self._past, start)

    def _texts(self, start: int, lengths: Sequence[int], what: str) -> list[str]:
        """Ids of these lengths, end to end."""
        texts = []
        for length in lengths:
            if not 0 < length <= MOST_NAME_BYTES:
                raise MalformedRecord(f"an id ({what}) of {length} bytes; it has 1 to {MOST_NAME_BYTES}")
            texts.append(self._text(start, length, what))
            start += length
        return texts

    def _text(self, start: int, length: int, what: str) -> str:
        try:
            return self._value[start : start + length].decode()
        except UnicodeDecodeError as error:
            raise MalformedRecord(f"a text ({what}) is not UTF-8: {error}") from error


def _to_words(part: bytes) -> bytes:
    return part.ljust(padded(len(part)), b"\0")
