"""The pictures of the report: the frontier, reliability, and where candidates leave."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cli.evaluation_report.html import Html, tag
from cli.evaluation_report.plot import Axis, Plot
from evaluation.frontier import MeasuredPoint
from evaluation.reliability import Reliability, ReliabilityBin

LEAST_AUC_RANGE = 0.01
"""The AUC axis spans at least this much, so that differences of no importance do not look large."""


def frontier_picture(points: Sequence[MeasuredPoint], base_threshold: float) -> Html:
    """AUC over work, one dot per threshold; a sentence instead where the AUC is undefined."""
    drawn = [point for point in points if math.isfinite(point.auc)]
    if not drawn:
        return tag("p", "The AUC is undefined: either all of these events are clicks or none is.", class_="hint")
    low, high = min(point.auc for point in drawn), max(point.auc for point in drawn)
    margin = max(LEAST_AUC_RANGE - (high - low), 0.2 * (high - low)) / 2
    plot = Plot(
        Axis("work, as a share of full depth", 0.0, 1.0, percent),
        Axis("AUC", low - margin, high + margin, lambda value: f"{value:.4f}"),
    )
    ordered = sorted(drawn, key=lambda point: point.token_layer_share)
    marks = [plot.line([(point.token_layer_share, point.auc) for point in ordered], "curve")]
    for point in ordered:
        place, base = (point.token_layer_share, point.auc), point.threshold == base_threshold
        told = f"threshold {point.threshold:.3f}: {point.token_layer_share:.1%} of the work, AUC {point.auc:.4f}"
        marks.append(plot.dot(place, told, "dot base" if base else "dot", 5.5 if base else 3.2))
        if base:
            marks.append(plot.label(place, "base threshold"))
    label = f"AUC from {low:.4f} to {high:.4f} over the share of work, for {len(drawn)} exit thresholds"
    return plot.svg(label, *marks)


def reliability_picture(title: str, told: Reliability) -> Html:
    """Observed over predicted click rate, with intervals; a sentence instead where there are no events."""
    if not told.bins:
        return _figure(title, "no event left here", tag("p", "Nothing to show.", class_="hint"))
    plot = Plot(Axis("predicted click rate", 0.0, 1.0, percent), Axis("observed", 0.0, 1.0, percent))
    marks = [plot.line([(0.0, 0.0), (1.0, 1.0)], "diagonal")]
    for part in told.bins:
        marks.append(plot.line([(part.predicted, part.low), (part.predicted, part.high)], "interval"))
        marks.append(plot.dot((part.predicted, part.observed), bin_words(part)))
    note = f"{told.events:,} events, calibration error {told.calibration_error:.3f}"
    return _figure(title, note, plot.svg(f"Reliability of {title}: {note}", *marks))


def bin_words(part: ReliabilityBin) -> str:
    """The figures of a bin in words."""
    return (
        f"{part.events:,} events, {part.clicks:,} clicks: predicted {part.predicted:.1%}, observed {part.observed:.1%} "
        f"(95 % interval {part.low:.1%} to {part.high:.1%})"
    )


def exit_bars(layers: Sequence[int], shares: Sequence[float]) -> Html:
    """A bar for each exit."""
    return tag(
        "ul",
        *(
            tag(
                "li",
                tag("span", f"after layer {layer}"),
                tag("span", tag("span", style=f"width: {share:.2%}"), class_="track"),
                tag("b", f"{share:.1%}"),
            )
            for layer, share in zip(layers, shares, strict=True)
        ),
        class_="bars",
    )


def percent(value: float) -> str:
    """A tick of an axis of shares."""
    return f"{value:.0%}"


def _figure(title: str, note: str, picture: Html) -> Html:
    caption = tag("figcaption", tag("h3", title), tag("span", note, class_="hint"))
    return tag("figure", caption, picture)
