"""From record in to outputs delivered and offset committed: at least once, or exactly once, behind one interface.

    delivery = make_delivery(settings, source)
    async with delivery:
        await source.start(delivery)                      # it holds the rebalance hooks
        if delivery.started(record):                      # at intake
            await delivery.finished(record, outputs)      # once, in any order; outputs may be none
        await delivery.drain(limit_s)                     # at the end

`delivery.run()` is to be run beside: it commits, and raises what made committing impossible.
"""

from runtime.delivery.at_least_once import AtLeastOnceDelivery
from runtime.delivery.base import Delivery
from runtime.delivery.exactly_once import ExactlyOnceDelivery
from runtime.kafka import RecordSource
from runtime.settings import KafkaSettings

__all__ = ["Delivery", "make_delivery"]


def make_delivery(settings: KafkaSettings, source: RecordSource) -> Delivery:
    """The delivery that `kafka.delivery` asks for. To be called inside the event loop."""
    kind = ExactlyOnceDelivery if settings.delivery == "exactly_once" else AtLeastOnceDelivery
    return kind(settings, source)
