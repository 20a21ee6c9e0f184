"""What becomes of a request, whatever it is: one record of scores, or a dead letter with the reason."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import pytest
import structlog.testing

from models.prompt import PromptLimits
from runtime.errors import BrokerUnreachable
from schemas.codec import CONTENT_TYPES, FORMAT_HEADER, VERSION_HEADER, encode, headers_for
from schemas.messages import ImpressionRequest, Item
from schemas.topics import REASON
from worker.intake import BUDGET_HEADER
from worker.retrieval import Retriever

DAY_MS = 86_400_000


async def test_a_request_ends_as_scores_that_say_how_they_were_made(desk, tiny_bundle):
    """One score per candidate in the order of the request, made by a head, with its evidence and its times."""
    scores = await desk.answer(desk.request("i3", "i1", "i4"))

    assert scores.status == "ok"
    assert [score.item_id for score in scores.scores] == ["i3", "i1", "i4"]
    assert {score.made_by for score in scores.scores} <= {"confident", "final"}
    assert all(0 < score.ctr < 1 and score.exit_layer in {1, 2, 4} for score in scores.scores)
    assert all(len(score.neighbours) == 4 for score in scores.scores)
    assert {near.kind for score in scores.scores for near in score.neighbours} >= {"past_item", "similar_user"}
    assert scores.model_version == tiny_bundle.version
    assert scores.exit_threshold == pytest.approx(0.9)
    assert scores.embedding_version == 1
    assert scores.embedding_age_ms > 0
    assert min(scores.step_times.retrieve_ms, scores.step_times.prompt_ms, scores.step_times.infer_ms) > 0
    assert scores.lateness_ms == 0


async def test_the_same_request_gets_the_same_scores(desk):
    """Scoring depends on what is known, not on what else is under way."""
    alone = await desk.answer(desk.request("i3", "i1"))
    records = [desk.record(encode(desk.request("i3", "i1", user_id=f"u{number}"))) for number in range(10)]
    await desk.accept(*records)
    await desk.work()

    again = next(scores for scores in desk.scores()[1:] if scores.user_id == "u1")
    assert [score.ctr for score in again.scores] == pytest.approx([score.ctr for score in alone.scores], abs=1e-6)


async def test_no_candidates_is_an_empty_answer(desk):
    """Status `empty`, no scores, and still exactly one record."""
    scores = await desk.answer(desk.request())

    assert (scores.status, scores.scores) == ("empty", [])
    assert len(desk.delivery.outputs) == 1


async def test_one_candidate(desk):
    """The smallest request there is to score."""
    assert len((await desk.answer(desk.request("i1"))).scores) == 1


async def test_the_same_candidate_twice_is_scored_once(desk):
    """One score per distinct candidate, where it came first."""
    scores = await desk.answer(desk.request("i2", "i1", "i2", "i2"))

    assert [score.item_id for score in scores.scores] == ["i2", "i1"]


async def test_five_thousand_candidates_are_all_scored(desk):
    """In parts, known and unknown alike, and in a record that fits."""
    names = [f"i{number}" for number in range(5000)]
    scores = await desk.answer(desk.request(*names))

    assert [score.item_id for score in scores.scores] == names
    assert all(score.made_by in {"confident", "final"} for score in scores.scores)


async def test_scores_too_large_with_their_evidence_go_without(make_desk):
    """The record's size is bounded; the scores matter more than the neighbours."""
    desk = make_desk(neighbours=12, max_record_bytes=4_000)
    scores = await desk.answer(desk.request(*(f"i{number}" for number in range(20))))

    assert len(scores.scores) == 20
    assert not any(score.neighbours for score in scores.scores)


async def test_scores_that_cannot_be_written_at_all_become_a_dead_letter(make_desk):
    """Nothing is dropped silently."""
    desk = make_desk(max_record_bytes=2_000)
    value = encode(desk.request(*(f"i{number}" for number in range(100))))
    await desk.accept(desk.record(value))
    await desk.work()

    assert desk.letters()[0].value == value
    assert b"cannot be written" in dict(desk.letters()[0].headers)[REASON]


async def test_scores_that_the_broker_refuses_go_without_evidence_then_to_the_dead_letters(desk):
    """Its limit may be below ours; the request comes back after a restart, so it must end."""
    desk.delivery.refusals = 1
    scores = await desk.answer(desk.request("i1", "i2"))
    assert not any(score.neighbours for score in scores.scores)

    desk.delivery.refusals = 2
    await desk.accept(desk.record(value := encode(desk.request("i1", "i2"))))
    await desk.work()
    assert desk.letters()[0].value == value
    assert b"broker refuses" in dict(desk.letters()[0].headers)[REASON]


@pytest.mark.parametrize("user_id", ["nobody", "🎬 ünïcödé", "\u0000", "x" * 1024])
async def test_an_unknown_user_is_scored(desk, user_id):
    """A new user is no error; there is no embedding to tell of."""
    scores = await desk.answer(desk.request("i1", "i2", user_id=user_id))

    assert len(scores.scores) == 2
    assert (scores.user_id, scores.embedding_version, scores.embedding_age_ms) == (user_id, 0, None)


@pytest.mark.parametrize("item_id", ["nothing", "🎬 ünïcödé", "\u0000", "x" * 1024])
async def test_an_unknown_item_is_scored(desk, item_id):
    """So is an item nobody has told of."""
    scores = await desk.answer(desk.request("i1", item_id))

    assert scores.scores[1].item_id == item_id
    assert 0 < scores.scores[1].ctr < 1


@pytest.mark.parametrize("title", [None, "", "word " * 2000, "<|start|> Click? yes <|start|>", "\ud83c\udfac 標題"])
async def test_titles_of_any_kind_are_scored(desk, title):
    """No title, a very long one, control tokens as text."""
    title = title and title.encode("utf-16", "surrogatepass").decode("utf-16")
    desk.tables.put_item(Item(item_id="odd", title=title))

    assert 0 < (await desk.answer(desk.request("odd"))).scores[0].ctr < 1


async def test_a_request_that_is_late_on_arrival_is_answered_from_the_graph_and_marked(desk):
    """The ladder's last rung: still an answer, still calibrated, and honest about its time."""
    scores = await desk.answer(desk.request("i1", created_time_ms=desk.clock.wall_ms() - 5_000, budget_ms=200))

    assert scores.status == "late"
    assert scores.lateness_ms >= 4_800
    assert [(score.made_by, score.exit_layer, score.confidence) for score in scores.scores] == [("graph", 0, 0.0)]
    assert 0 < scores.scores[0].ctr < 1
    assert scores.step_times.transit_ms >= 5_000
    assert scores.embedding_version == 1


async def test_a_budget_too_short_for_the_first_head_is_answered_from_the_graph_in_time(desk):
    """What no head can reach is answered at once."""
    scores = await desk.answer(desk.request("i1", budget_ms=14))

    assert scores.scores[0].made_by == "graph"


@pytest.mark.parametrize(("floor", "layers"), [("first_head", {1, 2, 4}), ("final_head", {4})])
async def test_a_quality_floor_is_kept_at_the_price_of_being_late(desk, floor, layers):
    """Never graph-only: rather late."""
    late = desk.request("i1", "i2", created_time_ms=desk.clock.wall_ms() - 5_000, budget_ms=200, quality_floor=floor)
    scores = await desk.answer(late)

    assert scores.status == "late"
    assert {score.exit_layer for score in scores.scores} <= layers


async def test_a_clock_in_the_future_buys_no_time(desk):
    """The created time is taken as now and the clamp counted; the record keeps what it was told."""
    created = desk.clock.wall_ms() + DAY_MS
    scores = await desk.answer(desk.request("i1", created_time_ms=created, budget_ms=60_000))

    assert scores.status == "ok"
    assert scores.created_time_ms == created
    assert scores.deadline_ms < desk.clock.wall_ms() + 120_000
    assert desk.metrics.value("exitstream_worker_clock_clamps_total", skew="future") == 1


async def test_a_clock_far_in_the_past_is_late_and_counted(desk):
    """Decades of transit end at the bound."""
    scores = await desk.answer(desk.request("i1", created_time_ms=0))

    assert scores.status == "late"
    assert scores.step_times.transit_ms <= desk.settings.worker.max_age_ms
    assert desk.metrics.value("exitstream_worker_clock_clamps_total", skew="past") == 1


async def test_the_budget_comes_from_the_request_then_the_header_then_the_settings(desk):
    """The nearest word counts."""
    now_ms = desk.clock.wall_ms()
    header = [(BUDGET_HEADER, b"9000")]

    own = await desk.answer(desk.request("i1", budget_ms=7000, created_time_ms=now_ms), header)
    topic = await desk.answer(desk.request("i1", budget_ms=None, created_time_ms=now_ms), header)
    default = await desk.answer(desk.request("i1", budget_ms=None, created_time_ms=now_ms))

    for scores, budget_ms in ((own, 7000), (topic, 9000), (default, 200)):
        assert scores.deadline_ms - now_ms == pytest.approx(budget_ms, abs=2)


def _without(field):
    fields = {
        "type": "impression-request",
        "request_id": "r",
        "user_id": "u1",
        "candidate_item_ids": ["i1"],
        "created_time_ms": 1,
    }
    del fields[field]
    return msgspec.msgpack.encode(fields)


GOOD = encode(ImpressionRequest(request_id="r", user_id="u1", candidate_item_ids=["i1"], created_time_ms=1))


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (b"\xc1 no message", (), "ImpressionRequest"),
        (b"{not json", (), "ImpressionRequest"),
        (b"", (), "ImpressionRequest"),
        (None, (), "empty value"),
        (encode(Item(item_id="i1")), (), "ImpressionRequest"),
        (_without("user_id"), (), "user_id"),
        (_without("type"), (), "ImpressionRequest"),
        (
            encode(msgspec.structs.replace(msgspec.msgpack.decode(GOOD, type=ImpressionRequest), user_id="")),
            (),
            "length",
        ),
        (GOOD, [(VERSION_HEADER, b"999")], "newer"),
        (GOOD, [(BUDGET_HEADER, b"soon")], "budget-ms"),
        (GOOD, [(BUDGET_HEADER, b"9" * 5_000)], "budget-ms"),
        (GOOD, [(BUDGET_HEADER, b"3600001")], "budget-ms"),
        (b"x" * 1_300_000, (), "1300000 bytes"),
    ],
)
async def test_what_cannot_be_decoded_becomes_a_dead_letter(desk, value, headers, reason):
    """As it came, byte for byte, with the reason; what follows it is answered."""
    await desk.accept(desk.record(value, headers), desk.record(encode(desk.request("i1"))))
    await desk.work()

    [letter] = desk.letters()
    assert letter.value == value
    assert letter.topic == "impression-requests.dead-letter"
    assert reason in dict(letter.headers)[REASON].decode()
    assert len(desk.scores()) == 1
    assert desk.delivery.in_flight() == 0


async def test_a_request_with_too_many_candidates_becomes_a_dead_letter(make_desk):
    """Refused before any work, with the setting that bounds it; exactly as many are scored."""
    desk = make_desk(max_candidates=3)
    await desk.accept(*(desk.record(encode(desk.request(*(f"i{n}" for n in range(count))))) for count in (4, 3)))
    await desk.work()

    [letter] = desk.letters()
    assert b"4 candidates; at most 3 are scored (worker.max_candidates)" in dict(letter.headers)[REASON]
    assert [len(scores.scores) for scores in desk.scores()] == [3]


async def test_a_fault_while_reading_a_request_costs_only_that_request(desk, monkeypatch):
    """Whatever is raised: the record becomes a dead letter, what follows is answered."""
    decode = desk.pipeline._intake.decode

    def faulty(record):
        if record.offset == 1:
            raise RuntimeError("a fault")
        return decode(record)

    monkeypatch.setattr(desk.pipeline._intake, "decode", faulty)
    await desk.accept(*(desk.record(encode(desk.request("i1"))) for _ in range(2)))
    await desk.work()

    [letter] = desk.letters()
    assert b"a fault" in dict(letter.headers)[REASON]
    assert len(desk.scores()) == 1


async def test_every_request_is_answered_in_its_own_format(desk):
    """Decided per record, by its header or, without one, by its first byte; also when several are on their way."""
    formats = ["json", "msgpack", "json", "msgpack"]
    for place, wire_format in enumerate(formats):
        headers = headers_for(wire_format) if place < 2 else ()
        await desk.accept(desk.record(encode(desk.request("i1"), wire_format), headers))
    await desk.work()

    records = sorted((record.offset, outputs[0]) for record, outputs in desk.delivery.outputs)
    assert [dict(output.headers)[FORMAT_HEADER] for _, output in records] == [CONTENT_TYPES[one] for one in formats]
    assert [output.value[:1] == b"{" for _, output in records] == [one == "json" for one in formats]
    assert len(desk.scores()) == 4


@pytest.mark.parametrize("answer_format", ["msgpack", "json"])
async def test_answers_are_in_one_format_where_the_setting_names_it(make_desk, answer_format):
    """Whatever the requests'."""
    desk = make_desk(answer_format=answer_format)
    await desk.accept(*(desk.record(encode(desk.request("i1"), one)) for one in ("json", "msgpack")))
    await desk.work()

    outputs = [output for _, written in desk.delivery.outputs for output in written]
    assert [dict(output.headers)[FORMAT_HEADER] for output in outputs] == [CONTENT_TYPES[answer_format]] * 2


async def test_scores_too_large_with_neighbours_keep_the_requests_format(make_desk):
    """The lean form is encoded anew."""
    desk = make_desk(max_record_bytes=1_400)
    await desk.accept(desk.record(encode(desk.request("i1", "i2", "i3"), "json")))
    await desk.work()

    [scores] = desk.scores()
    assert not any(score.neighbours for score in scores.scores)
    [(_, [output])] = desk.delivery.outputs
    assert dict(output.headers)[FORMAT_HEADER] == CONTENT_TYPES["json"]


async def test_every_request_of_a_backlog_gets_exactly_one_answer(desk):
    """A thousand late requests and fresh ones among them: all answered, each once, the fresh ones by a head."""
    late = [
        desk.request("i1", "i2", request_id=f"late-{n}", created_time_ms=desk.clock.wall_ms() - 9_000, budget_ms=200)
        for n in range(1000)
    ]
    fresh = [desk.request("i1", "i2", request_id=f"fresh-{n}") for n in range(5)]
    await desk.accept(*(desk.record(encode(request)) for request in [*late, *fresh]))
    await desk.work()

    answers = {scores.request_id: scores for scores in desk.scores()}
    assert len(desk.scores()) == len(answers) == 1005
    assert all(answers[request.request_id].scores[0].made_by == "graph" for request in late)
    assert all(answers[request.request_id].scores[0].made_by != "graph" for request in fresh)


async def test_what_came_late_is_written_after_what_can_still_be_in_time(desk):
    """Answered in one round, late ones first: the fresh one's scores go out before theirs."""
    late = [desk.request("i1", request_id=f"late-{n}", created_time_ms=0, budget_ms=200) for n in range(3)]
    fresh = desk.request("i1", request_id="fresh", budget_ms=1)
    await desk.accept(*(desk.record(encode(request)) for request in [*late, fresh]))
    desk.pipeline.infer()
    await desk.work()

    assert [scores.request_id for scores in desk.scores()] == ["fresh", "late-0", "late-1", "late-2"]


async def test_the_margin_is_learned_from_those_that_can_be_in_time(desk):
    """What came late waits to be written, which says nothing about how long writing takes."""
    observed = []
    desk.pipeline._delivery_margin.observe = observed.append
    await desk.answer(desk.request("i1", created_time_ms=0, budget_ms=200))
    assert observed == []

    await desk.answer(desk.request("i1"))
    [seconds] = observed
    assert seconds >= 0


async def test_a_large_request_lets_small_ones_pass(desk):
    """Twenty candidates that come after a thousand are answered long before these."""
    large = desk.request(*(f"i{number}" for number in range(1000)), request_id="large")
    small = desk.request(*(f"i{number}" for number in range(20)), request_id="small")
    await desk.accept(desk.record(encode(large)))
    await desk.work(rounds=3)
    await desk.accept(desk.record(encode(small)))
    await desk.work()

    assert [scores.request_id for scores in desk.scores()] == ["small", "large"]


class FaultyRetriever(Retriever):
    """Fails for one user."""

    def retrieve(self, user_id, candidate_item_ids):
        if user_id == "u3":
            raise RuntimeError("a fault")
        return super().retrieve(user_id, candidate_item_ids)


async def test_a_fault_in_one_request_costs_only_that_one_its_heads(desk, filled_tables):
    """Answered from the graph, counted, the others untouched."""
    desk.use(replace(desk.model, retriever=FaultyRetriever(filled_tables, PromptLimits())))
    await desk.accept(*(desk.record(encode(desk.request("i1", user_id=user))) for user in ("u2", "u3", "u4")))
    await desk.work()

    made_by = {scores.user_id: scores.scores[0].made_by for scores in desk.scores()}
    assert made_by["u3"] == "graph"
    assert "graph" not in {made_by["u2"], made_by["u4"]}
    desk.metrics.note_engine(desk.model.engine.counters)
    assert desk.metrics.value("exitstream_worker_internal_errors_total") == 1


async def test_metrics_tell_what_happened(desk):
    """Counts by status, candidates by how they were made, token-layers saved."""
    await desk.answer(desk.request("i1", "i2"))
    await desk.answer(desk.request("i1", created_time_ms=0))

    value = desk.metrics.value
    assert value("exitstream_worker_requests_total", status="ok") == 1
    assert value("exitstream_worker_requests_total", status="late") == 1
    assert value("exitstream_worker_candidates_total", made_by="graph", exit_layer=0) == 1
    run, full = (value(f"exitstream_worker_token_layers_{part}_total") for part in ("run", "full"))
    assert 0 < run <= full
    assert not math.isnan(value("exitstream_worker_latency_seconds_sum"))
    assert value("exitstream_worker_lateness_seconds_count") == 1


async def test_metrics_tell_what_the_engine_did(desk):
    """Where its time went and whether the prefix cache helped: two pages of one session look for the same prefix."""
    for number in range(2):
        await desk.answer(desk.request("i1", "i2", request_id=f"page-{number}"))
    desk.metrics.note_engine(desk.model.engine.counters)
    desk.metrics.note_engine(desk.model.engine.counters)

    value = desk.metrics.value
    assert value("exitstream_worker_engine_seconds_total", part="model") > 0
    hits, misses = (value("exitstream_worker_prefix_cache_lookups_total", outcome=out) for out in ("hit", "miss"))
    assert hits >= 1
    assert hits + misses == 2
    assert value("exitstream_worker_prefix_cache_lookups_total", outcome="partial") == 0
    assert value("exitstream_worker_prefix_cache_bytes") == desk.model.engine.counters.prefix_bytes > 0


@pytest.mark.parametrize("fault", [ValueError("a fault"), MemoryError(), OverflowError("int too big to convert")])
async def test_scores_that_fail_to_be_encoded_become_a_dead_letter_and_the_others_go_out(desk, monkeypatch, fault):
    """One job's fault ends neither the task that publishes nor anyone else's answer."""
    record = desk.pipeline._publisher.record

    def faulty(job, **more):
        if job.request.user_id == "u2":
            raise fault
        return record(job, **more)

    monkeypatch.setattr(desk.pipeline._publisher, "record", faulty)
    await desk.accept(*(desk.record(encode(desk.request("i1", user_id=user))) for user in ("u1", "u2", "u3")))
    await desk.work()

    [letter] = desk.letters()
    assert type(fault).__name__ in dict(letter.headers)[REASON].decode()
    assert {scores.user_id for scores in desk.scores()} == {"u1", "u3"}
    assert desk.delivery.in_flight() == 0


async def test_an_answer_that_cannot_be_counted_is_not_written_twice(desk, monkeypatch):
    """Its scores are out: a fault in a metric or in the log makes no dead letter of it."""

    def faulty(_jobs):
        raise ValueError("a fault")

    monkeypatch.setattr(desk.metrics, "note_answers", faulty)
    await desk.answer(desk.request("i1"))

    assert desk.letters() == []
    assert len(desk.scores()) == 1


async def test_a_delivery_that_has_failed_is_no_fault_of_the_record(desk, monkeypatch):
    """The program ends or waits, as the delivery decides; no dead letter is made."""
    finished = desk.delivery.finished

    async def failed(record, outputs, on_delivered=None, alternatives=()):
        if outputs[0].topic == "ctr-scores":
            raise BrokerUnreachable("nobody answers")
        await finished(record, outputs, on_delivered, alternatives)

    monkeypatch.setattr(desk.delivery, "finished", failed)
    await desk.accept(desk.record(encode(desk.request("i1"))))
    with pytest.raises(BrokerUnreachable):
        await desk.work()
    assert desk.letters() == []


async def test_a_refused_request_is_logged_with_place_and_reason(desk):
    """One line, so that whoever sent it can be told."""
    with structlog.testing.capture_logs() as lines:
        await desk.accept(desk.record(b"no request"))

    [line] = [line for line in lines if line["event"] == "request refused"]
    assert line["place"] == "impression-requests[0]@1"
    assert "ImpressionRequest" in line["reason"]
    assert desk.metrics.value("exitstream_worker_dead_letters_total", topic="impression-requests") == 1


@pytest.mark.parametrize("step", ["retriever", "prompts", "graph"])
async def test_whatever_fails_in_the_compute_thread_every_request_is_answered(desk, step):
    """Retrieval, prompt or graph score out of memory for all: finite rates for each, and the thread goes on."""

    class Failing:
        def __getattr__(self, name):
            raise MemoryError(name)

    desk.use(replace(desk.model, **{step: Failing()}))
    budgets = (60_000, 60_000, 1)  # the last one has no time for a head
    for number, budget_ms in enumerate(budgets):
        await desk.accept(desk.record(encode(desk.request("i1", "i2", request_id=f"r{number}", budget_ms=budget_ms))))
    await desk.work()

    assert {scores.request_id for scores in desk.scores()} == {"r0", "r1", "r2"}
    assert all(0 < score.ctr < 1 for scores in desk.scores() for score in scores.scores)
    made_by = {scores.scores[0].made_by for scores in desk.scores()}
    assert (made_by == {"graph"}) == (step != "graph")


async def test_when_retrieval_and_graph_score_both_fail_the_base_rate_answers(desk, tiny_bundle):
    """The last rung of all, finite and calibrated."""

    class Failing:
        def __getattr__(self, name):
            raise RuntimeError("can't allocate memory")

    desk.use(replace(desk.model, retriever=Failing(), graph=Failing()))
    scores = await desk.answer(desk.request("i1", "i2"))

    rate = float(tiny_bundle.calibration.graph_ctr(tiny_bundle.calibration.graph_mean))
    assert [(score.ctr, score.made_by) for score in scores.scores] == [(pytest.approx(rate), "graph")] * 2
