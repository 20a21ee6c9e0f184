"""aiokafka's exceptions as ours."""

from __future__ import annotations

import pytest
from aiokafka import errors as vendor

from runtime import errors
from runtime.kafka.translation import translated


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (vendor.ProducerFenced(), errors.Fenced),
        (vendor.InvalidTxnState(), errors.TransactionFailed),
        (vendor.UnknownProducerId(), errors.TransactionFailed),
        (vendor.GroupCoordinatorNotAvailableError(), errors.BrokerUnreachable),
        (vendor.NotLeaderForPartitionError(), errors.BrokerUnreachable),
        (vendor.TopicAuthorizationFailedError("t"), errors.NotAuthorized),
        (vendor.MessageSizeTooLargeError(), errors.RecordTooLarge),
        (vendor.UnknownTopicOrPartitionError(), errors.TopicMissing),
        (vendor.KafkaConnectionError("refused"), errors.BrokerUnreachable),
        (TimeoutError(), errors.BrokerUnreachable),
        (vendor.UnknownError(), errors.BrokerError),
    ],
)
def test_each_becomes_one_of_ours_in_one_line_with_the_cause_attached(theirs, ours):
    """The line says what was being done; the vendor's exception is the cause."""
    with pytest.raises(errors.BrokerError, match=r"^writing to t: ") as raised, translated("writing to t"):
        raise theirs
    assert type(raised.value) is ours
    assert raised.value.__cause__ is theirs
    assert "\n" not in str(raised.value)


def test_a_lost_connection_blames_no_certificate():
    """A broker that restarts closes its connections; passwords and certificates were right a moment before."""
    with pytest.raises(errors.BrokerUnreachable) as raised, translated("writing to t"):
        raise vendor.KafkaConnectionError("Unable to bootstrap from [('127.0.0.1', 9092)]")
    assert "no connection to the broker" in str(raised.value)
    assert "certificate" not in str(raised.value)


@pytest.mark.parametrize(
    "fault", [ZeroDivisionError(), AssertionError(), AssertionError("rows without a key")], ids=repr
)
def test_what_is_not_kafkas_passes_untouched(fault):
    """A fault in a program is not translated into a broker error, which would be waited out for ever."""
    with pytest.raises(type(fault)) as raised, translated("computing"):
        raise fault
    assert raised.value is fault
