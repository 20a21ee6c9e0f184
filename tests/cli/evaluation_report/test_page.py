"""The report page: complete, self-contained, and safe whatever the data is called."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from evaluation_example import SUBJECT, example_evaluation
from hypothesis import given
from hypothesis import strategies as st

from cli.evaluation_report.html import tag
from cli.evaluation_report.page import report_page
from evaluation.auc_difference import AucDifference
from evaluation.freshness import FreshnessPoint
from evaluation.frontier import MeasuredPoint
from evaluation.left_out import LeftOutPoint
from training.evaluate import Quality

VOID = {"meta"}


@pytest.fixture(scope="session")
def evaluation():
    """Of a model with three heads; the last exit is never used."""
    return example_evaluation()


class _Page(HTMLParser):
    """Fails unless every element is closed in its turn; keeps elements and texts."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.texts, self._open = [], [], []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        """All texts in one line."""
        return " ".join(" ".join(self.texts).split())


def test_the_headline_tells_the_result_in_plain_words(evaluation):
    """Events, quality against the baseline, work and what leaving early changed."""
    text = _Page(report_page(evaluation, SUBJECT)).text
    assert "On 3,000 events that the model was not trained on" in text
    assert "in 78.8% of all pairs; running means of users and items do so in 74.5%" in text
    assert "executed 25% of the work of full depth and changed the AUC by -0.03 points" in text
    assert "the log loss by +0.05%" in text


def test_the_page_tells_what_was_evaluated_and_every_figure(evaluation):
    """Data set, version, date; a row for each way to score; a picture for each head and each exit that was used."""
    page = _Page(report_page(evaluation, SUBJECT))
    for told in ("films", "abc123", "2026-01-02 03:04 UTC", "0.7594", "+4.3", "after layer 4", "no event left here"):
        assert told in page.text
    labels = [attributes["aria-label"] for name, attributes in page.elements if name == "svg"]
    assert sum(label.startswith("Reliability of head") for label in labels) == 3
    assert sum(label.startswith("Reliability of left") for label in labels) == 2
    assert sum(label.startswith("AUC from") for label in labels) == 1
    assert page.text.count("How to read this.") == 5


def test_the_page_loads_nothing_and_runs_nothing(evaluation):
    """No address, no script, no style from elsewhere; the policy forbids them as well."""
    source = report_page(evaluation, SUBJECT)
    page = _Page(source)
    assert re.findall(r"https?:|//\w|url\(|@import", source) == []
    assert {name for name, _ in page.elements} & {"script", "link", "img", "iframe", "object"} == set()
    assert not any(key.startswith("on") or key in {"href", "src"} for _, keys in page.elements for key in keys)
    policies = [keys["content"] for _, keys in page.elements if keys.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


@pytest.mark.parametrize("field", ["dataset", "trained_on", "version"])
@pytest.mark.parametrize(
    "hostile", ["<script>alert(1)</script>", "</title><b id=bad>", "\"'><svg onload=x>", "&lt;i&gt;"]
)
def test_names_from_outside_stay_text(evaluation, field, hostile):
    """Markup in a name is shown as it is written and makes no element."""
    plain = _Page(report_page(evaluation, replace(SUBJECT, dataset="a", trained_on="b")))
    page = _Page(report_page(evaluation, replace(SUBJECT, **{"dataset": "a", "trained_on": "b", field: hostile})))
    assert [name for name, _ in page.elements] == [name for name, _ in plain.elements]
    assert hostile in page.text


@given(st.text(), st.text())
def test_an_element_holds_exactly_the_text_that_was_put_in(inside, attribute):
    """Whatever the characters, a parser reads back what was written."""
    source = tag("p", inside, title=attribute)
    found = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.append((tag, attrs))

        def handle_data(self, data):
            found.append(data)

    reader = Reader()
    reader.feed(source)
    reader.close()
    assert found[0] == ("p", [("title", attribute)])
    assert "".join(found[1:]) == inside


def test_a_model_of_other_data_is_not_called_unseen(evaluation):
    """What it was trained on is told instead."""
    text = _Page(report_page(evaluation, replace(SUBJECT, trained_on="books"))).text
    assert "not trained on" not in text
    assert "trained on other data (books)" in text


def test_refreshes_are_told_only_if_they_were_measured(evaluation):
    """A row for each interval, and the difference from frozen to per event in points."""
    assert "fresh state" not in _Page(report_page(evaluation, SUBJECT)).text
    measured = (FreshnessPoint("frozen <b>", None, 0.7747, 0.57), FreshnessPoint("per event", 0, 0.7877, 0.55))
    page = _Page(report_page(replace(evaluation, freshness=measured), SUBJECT))
    assert "per event against frozen: +1.30 points" in page.text
    assert "frozen <b> 0.7747 0.5700 per event 0.7877 0.5500" in page.text


def test_kinds_of_evidence_are_told_only_if_they_were_left_out(evaluation):
    """A row for each, with what the AUC loses in points and its interval; names stay text."""
    assert "relies on" not in _Page(report_page(evaluation, SUBJECT)).text
    measured = (
        LeftOutPoint("nothing", 0.7877, 0.55, AucDifference(0.0, 0.0, 0.0)),
        LeftOutPoint("titles <b>", 0.7747, 0.57, AucDifference(-0.013, -0.02, -0.006)),
    )
    page = _Page(report_page(replace(evaluation, left_out=measured), SUBJECT))
    assert "nothing 0.7877 0.5500 titles <b> 0.7747 -1.30 points [-2.00, -0.60] 0.5700" in page.text


def test_without_both_classes_the_page_says_that_ranking_cannot_be_measured(evaluation):
    """An AUC that is not a number appears nowhere."""
    nan = float("nan")
    quality = Quality(nan, 0.5, 0.1)
    point = MeasuredPoint(1.0, nan, 0.5, 1.0)
    one_class = replace(
        evaluation, served=quality, heads=(quality,) * 3, graph=quality, baseline_auc=nan, frontier=(point,)
    )
    text = _Page(report_page(one_class, SUBJECT)).text
    assert "ranking cannot be measured" in text
    assert "The AUC is undefined" in text
    assert re.search(r"\bnan\b", text) is None


def test_the_limit_of_an_invented_world_stands_beside_the_others(evaluation):
    """A real data set has none, and no row for it."""
    assert "the world's own probabilities" in _Page(report_page(evaluation, SUBJECT)).text
    real = replace(evaluation, limit_auc=None)
    assert "the world's own probabilities" not in _Page(report_page(real, SUBJECT)).text
