"""Reads many packed states (`schemas.packed_states`) at once: numbers of all records as columns.

Each record is checked as far as its columns are read; `ok` tells which can be used. What is wrong with another is told
by the reference that reads one record at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.messages import LATEST_MS
from schemas.packed_states import DTYPES, HEADER, MOST_NAME_BYTES, NUMBER_BYTES

Places = NDArray[np.int64]
_WORD: Final = 8
_HEADER_WORDS: Final = HEADER.itemsize // _WORD
_NUMBER_BYTES: Final = np.array(NUMBER_BYTES, np.int64)
_NOT_NEGATIVE: Final = ("version", "impressions", "positives", "grades", "last_event_time_ms", "published_time_ms")
_TIMES: Final = ("last_event_time_ms", "published_time_ms")


_NOT_ASCII: Final = 0x80


class PastColumns(NamedTuple):
    """Histories of several records, end to end, oldest first."""

    lengths: NDArray[np.int64]  # (records,)
    hashes: NDArray[np.uint64]  # of the items
    positive: NDArray[np.uint8]
    grades: NDArray[np.uint8]


class PackedBatch:
    """Columns of packed records.

    Args:
        values: the records.
        magic: of the kind that they should be.

    Attributes:
        header: (records,) of dtype `HEADER`.
        ok: (records,) which can be read.
    """

    def __init__(self, values: Sequence[bytes], magic: bytes) -> None:
        lengths = np.fromiter(map(len, values), np.int64, len(values))
        whole = (lengths >= HEADER.itemsize) & (lengths % _WORD == 0)
        if not whole.all():  # a stand-in keeps the places of the others
            values = [value if there else bytes(HEADER.itemsize) for value, there in zip(values, whole, strict=True)]
            lengths = np.where(whole, lengths, HEADER.itemsize)
        self._words = np.frombuffer(b"".join(values), np.uint64) if values else np.zeros(0, np.uint64)
        self._octets = self._words.view(np.uint8)
        ends = np.cumsum(lengths) // _WORD
        self._starts = ends - lengths // _WORD  # (records,) first word of each
        places = self._starts[:, None] + np.arange(_HEADER_WORDS)
        self.header = self._words[places].view(HEADER)[:, 0]
        header = self.header
        self._past = header["past"].astype(np.int64)
        kinds = np.minimum(header["dtype"], len(DTYPES) - 1)
        self._number_bytes = _NUMBER_BYTES[kinds]
        self._embedding = self._starts + _HEADER_WORDS + 2 * self._past
        self._embedding_words = -(-header["dim"].astype(np.int64) * self._number_bytes // _WORD)
        self._outcomes = self._embedding + self._embedding_words
        self._grades = self._outcomes + -(-self._past // _WORD)
        self._texts = self._grades + -(-self._past // _WORD) + 2 * -(-2 * self._past // _WORD)
        self.ok = whole & self._is_sound(int.from_bytes(magic, "little"), ends, lengths)

    def value(self, record: int) -> bytes:
        """A record as it came."""
        start, words = int(self._starts[record]), int(self.header["record_bytes"][record]) // _WORD
        return self._words[start : start + words].tobytes()

    def require_ids(self, keys: Sequence[bytes]) -> None:
        """Takes records for wrong whose id is another than theirs among `keys`, or no UTF-8."""
        lengths = np.fromiter(map(len, keys), np.int64, len(keys))
        self.ok &= lengths == self.header["id_bytes"]
        asked = np.flatnonzero(self.ok)
        there = lengths[asked]
        before, ends = np.cumsum(there) - there, np.cumsum(lengths)
        total = np.arange(there.sum())
        theirs = self._octets[total + np.repeat(_WORD * self._texts[asked] - before, there)]
        joined = np.frombuffer(b"".join(keys), np.uint8)
        wanted = joined[total + np.repeat((ends - lengths)[asked] - before, there)]
        of_record = np.repeat(asked, there)
        self.ok[of_record[theirs != wanted]] = False
        for record in np.unique(of_record[theirs >= _NOT_ASCII]).tolist():
            self.ok[record] &= _is_text(keys[record])

    def has_embedding(self) -> NDArray[np.bool_]:
        """Which records hold an embedding, (records,)."""
        there: NDArray[np.bool_] = self.ok & (self._embedding_words > 0)
        return there

    def is_of_space(self, space: bytes) -> NDArray[np.bool_]:
        """Which records hold an embedding of this space, or of one that the updater did not tell, (records,)."""
        lengths = self.header["space_bytes"]
        there = self.has_embedding()
        same: NDArray[np.bool_] = there & ((lengths == 0) | (not space))
        asking = np.flatnonzero(there & ~same & (lengths == len(space)))
        starts = _WORD * self._texts[asking] + self.header["id_bytes"][asking]
        theirs = self._octets[starts[:, None] + np.arange(len(space))]
        same[asking] = (theirs == np.frombuffer(space, np.uint8)).all(axis=1)
        return same

    def embeddings(self, records: Places, dim: int) -> NDArray[np.float32]:
        """Embeddings of records that have one of `dim` numbers, (n, dim)."""
        vectors = np.zeros((len(records), dim), np.float32)
        for size, dtype in ((2, "<f2"), (4, "<f4")):
            these = np.flatnonzero(self._number_bytes[records] == size)
            if len(these):
                places = self._embedding[records[these], None] + np.arange(-(-dim * size // _WORD))
                with np.errstate(invalid="ignore"):  # a number that is not one is the caller's to refuse
                    vectors[these] = self._words[places].view(dtype)[:, :dim]
        return vectors

    def past(self, records: Places, most: int) -> PastColumns:
        """The latest interactions of records, at most so many each."""
        past = self._past[records]
        lengths = np.minimum(past, most)
        first = past - lengths
        total, before = np.arange(lengths.sum()), np.cumsum(lengths) - lengths

        def cells(starts: Places) -> Places:
            places: Places = total + np.repeat(starts + first - before, lengths)
            return places

        return PastColumns(
            lengths=lengths,
            hashes=self._words[cells(self._starts[records] + _HEADER_WORDS + past)],
            positive=self._octets[cells(_WORD * self._outcomes[records])],
            grades=self._octets[cells(_WORD * self._grades[records])],
        )

    def times_after(self, records: Places, known_ms: Places) -> Places:
        """Times of the interactions in records' histories that are later than each record's `known_ms`."""
        lengths = self._past[records]
        before = np.cumsum(lengths) - lengths
        starts = self._starts[records] + _HEADER_WORDS - before
        times = self._words[np.arange(lengths.sum()) + np.repeat(starts, lengths)].view(np.int64)
        later: Places = times[times > np.repeat(known_ms, lengths)]
        return later

    def _is_sound(self, magic: int, ends: Places, lengths: Places) -> NDArray[np.bool_]:
        header = self.header
        sound = (header["magic"] == magic) & (header["dtype"] < len(DTYPES)) & (header["record_bytes"] == lengths)
        sound &= (header["id_bytes"] > 0) & (header["id_bytes"] <= MOST_NAME_BYTES)
        text_bytes = header["id_bytes"].astype(np.int64) + header["space_bytes"]
        sound &= _WORD * self._texts + text_bytes <= _WORD * ends
        for field in _NOT_NEGATIVE:
            sound &= header[field] >= 0
        for field in _TIMES:
            sound &= header[field] <= LATEST_MS
        return np.asarray(sound, np.bool_)


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
