"""Live quality on real Kafka: scores out, states with what followed in."""

from __future__ import annotations

import asyncio
import time

import msgspec
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from worker_lab import USERS, WorkerLab, requests, until, user_state

from schemas.messages import PastInteraction
from worker.outcomes.settings import OutcomeSettings

pytestmark = pytest.mark.docker
LIVE = "exitstream_worker_live_"
WAIT_S = 20
"""Long enough for the states to arrive on a machine that is busy."""
REQUESTS = 60
SHOWN = 2
"""Of three candidates; the third is passed over by the page, not by the user."""


@pytest.fixture
async def lab(broker, tiny_bundle_folder):
    """States to know, on the real broker."""
    lab = WorkerLab(broker, tiny_bundle_folder)
    await lab.prepare()
    return lab


def _is_clicked(place):
    return place % 3 == 0


async def _act(lab, answers):
    """Each user's state, with an interaction for each candidate that was shown; the published rates and outcomes."""
    ctr, clicked, recent = [], [], {}
    for scores in answers:
        for score in scores.scores[:SHOWN]:
            positive = _is_clicked(len(ctr))
            event_id = f"{scores.request_id}-{score.item_id}"
            now_ms = time.time_ns() // 1_000_000
            recent.setdefault(scores.user_id, []).append(
                PastInteraction(item_id=score.item_id, event_time_ms=now_ms, positive=positive, event_id=event_id)
            )
            ctr.append(score.ctr)
            clicked.append(positive)
    for number in range(USERS):
        state = user_state(number, np.random.default_rng(number), version=2)
        await lab.tell(msgspec.structs.replace(state, recent=recent[state.user_id]))
    return ctr, clicked


async def test_the_worker_measures_the_auc_of_what_it_published(lab):
    """AUC, calibration and counts are exactly those of the scores in the topic and of what the states say followed."""
    settings = lab.settings(outcomes=OutcomeSettings(wait_s=WAIT_S))
    async with lab.worker(settings) as service:
        await lab.ask(*(requests(1, first=number, candidate_item_ids=_items(number))[0] for number in range(REQUESTS)))
        answers = await lab.scores(REQUESTS)
        await asyncio.sleep(0.01)  # an interaction is later than the score by a millisecond at least
        ctr, clicked = await _act(lab, answers)
        value = service.metrics.value
        await until(lambda: (value(f"{LIVE}scores_total", outcome="expired") or 0) == REQUESTS)

        version = answers[0].model_version
        assert value(f"{LIVE}auc", model_version=version) == pytest.approx(roc_auc_score(clicked, ctr))
        ratio = value(f"{LIVE}calibration_ratio", model_version=version)
        assert ratio == pytest.approx(np.mean(ctr) / np.mean(clicked))
        assert value(f"{LIVE}outcomes", model_version=version) == SHOWN * REQUESTS
        assert value(f"{LIVE}scores_total", outcome="settled") == SHOWN * REQUESTS
        assert value(f"{LIVE}scores_total", outcome="skipped") == 0
        assert value(f"{LIVE}waiting_scores") == 0


def _items(number):
    """Three items that no other request of the same user asks for."""
    turn = number // USERS
    return [f"i{3 * turn + place}" for place in range(3)]
