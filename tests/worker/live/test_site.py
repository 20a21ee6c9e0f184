"""The live page over HTTP: what a browser gets, and what it may not do."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from worker_lab import until

from runtime.settings import TelemetrySettings
from schemas.messages import Item
from worker.live.site import FILES, is_own_host
from worker.live.typed import MOST_BYTES, MOST_CANDIDATES
from worker.live.viewers import MOST_VIEWERS


async def test_the_files_come_without_rights(serve_page):
    """Page, style and scripts are there; their policy allows nothing from elsewhere, and no markup's scripts."""
    async with serve_page() as served:
        for path, (_, kind) in FILES.items():
            async with served.session.get(f"{served.address}/live{path}") as response:
                assert response.status == 200
                assert response.content_type == kind
                policy = response.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy


async def test_a_viewer_is_told_the_past_first_and_then_every_second(serve_page, desk):
    """The charts and the last examples come at once; then the figures, with an example where there is one."""
    async with serve_page() as served, served.events() as events:
        name, start = await anext(events)
        assert name == "start"
        assert start["exit_layers"] == [1, 2, 4]
        await desk.answer(desk.request("i3", "i1"))
        served.page.figures.note(desk.live.latest)
        told = []
        async for name, second in events:
            assert name == "second"
            told.append(second)
            if second["sample"] is not None:
                break
    figures, sample = told[-1]["figures"], told[-1]["sample"]

    assert figures["answered"] == 1
    assert sum(figures["exits"].values()) == pytest.approx(1)
    assert sample["user_id"] == "u1"
    assert "history ⟨item⟩ title number " in sample["prompt"]
    [first, _] = sample["best"]
    assert first["words"]["title"].startswith("title number ")
    assert "candidate" in first["words"]["prompt"]
    assert first["words"]["neighbours"][0]["name"].startswith("title number ")
    assert list(served.page._samples)


async def test_viewers_are_told_when_another_model_serves(serve_page, desk):
    """Everything from the start again; the examples were the former model's, as is an answer that comes late."""
    async with serve_page() as served, served.events() as events:
        await anext(events)
        await desk.answer(desk.request("i3"))
        served.page._samples.append("an example")
        served.serving.swap(replace(served.serving.model, version="next"))
        served.page.figures.note(desk.live.latest)
        async for name, start in events:
            if name == "start":
                break
            assert start["sample"] is None
        assert (start["model_version"], start["samples"]) == ("next", [])
        name, second = await anext(events)
        assert (name, second["sample"]) == ("second", None)
        _, answer = await served.score()
        assert answer["model_version"] == "next"


async def test_without_viewers_nothing_is_put_into_words(serve_page, desk):
    """The figures go on; a page that nobody looks at costs no more."""
    async with serve_page() as served:
        await desk.answer(desk.request("i3"))
        served.page.figures.note(desk.live.latest)
        await until(lambda: served.page.figures.latest is None)
        assert not served.page._samples
        assert served.page.figures.history


async def test_reasons_for_not_being_ready_are_told(serve_page):
    """As the status tells them."""
    async with serve_page() as served, served.events() as events:
        served.readiness.wait_for("search", "an index cannot be trained")
        async for name, second in events:
            if name == "second" and second["not_ready"]:
                break
    assert second["not_ready"] == {"search": "an index cannot be trained"}


async def test_viewers_beyond_the_limit_are_sent_away_and_places_come_free(serve_page):
    """They get a reason; a viewer that goes makes room."""
    async with serve_page() as served:
        url = f"{served.address}/live/events"
        there = [await served.session.get(url) for _ in range(MOST_VIEWERS)]
        async with served.session.get(url) as response:
            assert response.status == 503
            assert "viewers" in (await response.json())["error"]
        there.pop().close()
        await until(lambda: len(served.page.viewers) < MOST_VIEWERS)
        async with served.session.get(url) as response:
            assert response.status == 200
        for response in there:
            response.close()


async def test_a_viewer_that_takes_nothing_is_let_go(serve_page, monkeypatch):
    """It is not waited for: its place comes free."""
    monkeypatch.setattr("worker.live.site.WRITE_LIMIT_S", 0.2)
    async with serve_page() as served:
        host, port = served.address.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.write(b"GET /live/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await until(lambda: len(served.page.viewers) == 1)
        reader._transport.pause_reading()
        async with asyncio.timeout(60):
            while served.page.viewers:
                served.page.viewers.publish(b"x" * 1_000_000)
                await asyncio.sleep(0.01)
        writer.close()


async def test_a_typed_request_is_answered_with_its_reasons(serve_page):
    """Every head, the neighbours by title, the prompt; which head answers follows from threshold and budget."""
    async with serve_page() as served:
        status, told = await served.score()
        assert status == 200
        assert [candidate["words"]["item_id"] for candidate in told["candidates"]] == ["i3", "i1"]
        first = told["candidates"][0]
        assert [head["layer"] for head in first["heads"]] == [1, 2, 4]
        assert first["answer"]["layer"] in {1, 2, 4}
        assert first["answer"]["ctr"] in {head["ctr"] for head in first["heads"]}
        assert first["words"]["neighbours"]
        assert "⟨user⟩" in told["prompt"]
        _, at_once = await served.score(budget_ms=0)
        assert at_once["candidates"][0]["answer"]["made_by"] == "graph"
        assert at_once["candidates"][0]["answer"]["ctr"] == at_once["candidates"][0]["graph_ctr"]
        status, stranger = await served.score(user_id="nobody", items=["nothing"])
        assert status == 200
        assert stranger["user"] == "nothing is known of this user"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"items": []}, "candidate_item_ids"),
        ({"items": [f"i{number}" for number in range(MOST_CANDIDATES + 1)]}, "candidate_item_ids"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "u" * 201}, "user_id"),
        ({"budget_ms": -1}, "budget_ms"),
        ({"budget_ms": "soon"}, "budget_ms"),
        ({"other": 1}, "other"),
    ],
)
async def test_a_typed_request_that_is_none_is_refused_with_the_reason(serve_page, changes, word):
    """The field is named."""
    async with serve_page() as served:
        status, told = await served.score(**changes)

    assert status == 400
    assert word in told["error"]


async def test_typed_requests_are_limited_in_size_and_kind(serve_page):
    """Large ones are not read; what a form of a foreign page could send is not taken."""
    async with serve_page() as served:
        post = f"{served.address}/live/score"
        as_json = {"Content-Type": "application/json"}
        async with served.session.post(post, data=b"x" * (MOST_BYTES + 1), headers=as_json) as response:
            assert response.status == 413
        async with served.session.post(post, data=b"{}", headers={"Content-Type": "text/plain"}) as response:
            assert response.status == 415
        async with served.session.post(post, data=b"{", headers=as_json) as response:
            assert response.status == 400


async def test_typed_requests_come_one_at_a_time(serve_page, monkeypatch):
    """A second one meanwhile, or right after, is told to try again."""
    async with serve_page() as served:
        monkeypatch.setattr("worker.live.typed.PAUSE_S", 60.0)
        outcomes = await asyncio.gather(*(served.score() for _ in range(3)))
        again, _ = await served.score()

    assert sorted(status for status, _ in outcomes) == [200, 429, 429]
    assert again == 429


async def test_foreign_names_are_not_served(serve_page):
    """A name of somebody else's that was made to point here gets nothing; addresses and localhost do."""
    async with serve_page() as served:
        for path in ("/live", "/live/events", "/live/live.js"):
            async with served.session.get(served.address + path, headers={"Host": "evil.example"}) as response:
                assert response.status == 403
        async with served.session.post(f"{served.address}/live/score", headers={"Host": "evil.example"}) as response:
            assert response.status == 403


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1:80", ""), ("localhost", ""), ("[::1]:8080", ""), ("[::1]", ""), ("worker.lan:1", "worker.lan")],
)
def test_own_hosts(host, own):
    """Addresses of both kinds, with and without port, localhost, and what the setting names."""
    assert is_own_host(host, own)


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "", "[::1"])
def test_other_hosts(host):
    """Everything else."""
    assert not is_own_host(host, "0.0.0.0")


async def test_a_worker_that_starts_says_so(serve_page):
    """The page is there already; its stream and its form tell that there is nothing yet."""
    async with serve_page(with_model=False) as served:
        async with served.session.get(f"{served.address}/live/events") as response:
            assert response.status == 503
            assert "starting" in (await response.json())["error"]
        status, told = await served.score()
        assert status == 503
        assert "starting" in told["error"]


async def test_what_cannot_be_told_ends_nothing(serve_page, monkeypatch):
    """A fault of the page costs its second, not the worker; the next is told again."""
    async with serve_page() as served, served.events() as events:
        await anext(events)
        with monkeypatch.context() as broken:
            broken.setattr(served.page, "_count", lambda *_: 1 / 0)
            await asyncio.sleep(0.1)
        async for name, _ in events:
            if name == "second":
                break


def test_it_is_off_by_default():
    """Whoever wants it asks for it; it needs the status port."""
    assert not TelemetrySettings().live_page
    with pytest.raises(ValueError, match="http_enabled"):
        TelemetrySettings(live_page=True, http_enabled=False)


async def test_titles_are_told_as_they_are(serve_page, desk):
    """Markup in a title is text to the page, which shows it as text; here it goes through unchanged."""
    title = "<b onclick=x>"
    desk.tables.put_item(Item(item_id="i19", title=title))
    try:
        async with serve_page() as served:
            _, told = await served.score(items=["i19"])
    finally:
        desk.tables.put_item(Item(item_id="i19", title="title number 19"))

    assert told["candidates"][0]["words"]["title"] == title
    assert title in told["candidates"][0]["words"]["prompt"]
