"""Commits a record's offset once its outputs are delivered: at least once or exactly once, behind one interface.

    delivery = make_delivery(settings, source)
    admission = Admission(source, delivery)
    async with delivery:
        await source.start(delivery)                      # the delivery is the rebalance hooks
        async for handling, records in admission.admit(await source.poll()):
            if delivery.started(record):                  # at intake
                await delivery.finished(record, outputs)  # once, in any order; outputs may be none
        await delivery.drain(limit_s)                     # at the end

Run `delivery.run()` as a background task: it commits offsets, and raises once that has become impossible.
"""

from runtime.delivery.admission import Admission
from runtime.delivery.at_least_once import AtLeastOnceDelivery
from runtime.delivery.attempts import Handling
from runtime.delivery.base import Delivery
from runtime.delivery.exactly_once import ExactlyOnceDelivery
from runtime.kafka import RecordSource
from runtime.observability.outages import Outages
from runtime.settings import KafkaSettings

__all__ = ["Admission", "Delivery", "Handling", "make_delivery"]


def make_delivery(settings: KafkaSettings, source: RecordSource, outages: Outages | None = None) -> Delivery:
    """The delivery that `kafka.delivery` selects; see `Delivery` for the arguments. Call it inside the event loop."""
    kind = ExactlyOnceDelivery if settings.delivery == "exactly_once" else AtLeastOnceDelivery
    return kind(settings, source, outages)
