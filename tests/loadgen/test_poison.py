"""Every record of the catalogue is refused by the program that reads its topic, with a reason."""

from __future__ import annotations

import pytest

from graph_updater.intake import Intake as UpdaterIntake
from loadgen.poison import poison
from programs.topics import TopicSettings
from runtime.clock import ManualClock
from runtime.records import Record
from schemas.codec import MalformedRecord
from worker.intake import Intake as WorkerIntake
from worker.settings import WorkerSettings

CLOCK = ManualClock()
TOPICS = TopicSettings()
POISON = poison(TOPICS, CLOCK.wall_ms())


def as_read(out):
    """The record as a reader gets it."""
    return Record(out.topic, 0, 0, out.key, out.value, out.headers, CLOCK.wall_ms())


@pytest.mark.parametrize("kind", [kind for kind in POISON if not kind.startswith("requests")])
def test_the_updater_refuses_it(kind):
    """It becomes a rejected record and nothing else."""
    intake = UpdaterIntake(TOPICS.items, max_bytes=1_000_000, max_event_lead_ms=3_600_000, clock=CLOCK)
    batch = intake.read([as_read(POISON[kind])])
    assert len(batch.rejects) == 1
    assert (batch.interactions, batch.items, batch.withdrawn_items) == ([], [], [])


@pytest.mark.parametrize("kind", [kind for kind in POISON if kind.startswith("requests")])
def test_the_worker_refuses_it(kind):
    """No deadline comes of it."""
    intake, record = WorkerIntake(WorkerSettings(), CLOCK), as_read(POISON[kind])
    with pytest.raises(MalformedRecord):
        intake.deadline(intake.decode(record)[0], record)
