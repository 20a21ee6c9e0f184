"""The report in a real browser: Chromium from the system, driven by playwright."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest
from evaluation_example import SUBJECT, example_evaluation

from cli.evaluation_report.page import report_page
from evaluation.auc_difference import AucDifference
from evaluation.left_out import LeftOutPoint

pytestmark = pytest.mark.slow
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
LONG = "a" * 150 + "<b id=bad>x"
# Texts of pictures that reach beyond their picture.
CUT_OFF = """() => [...document.querySelectorAll("svg text")].filter((text) => {
  const [inner, outer] = [text.getBoundingClientRect(), text.closest("svg").getBoundingClientRect()];
  return inner.left < outer.left - 1 || inner.right > outer.right + 1 || inner.bottom > outer.bottom + 1;
}).map((text) => text.textContent)"""

# Tables and pictures that are wider than the card they stand in.
TOO_WIDE = """() => [...document.querySelectorAll("table, svg, .bars, p, h1, dl")].filter((part) => {
  const card = part.closest("section, header");
  const room = card.getBoundingClientRect().right - parseFloat(getComputedStyle(card).paddingRight);
  return part.getBoundingClientRect().right > room + 1;
}).map((part) => part.tagName)"""


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
async def test_it_fits_the_screen_and_the_console_stays_empty(chromium_path, tmp_path, width, scheme):
    """Nothing scrolls sideways, no text of a picture is cut off, and a name with markup in it stays text; the colours
    follow the reader's choice.
    """
    from playwright.async_api import async_playwright  # noqa: PLC0415 - only where there is a browser

    file = tmp_path / "report.html"
    none = AucDifference(-0.1, -0.2, 0.0)
    left_out = (LeftOutPoint("everything that items of the same attributes did", 0.5, 0.6, none),)
    evaluation = replace(example_evaluation(), left_out=left_out)
    file.write_text(report_page(evaluation, replace(SUBJECT, dataset=LONG, version=LONG)), encoding="utf-8")
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=chromium_path, args=FLAGS)
        page = await browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(file.as_uri())

        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        assert await page.evaluate(CUT_OFF) == []
        assert await page.evaluate(TOO_WIDE) == []
        assert await page.locator("svg").count() == 6
        assert await page.locator("#bad").count() == 0
        background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == {"light": "rgb(243, 245, 248)", "dark": "rgb(13, 17, 23)"}[scheme]
        assert asked == [file.as_uri()]
        assert said == []
        await browser.close()
