"""From published scores and states of users to the metrics."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sklearn.metrics import roc_auc_score

from runtime.clock import ManualClock
from schemas.messages import PastInteraction
from schemas.packed_states import pack_state
from worker.outcomes.settings import OutcomeSettings

LIVE = "exitstream_worker_live_"
ITEMS = [f"i{number}" for number in range(20)]


def every_third(place):
    """Which items are clicked."""
    return place % 3 == 0


@pytest.fixture
def follow(make_desk, user_state):
    """A worker that has scored twenty items for u1, and can be told what u1 did with the first ones."""

    async def following(**settings):
        clock = ManualClock()
        desk = make_desk(clock=clock, outcomes=OutcomeSettings(**{"wait_s": 5, "least": 10} | settings))
        scores = await desk.answer(desk.request(*ITEMS))

        def did(count, clicked=every_third):
            recent = [
                PastInteraction(
                    item_id=item, event_time_ms=clock.wall_ms() + 1, positive=clicked(place), event_id=f"e{place}"
                )
                for place, item in enumerate(ITEMS[:count])
            ]
            desk.outcomes.learn([(b"u1", pack_state(user_state("u1", [1, 0, 0, 0], recent=recent)))])

        return desk, scores, did

    return following


async def test_the_metrics_show_the_quality_of_what_was_published(follow):
    """AUC and calibration are exactly those of the published scores and the interactions that followed."""
    desk, scores, did = await follow()
    did(16)
    desk.outcomes.judge()
    version = scores.model_version
    assert desk.metrics.value(f"{LIVE}waiting_scores") == 20
    assert desk.metrics.value(f"{LIVE}auc", model_version=version) is None
    desk.clock.advance(5)
    desk.outcomes.judge()

    ctr = [score.ctr for score in scores.scores[:16]]
    positive = [every_third(place) for place in range(16)]
    assert desk.metrics.value(f"{LIVE}auc", model_version=version) == pytest.approx(roc_auc_score(positive, ctr))
    ratio = desk.metrics.value(f"{LIVE}calibration_ratio", model_version=version)
    assert ratio == pytest.approx(sum(ctr) / sum(positive))
    assert desk.metrics.value(f"{LIVE}log_loss", model_version=version) > 0
    assert desk.metrics.value(f"{LIVE}outcomes", model_version=version) == 16
    assert desk.metrics.value(f"{LIVE}positives", model_version=version) == 6
    assert desk.metrics.value(f"{LIVE}scores_total", outcome="settled") == 16
    assert desk.metrics.value(f"{LIVE}scores_total", outcome="expired") == 4
    assert desk.metrics.value(f"{LIVE}waiting_scores") == 0


async def test_too_few_outcomes_show_no_quality(follow):
    """How many there are is shown all the same."""
    desk, scores, did = await follow()
    did(9)
    desk.clock.advance(5)
    desk.outcomes.judge()

    assert desk.metrics.value(f"{LIVE}auc", model_version=scores.model_version) is None
    assert desk.metrics.value(f"{LIVE}outcomes", model_version=scores.model_version) == 9


async def test_quality_that_is_no_longer_known_is_no_longer_shown(follow):
    """Once the window holds outcomes of one kind only, the last AUC would be an old number shown as a new one."""
    desk, scores, did = await follow(window=20)
    did(20)
    desk.clock.advance(5)
    desk.outcomes.judge()
    assert desk.metrics.value(f"{LIVE}auc", model_version=scores.model_version) is not None
    await desk.answer(desk.request(*ITEMS))
    did(20, clicked=lambda _: False)
    desk.clock.advance(5)
    desk.outcomes.judge()

    assert desk.metrics.value(f"{LIVE}outcomes", model_version=scores.model_version) == 20
    assert desk.metrics.value(f"{LIVE}auc", model_version=scores.model_version) is None


async def test_skipped_scores_are_counted(follow):
    """Nothing vanishes silently where there is no room."""
    desk, _, did = await follow(most_waiting=19)
    did(20)
    desk.clock.advance(5)
    desk.outcomes.judge()

    assert desk.metrics.value(f"{LIVE}scores_total", outcome="skipped") == 20
    assert desk.metrics.value(f"{LIVE}scores_total", outcome="settled") == 0


async def test_each_model_has_its_own_quality_until_its_last_scores_are_judged(follow):
    """After another model has taken over both can be compared; one that has retired is no longer shown."""
    desk, scores, did = await follow()
    desk.use(replace(desk.model, version="next"))
    desk.clock.advance(2)
    await desk.answer(desk.request(*ITEMS))
    did(20)
    desk.outcomes.judge()
    first, second = scores.model_version, "next"
    assert _outcomes(desk, first) == 0
    desk.clock.advance(3)
    desk.outcomes.judge()
    assert (_outcomes(desk, first), _outcomes(desk, second)) == (None, 0)
    desk.clock.advance(2)
    figures = desk.outcomes.judge()
    assert (_outcomes(desk, first), _outcomes(desk, second)) == (None, 20)
    assert figures.quality.scores == 20
    assert figures.expired == 20


def _outcomes(desk, version):
    return desk.metrics.value(f"{LIVE}outcomes", model_version=version)
