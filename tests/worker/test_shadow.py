"""A shadow scores its share of the requests, and nobody who serves notices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import encode
from worker.settings import WorkerSection, WorkerSettings
from worker.shadow import is_in_share


@given(st.text(max_size=40), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_has_all_that_a_smaller_one_has(request_id, one, other):
    """So a share can be raised without losing what is being compared; 0 has nothing and 1 has everything."""
    smaller, larger = sorted((one, other))
    assert is_in_share(request_id, larger) or not is_in_share(request_id, smaller)
    assert not is_in_share(request_id, 0)
    assert is_in_share(request_id, 1)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_a_share_is_that_part_of_the_requests(share):
    """Also of ids that differ only in their last digits."""
    count = sum(is_in_share(f"request-{number}", share) for number in range(10_000))
    assert count == pytest.approx(10_000 * share, abs=4 * (10_000 * share * (1 - share)) ** 0.5)


async def test_a_shadow_answers_its_share_into_its_own_topic(make_desk):
    """The other requests end without an output, so that their offsets can be committed."""
    desk = make_desk(shadow_share=0.5)
    names = [f"r{number}" for number in range(40)]
    await desk.accept(*(desk.record(encode(desk.request("i3", request_id=name))) for name in names))
    await desk.work()

    written = {output.key.decode() for _, outputs in desk.delivery.outputs for output in outputs}
    assert written == {name for name in names if is_in_share(name, 0.5)}
    assert {output.topic for _, outputs in desk.delivery.outputs for output in outputs} == {"shadow-scores"}
    assert len(desk.delivery.outputs) == 40


async def test_what_a_shadow_cannot_answer_is_left_to_those_who_serve(make_desk):
    """A dead letter of its own would be the second one for the same record."""
    desk = make_desk(shadow_share=1, max_record_bytes=2_000)
    too_large = encode(desk.request(*(f"i{number}" for number in range(100))))
    await desk.accept(desk.record(b"\xc1 junk"), desk.record(too_large))
    await desk.work()
    desk.delivery.refusals = 2
    await desk.accept(desk.record(encode(desk.request("i3"))))
    await desk.work()

    assert [outputs for _, outputs in desk.delivery.outputs] == [[], [], []]
    assert not desk.metrics.value("exitstream_worker_dead_letters_total", topic="impression-requests")


def test_a_shadow_has_a_group_and_a_topic_of_its_own():
    """With the settings of the workers that serve, but for the share; it does not need their topic."""
    shadow = WorkerSettings(worker=WorkerSection(shadow_share=0.1))
    serving = WorkerSettings()

    assert (shadow.group, serving.group) == ("exitstream-worker-shadow", "exitstream-worker")
    assert set(serving.required_topics()) - set(shadow.required_topics()) == {"ctr-scores"}
    assert set(shadow.required_topics()) - set(serving.required_topics()) == {"shadow-scores"}
