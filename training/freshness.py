"""Evaluates a bundle with state that is refreshed more or less often; costs a pass over the held-out tenth for each."""

from __future__ import annotations

from dataclasses import replace

from evaluation.freshness import INTERVALS, PER_EVENT, FreshnessPoint, refresh_ticks
from evaluation.metrics import auc, log_loss
from event_data.event_log import EventLog
from models.bundle import Bundle
from training.clicks import is_click
from training.evaluate import MOST_EVENTS, Evaluation, first_tested
from training.progress import Advance, Reporter, Silent
from training.replay import Replay
from training.served_scores import Floats, ServedScores


def with_freshness(
    evaluation: Evaluation,
    bundle: Bundle,
    log: EventLog,
    reporter: Reporter | None = None,
    most_events: int = MOST_EVENTS,
) -> Evaluation:
    """The evaluation, and the same events scored with staler state, from frozen to per event.

    Args:
        evaluation: of this bundle on this log; its events were scored with state refreshed after each.
        bundle: the model.
        log: events in time order.
        reporter: shows how far it has come.
        most_events: as for `evaluate`.
    """
    tested = log.interactions[first_tested(log, most_events) :]
    labels = [is_click(event) for event in tested]
    points = []
    for name, interval_ms in INTERVALS:
        with (reporter or Silent()).step(f"state refreshed: {name}", len(tested)) as advance:
            ctrs = served_ctrs(bundle, log, interval_ms, advance, most_events)
        points.append(FreshnessPoint(name, interval_ms, auc(labels, ctrs), log_loss(labels, ctrs)))
    points.append(FreshnessPoint(PER_EVENT, 0, evaluation.served.auc, evaluation.served.log_loss))
    return replace(evaluation, freshness=tuple(points))


def served_ctrs(
    bundle: Bundle, log: EventLog, interval_ms: int | None, advance: Advance, most_events: int = MOST_EVENTS
) -> Floats:
    """Click rates (events,) of the last tenth at the base threshold, each from the state of the last refresh.

    Args:
        bundle: the model.
        log: events in time order.
        interval_ms: from refresh to refresh, in event time; None: frozen at the split.
        advance: is told how many events are scored.
        most_events: of a longer last tenth, so many of the latest are scored.
    """
    first = first_tested(log, most_events)
    history, tested = log.interactions[:first], log.interactions[first:]
    state = Replay.for_bundle(log.items, bundle)
    state.advance(history)
    scorer = ServedScores(bundle, advance)
    start_ms = history[-1].event_time_ms if history else 0
    for tick in refresh_ticks([event.event_time_ms for event in tested], interval_ms, start_ms):
        # One candidate a prompt, as in `evaluate`: a prompt's evidence depends on all its candidates.
        for event in tested[tick]:
            scorer.add(state.prompt(event.user_id, [event.item_id]))
        state.advance(tested[tick])
    return scorer.ctrs()
