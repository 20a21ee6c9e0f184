"""The way of a team's own data through the commands, on the embedded broker."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys

import pytest
from brokers import TestBroker

from cli.topic_log import read_topics
from event_data.folder import read_folder
from programs.topics import TopicSettings
from runtime.kafka import RecordSink, create_missing_topics
from runtime.records import OutRecord

T0_MS = 1_700_000_000_000


@pytest.fixture
def folder(tmp_path):
    """Sixty interactions and three items."""
    events = [
        {"event_id": f"e{n}", "user_id": f"u{n % 5}", "item_id": f"i{n % 3}", "ts": T0_MS + n, "clicked": n % 2}
        for n in range(60)
    ]
    (tmp_path / "interactions.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    items = [{"item_id": f"i{n}", "title": f"title {n}", "genre": "sea"} for n in range(3)]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return tmp_path


@pytest.fixture
def broker(embedded_broker, request):
    """Names of this test's own."""
    return TestBroker(embedded_broker.bootstrap_servers, re.sub(r"\W", "-", request.node.name)[:60])


@pytest.fixture
def topics(broker):
    """Topics that are there."""
    prefix = broker.name("own")
    plain = TopicSettings()
    names = ("interactions", "items", "impression_requests", "ctr_scores", "user_states", "item_states", "item_parts")
    topics = TopicSettings(**{name: f"{prefix}-{getattr(plain, name)}" for name in names})
    asyncio.run(create_missing_topics(broker.settings(), topics.specs()))
    return topics


def exitstream(*arguments, environment=None):
    """Runs the command as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )


def test_what_is_loaded_can_be_trained_from(folder, broker, topics, tmp_path):
    """`load` puts catalogue and history into the topics under their keys; reading them gives the same log."""
    config = tmp_path / "exitstream.toml"
    names = "\n".join(f'{name} = "{value}"' for name, value in topics.model_dump().items() if isinstance(value, str))
    config.write_text(f'[kafka]\nbootstrap_servers = "{broker.bootstrap_servers}"\n[topics]\n{names}\n')
    done = exitstream("load", "--data", folder, "--config", config)
    assert done.returncode == 0, done.stderr
    assert "sent 3 items and 60 interactions" in done.stdout
    log, read = read_folder(folder), asyncio.run(read_topics(broker.settings(), topics))
    assert read.interactions == log.interactions
    assert sorted(read.items, key=lambda item: item.item_id) == log.items


async def test_what_the_topics_hold_besides_is_counted(broker, topics):
    """Records that are no interactions are skipped, as the updater would."""
    async with RecordSink(broker.settings()) as sink:
        await sink.send(OutRecord(topics.interactions, b"u", b"junk"))
        value = b'{"type":"interaction","event_id":"e","user_id":"u","item_id":"i","kind":"click","event_time_ms":1}'
        await sink.send(OutRecord(topics.interactions, b"u", value))
        await sink.send(OutRecord(topics.interactions, b"u", value))
        await sink.flush()
    log = await read_topics(broker.settings(), topics)
    assert [(event.event_id, event.positive) for event in log.interactions] == [("e", True)]
    assert log.skipped == 1
    assert topics.interactions in log.first_skipped


def test_check_data_tells_and_refuses_what_cannot_be_trained_on(folder):
    """Findings on standard output, one line with the reason on standard error, status 1."""
    done = exitstream("check-data", folder)
    assert done.returncode == 1
    assert "60 interactions of 5 users with 3 items" in done.stdout
    assert "60 interactions are too few" in done.stdout
    assert re.fullmatch(r"exitstream: .* cannot be trained on as it is\n", done.stderr)


def test_train_refuses_too_little_at_once(folder, tmp_path):
    """Before anything is computed, with the number that is needed."""
    done = exitstream("train", "--data", folder, "--out", tmp_path / "bundle")
    assert done.returncode == 1
    assert "60 interactions are too few; at least 1,000 are needed" in done.stderr
    assert not (tmp_path / "bundle").exists()


def test_two_sources_are_not_guessed_between(folder, tmp_path):
    """A folder and Kafka at once."""
    done = exitstream("train", "--data", folder, "--from-kafka", "--out", tmp_path / "bundle")
    assert done.returncode == 1
    assert "--data and --from-kafka name two sources" in done.stderr


@pytest.mark.slow
def test_a_bundle_is_not_explained_by_another_catalogue(tiny_bundle_folder, tmp_path):
    """`score` without --data refuses a bundle of other data than the synthetic, and says what to name."""
    request = tmp_path / "request.json"
    request.write_text(
        '{"type": "impression-request", "request_id": "r", "user_id": "u", "candidate_item_ids": ["i1"], '
        '"created_time_ms": 1}'
    )
    done = exitstream("score", request, "--bundle", tiny_bundle_folder)
    assert done.returncode == 1
    assert "this bundle was trained on none: name its folder with --data" in done.stderr
