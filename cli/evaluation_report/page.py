"""The report page, self-contained: no script, and nothing is loaded from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cli.evaluation_report import words
from cli.evaluation_report.html import Html, joined, tag
from cli.evaluation_report.pictures import exit_bars, frontier_picture, reliability_picture
from cli.evaluation_report.style import STYLE
from training.evaluate import Evaluation

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""A browser refuses every script and every request, even if a text from outside became markup by some fault."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What was evaluated."""

    dataset: str
    trained_on: str
    version: str
    made: datetime


def report_page(evaluation: Evaluation, subject: Subject) -> str:
    """The whole page as HTML."""
    head = joined(
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", f"Evaluation on {subject.dataset}"),
        tag("style", Html(STYLE)),
    )
    main = tag("main", _header(evaluation, subject), *_sections(evaluation, subject))
    return f"<!doctype html>\n{tag('html', tag('head', head), tag('body', main), lang='en')}\n"


def _header(evaluation: Evaluation, subject: Subject) -> Html:
    facts = {
        "data set": subject.dataset,
        "model version": subject.version,
        "model trained on": subject.trained_on,
        "made": f"{subject.made:%Y-%m-%d %H:%M} UTC",
        "events": f"{evaluation.events:,}, {evaluation.click_rate:.1%} clicked",
    }
    about = (tag("div", tag("dt", name), tag("dd", fact)) for name, fact in facts.items())
    return tag(
        "header", tag("h1", f"How well clicks are predicted: {subject.dataset}"), tag("dl", *about, class_="about")
    )


def _sections(evaluation: Evaluation, subject: Subject) -> list[Html]:
    layers = evaluation.exit_layers
    heads = [
        reliability_picture(f"head after layer {layer}", told)
        for layer, told in zip(layers, evaluation.head_reliability, strict=True)
    ]
    exits = [
        reliability_picture(f"left after layer {layer}", told)
        for layer, told in zip(layers, evaluation.exit_reliability, strict=True)
    ]
    frontier = tag("div", frontier_picture(evaluation.frontier, evaluation.base_threshold), class_="wide")
    return [
        _result(evaluation, subject),
        _section("Ways to score", words.AUC_WORDS, _quality_table(evaluation)),
        _section("Quality for less work", words.FRONTIER_WORDS, frontier),
        _section("Where candidates leave", words.EXIT_WORDS, exit_bars(layers, evaluation.exit_shares)),
        _section("Are the rates right? Each head", words.RELIABILITY_WORDS, tag("div", *heads, class_="pictures")),
        _section("Are the rates right? Each exit", words.EXIT_RELIABILITY_WORDS, tag("div", *exits, class_="pictures")),
        *_freshness(evaluation),
        *_left_out(evaluation),
    ]


def _result(evaluation: Evaluation, subject: Subject) -> Html:
    foreign = subject.trained_on != subject.dataset
    told = [
        tag("h2", "Result"),
        tag("p", words.headline(evaluation, seen=foreign), class_="headline"),
        tag(
            "p",
            "They are the latest events of the log. Each was scored as of its own time, by the engine that serves: "
            "only what had happened before was known.",
            class_="hint",
        ),
    ]
    if foreign:
        told.append(
            tag("p", f"The model was trained on other data ({subject.trained_on}); what it had seen is not known.")
        )
    return tag("section", *told)


def _section(title: str, how_to_read: str, content: Html) -> Html:
    hint = tag("p", tag("b", "How to read this. "), how_to_read, class_="read")
    return tag("section", tag("h2", title), content, hint)


def _quality_table(evaluation: Evaluation) -> Html:
    names = ("scored by", "AUC", "points over running means", "log loss", "calibration error")
    rows = [
        _row(
            name,
            _auc(quality.auc),
            _lead(quality.auc, evaluation),
            f"{quality.log_loss:.4f}",
            f"{quality.calibration_error:.3f}",
        )
        for name, quality in words.ways(evaluation)
    ]
    rows.append(_row("running means", _auc(evaluation.baseline_auc), "", "", ""))
    if evaluation.limit_auc is not None:
        limit = evaluation.limit_auc
        rows.append(_row("limit: the world's own probabilities", _auc(limit), _lead(limit, evaluation), "", ""))
    return _table(names, rows)


def _lead(auc: float, evaluation: Evaluation) -> str:
    """Points over the running means."""
    lead = (auc - evaluation.baseline_auc) * 100
    return f"{lead:+.1f}" if math.isfinite(lead) else "–"


def _freshness(evaluation: Evaluation) -> list[Html]:
    """The section on refreshes; none unless they were measured."""
    if not evaluation.freshness:
        return []
    rows = [_row(point.refreshed, _auc(point.auc), f"{point.log_loss:.4f}") for point in evaluation.freshness]
    told = tag("p", words.freshness_words(evaluation) + ".")
    content = joined(_table(("state refreshed", "AUC", "log loss"), rows), told)
    return [_section("What fresh state is worth", words.FRESHNESS_WORDS, content)]


def _left_out(evaluation: Evaluation) -> list[Html]:
    """The section on kinds of evidence; none unless they were left out."""
    if not evaluation.left_out:
        return []
    rows = [
        _row(point.left_out, _auc(point.auc), words.lost(point), f"{point.log_loss:.4f}")
        for point in evaluation.left_out
    ]
    content = _table(("left out", "AUC", "change, 95 % interval", "log loss"), rows)
    return [_section("What the model relies on", words.LEFT_OUT_WORDS, content)]


def _table(names: Sequence[str], rows: Sequence[Html]) -> Html:
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in names)))
    return tag("table", head, tag("tbody", *rows))


def _row(name: str, *cells: str) -> Html:
    return tag("tr", tag("th", name, scope="row"), *(tag("td", cell) for cell in cells))


def _auc(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "undefined"
