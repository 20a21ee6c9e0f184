"""Errors with a message for users: what is wrong, where, and what to do.

    ExitstreamError
    ├── SettingsError              a setting is unknown, malformed or contradicts another
    ├── BundleError                a model bundle is missing, corrupt, or of another version
    ├── CheckpointError            pre-trained weights cannot be read, or do not fit the options of their training
    ├── PromptTemplateError        the words of a prompt are no template, or longer than the prompt may be
    ├── DatasetError               a data set is not there, unknown, or mostly unreadable
    ├── SnapshotError              a snapshot cannot be written, or was asked for and cannot be read
    ├── MissingDependency          an optional package that this command needs is not installed
    ├── Stalled                    records wait, but nothing has moved for too long
    ├── DrainTimedOut              asked to stop, but work in flight did not finish in time
    └── BrokerError                Kafka, or the connection to it
        ├── BrokerUnreachable      no connection or no answer: wait, or mend address, password, certificate
        ├── NotAuthorized          connected, but not allowed to
        ├── TopicMissing           a topic that must be there is not
        ├── TopicsNotCreated       the broker refused to create a topic
        ├── OffsetsOutOfRange      the next offset is no longer retained
        ├── RecordTooLarge         one record exceeds what may be sent; the sink stays usable
        ├── DeliveryFailed         the broker refused a record permanently
        └── TransactionFailed      a transaction did not happen, or its outcome is unknown
            ├── Fenced               another producer holds the transactional id now
            └── TransactionTimedOut  it did not finish in time

The command line prints one line and exits with status 1 for any of them; a traceback is always a bug.
"""

from __future__ import annotations

from collections.abc import Mapping

from runtime.records import TopicPartition


class ExitstreamError(Exception):
    """Base of all errors with a message for users. `str(error)` is one line, or one per finding."""


class SettingsError(ExitstreamError):
    """A setting is unknown, malformed or contradicts another. Names the key and where it came from."""


class BundleError(ExitstreamError):
    """A model bundle is missing, corrupt, or of a version that this program cannot read."""


class CheckpointError(ExitstreamError):
    """Pre-trained weights are missing or unsupported, or an interrupted training does not fit its options."""


class PromptTemplateError(ExitstreamError):
    """A prompt's template is malformed, or its fixed words leave no room. Names the text and the placeholder."""


class DatasetError(ExitstreamError):
    """A data set is missing, of no known kind, or mostly unreadable. Says what was expected."""


class SnapshotError(ExitstreamError):
    """A snapshot cannot be written or, where one was named, cannot be read."""


class MissingDependency(ExitstreamError):
    """An optional package is not installed. Names the extra that brings it."""


class Stalled(ExitstreamError):
    """Records wait in a partition, but its offset has not advanced for too long; a restart helps."""


class DrainTimedOut(ExitstreamError):
    """Work in flight did not finish in time after the program was asked to stop; it is processed again later."""


class BrokerError(ExitstreamError):
    """Something is wrong with Kafka or the connection to it."""


class BrokerUnreachable(BrokerError):
    """No connection to a broker, no answer in time, or one that says to try again. At the start it names the cause per
    address: refused, wrong password, certificate, ...
    """


class NotAuthorized(BrokerError):
    """Connected, but this user may not do what was asked."""


class TopicMissing(BrokerError):
    """A topic that must be there is not."""


class TopicsNotCreated(BrokerError):
    """The broker refused to create a topic. Names topic and reason."""


class OffsetsOutOfRange(BrokerError):
    """The broker no longer retains (or never had) the next offset.

    Attributes:
        offsets: the offset asked for, by partition.
    """

    def __init__(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.offsets = dict(offsets)
        places = ", ".join(f"{partition} at offset {offset}" for partition, offset in self.offsets.items())
        super().__init__(
            f"no longer retained by the broker: {places}; read from the earliest again, and raise the topic's "
            "retention above the longest time this program may be down"
        )


class RecordTooLarge(BrokerError):
    """One record exceeds `kafka.max_record_bytes` or the broker's limit. The sink stays usable."""


class DeliveryFailed(BrokerError):
    """The broker refused a record permanently. No offset that depends on it has been committed."""


class TransactionFailed(BrokerError):
    """A transaction was rolled back, or its outcome is unknown until its id is initialised again."""


class Fenced(TransactionFailed):
    """Another producer holds the transactional id now, or the broker aborted our transaction."""


class TransactionTimedOut(TransactionFailed):
    """A transaction did not finish in time; only a new producer of the same id can tell whether it was committed."""
