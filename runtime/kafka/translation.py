"""Translates aiokafka's exceptions into ours, once, here; the original stays attached as the cause."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiokafka import errors as vendor

from runtime.errors import (
    BrokerError,
    BrokerUnreachable,
    Fenced,
    NotAuthorized,
    RecordTooLarge,
    TopicMissing,
    TransactionFailed,
)
from runtime.kafka.connection import NOT_IN_SERVICE, in_words

_NO_BROKER_NAMED: Final = "Did we not perform bootstrap?"
"""What the library asserts, instead of raising an error of its own, when the broker that it reached names no broker."""
_LOST: Final = (vendor.KafkaConnectionError, vendor.NodeNotReadyError)
_UNANSWERED: Final = (vendor.KafkaTimeoutError, vendor.RequestTimedOutError, TimeoutError)
_TRANSLATIONS: Final[tuple[tuple[tuple[type[BaseException], ...], type[BrokerError], str], ...]] = (
    (
        (
            vendor.ProducerFenced,
            vendor.InvalidProducerEpoch,
            vendor.TransactionCoordinatorFenced,
        ),
        Fenced,
        "another producer took over, or the broker aborted the transaction",
    ),
    (
        (
            vendor.InvalidProducerIdMapping,
            vendor.InvalidTxnState,
            vendor.OutOfOrderSequenceNumber,
            vendor.UnknownProducerId,
        ),
        TransactionFailed,
        "the broker does not know this producer's transaction or records any more",
    ),
    (
        (
            vendor.TopicAuthorizationFailedError,
            vendor.GroupAuthorizationFailedError,
            vendor.ClusterAuthorizationFailedError,
            vendor.TransactionalIdAuthorizationFailed,
        ),
        NotAuthorized,
        "this user may not do that; grant it in the broker's ACLs",
    ),
    (
        (vendor.MessageSizeTooLargeError, vendor.RecordTooLargeError, vendor.RecordListTooLargeError),
        RecordTooLarge,
        "too large; see kafka.max_record_bytes and the topic's max.message.bytes",
    ),
    (
        (vendor.UnknownTopicOrPartitionError,),
        TopicMissing,
        "the topic does not exist; make it with `exitstream topics create`",
    ),
)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raises what aiokafka raises inside as an error of ours that says what was being done.

    Args:
        doing: the activity, for example "reading from interactions".
    """
    try:
        yield
    except (vendor.KafkaError, TimeoutError) as error:
        raise translate(error, doing) from error
    except AssertionError as error:
        if str(error) != _NO_BROKER_NAMED:  # a fault of ours or the library's, which waiting would not mend
            raise
        raise BrokerUnreachable(f"{doing}: {NOT_IN_SERVICE}") from error


def translate(error: BaseException, doing: str) -> BrokerError:
    """The error of ours for one of aiokafka's. What the library itself would try again is `BrokerUnreachable`."""
    if isinstance(error, vendor.SaslAuthenticationFailed):
        return BrokerUnreachable(f"{doing}: {in_words(error)}")
    if isinstance(error, _LOST):
        # Not the words of the probe: a connection lost at run time says nothing against certificates and protocol.
        return BrokerUnreachable(f"{doing}: no connection to the broker ({_detail(error)})")
    if isinstance(error, _UNANSWERED):
        return BrokerUnreachable(f"{doing}: no answer in time")
    for kinds, ours, words in _TRANSLATIONS:
        if isinstance(error, kinds):
            return ours(f"{doing}: {words} ({_detail(error)})")
    if isinstance(error, vendor.KafkaError) and error.retriable:
        return BrokerUnreachable(f"{doing}: the broker cannot do it at present ({_detail(error)})")
    return BrokerError(f"{doing}: {_detail(error)}")


def _detail(error: BaseException) -> str:
    """The library's message, with the name of its exception, which the message does not always contain."""
    name, text = type(error).__name__, str(error)
    return text if name in text else f"{name}: {text}".removesuffix(": ")
