"""The live page in a real browser: Chromium from the system, driven by playwright."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from brokers import TestBroker
from worker_lab import USERS, WorkerLab, requests, user_state

from loadgen.processes import free_port
from runtime.kafka import RecordSink
from runtime.records import OutRecord
from runtime.settings import TelemetrySettings
from schemas.codec import encode, headers_for
from schemas.messages import Item, PastInteraction
from worker.outcomes.settings import OutcomeSettings

pytestmark = pytest.mark.slow
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MARKUP = "<b id=bad>x"
PATIENCE_MS = 60_000
CONTRAST_AA = 4.5
# The contrast of every text with what is painted behind it (WCAG 2.1), the worst first.
CONTRASTS = """() => {
  const channel = (value) => (value /= 255, value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const light = (rgb) => 0.2126 * channel(rgb[0]) + 0.7152 * channel(rgb[1]) + 0.0722 * channel(rgb[2]);
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = numbers(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const told = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].filter((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own.length || !node.getClientRects().length || node.matches(".hidden, .skip, noscript, noscript *")) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(numbers(node instanceof SVGElement ? style.fill : style.color)), light(behind(node))];
    told.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), own[0].textContent.trim()]);
  }
  return told.sort((one, other) => one[0] - other[0]);
}"""


@pytest.fixture(scope="module")
def chromium_path():
    """Chromium, or a skip that says why; with REQUIRE_CHROMIUM=1 a failure instead."""
    pytest.importorskip("playwright", reason="drives the browser; it is in exitstream[dev]")
    path = shutil.which("chromium")
    if path is None:
        if os.environ.get("REQUIRE_CHROMIUM") == "1":
            pytest.fail("REQUIRE_CHROMIUM=1, but there is no chromium; Debian's package is chromium")
        pytest.skip("needs Chromium (Debian's package is chromium)")
    return path


@pytest.fixture
async def lab(embedded_broker, request, tiny_bundle_folder):
    """Twenty items, one of them with markup in its title, and ten users."""
    lab = WorkerLab(TestBroker(embedded_broker.bootstrap_servers, request.node.name[:40]), tiny_bundle_folder)
    await lab.prepare()
    async with RecordSink(lab.broker.settings()) as sink:
        value = encode(Item(item_id="i3", title=MARKUP))
        await sink.send(OutRecord(lab.topics.items, b"i3", value, tuple(headers_for("msgpack"))))
        await sink.flush()
    return lab


@pytest.fixture
def browse(chromium_path, tmp_path):
    """Opens a page in a browser of its own; yields it and what its console said."""

    @asynccontextmanager
    async def browsing(address, **options):
        from playwright.async_api import async_playwright  # noqa: PLC0415 - only where there is a browser

        async with async_playwright() as driver:
            context = await driver.chromium.launch_persistent_context(
                tmp_path / "profile", executable_path=chromium_path, headless=True, args=FLAGS, **options
            )
            page, said = await context.new_page(), []
            page.set_default_timeout(PATIENCE_MS)
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            try:
                await page.goto(address)
                yield page, said
            finally:
                await context.close()

    return browsing


@pytest.fixture
def work(lab):
    """Starts a worker; yields the address of its page."""

    @asynccontextmanager
    async def working():
        telemetry = TelemetrySettings(http_port=free_port(), live_page=True)
        settings = lab.settings(outcomes=OutcomeSettings(wait_s=3, least=40))
        async with lab.worker(settings.model_copy(update={"telemetry": telemetry})):
            yield f"http://127.0.0.1:{telemetry.http_port}/live"

    return working


@pytest.fixture
def watch(work, browse):
    """Both: a browser that looks at a worker."""

    @asynccontextmanager
    async def watching(**options):
        async with work() as address, browse(address, **options) as (page, said):
            yield page, said

    return watching


async def show_answers(lab, page, first=0):
    """Lets the worker answer some requests until the page tells of one."""
    await page.wait_for_selector("#state.good")
    shown = await page.locator("#samples details").count()
    for number in range(60):
        await lab.ask(*requests(3, first=first + 3 * number))
        if await page.locator("#samples details").count() > shown:
            return
        await page.wait_for_timeout(500)


async def show_outcomes(lab, page):
    """Has every user do something with every item after it was scored, until the page tells of quality. On a machine
    with much else to do it may come too late for the first scores, so it does it again.
    """
    for attempt in range(10):
        await tell_outcomes(lab, first=1000 * (attempt + 1))
        for _ in range(80):
            if await page.is_visible("#outcomes"):
                return
            await asyncio.sleep(0.1)
    raise AssertionError("the page tells nothing of quality")


async def tell_outcomes(lab, first):
    """Twenty requests, and once they are answered an interaction of every user with every item."""
    known = len(await lab.scores(0))
    await lab.ask(*requests(20, first=first))
    await lab.scores(known + 20)
    now_ms = time.time_ns() // 1_000_000 + 1
    for number in range(USERS):
        state = user_state(number, np.random.default_rng(number), version=2)
        recent = [
            PastInteraction(
                item_id=f"i{item}", event_time_ms=now_ms, positive=item % 3 == 0, event_id=f"{number}-{item}"
            )
            for item in range(20)
        ]
        await lab.tell(msgspec.structs.replace(state, recent=recent))


async def test_what_became_of_the_scores_is_shown(lab, watch):
    """AUC and calibration as figures, and in ten parts; before there are enough outcomes, how many there are."""
    async with watch() as (page, said):
        await show_answers(lab, page)
        assert await page.text_content("#auc") == "–"
        assert "of 40 outcomes" in await page.text_content("#auc-note")
        assert not await page.is_visible("#outcomes")
        await show_outcomes(lab, page)

        assert 0 <= float(await page.text_content("#auc")) <= 1
        assert float(await page.text_content("#ratio")) > 0
        assert await page.locator("#bins tr").count() == 10
        assert await page.locator("#bins .predicted").count() == 10
        rungs = await page.locator("#outcomes-by-rung th").all_text_contents()
        assert rungs
        assert set(rungs) <= {"final head", "confident head", "deadline", "graph score"}
        assert "had an outcome" in await page.text_content("#outcomes-hint")
        assert said == []


async def test_numbers_move_while_requests_are_answered(lab, watch):
    """Figures, bars and charts follow the worker; the console stays empty."""
    async with watch() as (page, said):
        await page.wait_for_selector("#state.good")
        assert await page.text_content("#answered") == "0 answered"
        await show_answers(lab, page)
        await page.wait_for_function("parseFloat(document.querySelector('#rate').textContent) > 0")
        await page.wait_for_function("document.querySelectorAll('#chart-latency .line').length >= 2")
        assert "ms" in await page.text_content("#p99")
        shares = await page.locator("#rungs .share").all_text_contents()
        assert "100 %" in shares or len([share for share in shares if share != "0.0 %"]) > 1
        assert said == []


async def test_a_typed_request_is_answered_with_why(lab, watch):
    """By keyboard alone: the skip link leads to the form, the answer tells head, neighbours and prompt."""
    async with watch() as (page, said):
        await show_answers(lab, page)
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.id") == "user"
        for text in ("u1", "i3 i4", "60000"):
            await page.keyboard.press("Control+A")
            await page.keyboard.type(text)
            await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("#answer .result")

        assert await page.locator("#answer .result").count() == 2
        told = await page.text_content("#answer")
        assert "Why: " in told
        assert "own past" in told
        assert "candidate" in told
        assert await page.locator("#answer tr.chosen").count() == 2
        assert said == []


async def test_what_comes_from_outside_stays_text(watch):
    """A title with markup in it is shown as it is written; so are wrong input and its refusal."""
    async with watch() as (page, said):
        await page.wait_for_selector("#state.good")
        await page.fill("#user", "u1")
        await page.fill("#items", "i3")
        await page.click("#form button")
        await page.wait_for_selector("#answer .result")
        assert MARKUP in await page.text_content("#answer h3")
        assert await page.locator("#bad").count() == 0
        await page.fill("#items", " ".join(f"i{number}" for number in range(9)))
        await page.click("#form button")
        await page.wait_for_selector("#answer .error")
        assert "candidate_item_ids" in await page.text_content("#answer .error")
        assert [text for text in said if "400" not in text] == []  # Chromium notes the refusal's status


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_a_narrow_screen_and_can_be_read(lab, watch, scheme):
    """At 400 px nothing scrolls sideways, everything open; every text has the contrast of WCAG's level AA."""
    async with watch(viewport={"width": 400, "height": 800}, color_scheme=scheme) as (page, _):
        await show_answers(lab, page)
        await show_outcomes(lab, page)
        await page.locator("#samples summary").first.click()
        await page.fill("#user", "u1")
        await page.fill("#items", "i3 i4")
        await page.click("#form button")
        await page.wait_for_selector("#answer .result")
        await page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert await page.evaluate("document.documentElement.scrollWidth") <= 400
        contrasts = await page.evaluate(CONTRASTS)
        assert len(contrasts) > 100
        assert contrasts[0][0] >= CONTRAST_AA, contrasts[:5]


async def test_everything_that_can_be_used_has_a_name(lab, watch):
    """For screen readers: fields have labels, charts and buttons tell what they are, one heading leads the page."""
    async with watch() as (page, _):
        await show_answers(lab, page)
        nameless = await page.evaluate("""[...document.querySelectorAll("input, button, svg[role=img], summary, a")]
            .filter((node) => !(node.labels?.length || node.textContent.trim() || node.getAttribute("aria-label")))
            .map((node) => node.outerHTML)""")
        assert nameless == []
        assert await page.locator("h1").count() == 1
        await page.focus("#chart-latency svg")
        before = await page.get_attribute("#chart-latency svg", "aria-label")
        await page.keyboard.press("ArrowLeft")
        await page.keyboard.press("ArrowLeft")
        after = await page.get_attribute("#chart-latency svg", "aria-label")
        assert "now" in before
        assert "seconds ago" in after


async def test_a_worker_that_ends_is_told(work, browse):
    """The worker does not wait for its viewers, and the page says that nothing is heard instead of showing old numbers
    as new ones.
    """
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(work())
        async with browse(address) as (page, _):
            await page.wait_for_selector("#state.good")
            await stack.aclose()
            await page.wait_for_selector("#state.bad")
            assert await page.text_content("#state") != "ready"


def test_the_page_loads_nothing_from_elsewhere():
    """No address of another server stands in its files, the names of XML apart."""
    folder = Path(__file__).parents[3] / "worker" / "live" / "static"
    files = {path.name: path.read_text() for path in folder.iterdir()}

    assert set(files) == {"index.html", "live.css", "live.js", "charts.js"}
    for name, text in files.items():
        quoted = text.replace("'", '"').split('"')
        addresses = {word for word in quoted if word.startswith(("http:", "https:"))}
        assert addresses <= {"http://www.w3.org/2000/svg"}, name
        assert "innerHTML" not in text
        assert "insertAdjacentHTML" not in text
