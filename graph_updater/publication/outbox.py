"""State changes awaiting confirmed publication. Leader and standby both fill the outbox, and empty it differently.

The leader publishes them part by part (`publication.pending`). A standby keeps the batches until the group's committed
offsets show that the leader has published them. Should it take over, it publishes exactly what is left.
"""

from __future__ import annotations

from typing import Final

from graph_updater.publication.batch import CommittedOffsets, Progress, StateBatch
from graph_updater.publication.pending import PendingChanges

MAX_LETTER_BYTES: Final = 64 * 1_048_576
"""Nothing more is read while dead letters of this size wait for their publication."""


class Outbox:
    """Batches in the order of the stream, and those whose publication has begun.

    Args:
        space: of our embeddings.
        rebuilt: whether the state differs from the topics in ways that no offset tells, as after a rebuild. Its changes
            are published whatever offsets are committed, unless a leader is seen at work.

    Attributes:
        lacks_everything: whether a leader has to publish every state: the topics' embeddings are, or may be, of another
            space.
    """

    def __init__(self, space: str = "", *, rebuilt: bool = False) -> None:
        self._space = space
        self._rebuilt = rebuilt
        self._batches: list[StateBatch] = []
        self._begun = PendingChanges()
        self._seen: CommittedOffsets | None = None
        self.lacks_everything = False

    @property
    def space(self) -> str:
        """Of our embeddings; told with the offsets that we commit."""
        return self._space

    def change_space(self, space: str) -> None:
        """From now on the embeddings are of this space: every state has to be published, unless another updater has.

        What the outbox holds stays: it names ids, among them those that have left.
        """
        self._space = space
        self._rebuilt = False
        self.lacks_everything = True

    def add(self, batch: StateBatch) -> None:
        """Puts a batch behind the others."""
        self._batches.append(batch)

    def add_everything(self, batch: StateBatch) -> None:
        """Puts a batch of every state behind the others; it is published whatever offsets are committed."""
        self.add(batch)
        self._rebuilt = True
        self.lacks_everything = False

    def next_part(self, size: int) -> StateBatch | None:
        """At most `size` records to be published in one transaction; None if there are none.

        It leaves the outbox; give it to `put_back` if the transaction fails. Parts published stay published, whatever
        happens to the next.
        """
        for batch in self._batches:
            self._begun.add(batch)
        self._batches = []
        return self._begun.take(size)

    def put_back(self, part: StateBatch) -> None:
        """Takes back a part that is not known to be published."""
        self._begun.put_back(part)

    def drop_covered(self, progress: Progress) -> None:
        """Drops what the committed offsets cover.

        A leader of another space has published no state of ours. But then every state is to be published, so that those
        in the batches need not be kept.
        """
        if progress.spaces - {self._space}:
            self.lacks_everything = True
        elif progress.spaces:
            self.lacks_everything = False
        committed = progress.offsets
        rest = (batch.without(committed, keep_states=self._rebuilt) for batch in self._batches)
        self._batches = [batch for batch in rest if batch is not None]
        self._begun.drop_covered(committed, keep_states=self._rebuilt)

    def note_published(self) -> None:
        """Notes that nothing is left to be published: from now on committed offsets tell everything."""
        self._rebuilt = False

    def watch_leader(self, progress: Progress) -> None:
        """Drops what the leader has published, for a standby.

        Offsets that advance prove that a leader is at work, whose own state the topics hold.
        """
        if self._seen is not None and progress.offsets != self._seen:
            self._rebuilt = False
        self._seen = progress.offsets
        self.drop_covered(progress)

    @property
    def letter_bytes(self) -> int:
        """Bytes of all dead letters that are kept."""
        return self._begun.letter_bytes + sum(batch.letter_bytes for batch in self._batches)

    def __len__(self) -> int:
        return len(self._batches) + self._begun.is_open + self.lacks_everything
