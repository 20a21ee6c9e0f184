"""Records that nobody can read, and the largest that can be, in the midst of good ones."""

from __future__ import annotations

import contextlib
import time
from collections import Counter

import pytest
from fault_lab import MODES
from updater_world import HEADERS

from loadgen.poison import poison
from runtime.records import OutRecord
from schemas.codec import encode
from schemas.messages import ImpressionRequest

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]


async def test_poison_of_every_kind_among_good_records(lab):
    """Everything around it is answered and published as ever; each poisoned record is a dead letter, once where
    delivery is exactly once; nothing of it reaches a state; and no program minds.
    """
    topics, published = lab.world.topics, lab.world.published
    named = poison(topics, time.time_ns() // 1_000_000)
    records = list(named.values())
    lab.random.shuffle(records)
    async with lab.load():
        for record in records:
            await lab.traffic.send(record)
            await lab.a_moment(0.0, 0.1)
    await lab.keeps_its_promises()

    requests = Counter(record.value for record in records if record.topic == topics.impression_requests)
    assert set(await lab.dead_letters("at_least_once", topics.impression_requests)) == set(requests)
    assert await lab.dead_letters("exactly_once", topics.impression_requests) == requests
    others = Counter(record.value for record in records if record.topic != topics.impression_requests)
    with contextlib.suppress(TimeoutError):  # then the comparison says what is missing
        await published.until(lambda: len(published.dead_letters) >= others.total())
    letters = Counter(letter.value for letter in published.dead_letters)
    assert (_names(others - letters, named), _names(letters - others, named)) == ([], [])
    assert not any("poison" in states for states in published.states.values())


def _names(values, named):
    """The kinds of poison whose records these values are."""
    return sorted(kind for kind, record in named.items() if record.value in values)


async def test_a_request_at_the_limit_is_answered_and_one_beyond_is_not(lab):
    """A record of exactly `kafka.max_record_bytes` is scored; one more byte makes it a dead letter."""
    topic, limit = lab.world.topics.impression_requests, lab.site.kafka.max_record_bytes
    now_ms = time.time_ns() // 1_000_000
    largest = encode(_of_size(lab.ledger.open(now_ms), now_ms, limit))
    too_large = encode(_of_size("too large", now_ms, limit + 1))
    assert (len(largest), len(too_large)) == (limit, limit + 1)
    for value in (largest, too_large):
        # Exempt at the sink, which counts key and headers as well.
        await lab.traffic.send(OutRecord(topic, b"u1", value, HEADERS, any_size=True))
    await lab.keeps_its_promises(once=MODES)
    for mode in MODES:
        assert (await lab.dead_letters(mode, topic))[too_large] == 1


def _of_size(request_id, now_ms, size):
    """A request whose encoding has so many bytes, more than 70,000."""

    def filled(count):
        return ImpressionRequest(
            request_id=request_id,
            user_id="u1",
            candidate_item_ids=["i1"],
            created_time_ms=now_ms,
            context={"text": "x" * count},
        )

    return filled(size - (len(encode(filled(size))) - size))
