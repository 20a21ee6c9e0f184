"""The topics' names, and what their settings refuse."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from programs.topics import TopicSettings
from schemas.topics import CHANNELS


def test_every_topic_has_a_specification():
    """Logs are kept by time, tables compacted, and every input has a dead-letter topic with room for its records."""
    specs = {spec.name: spec for spec in TopicSettings(partitions=6).specs()}
    assert len(specs) == 11
    assert specs["interactions"].config["cleanup.policy"] == "delete"
    assert specs["user-states"].config["cleanup.policy"] == "compact"
    assert specs["items"].partitions == 6
    assert int(specs["items.dead-letter"].config["max.message.bytes"]) > 1_048_588


@pytest.mark.parametrize(
    "contradiction", [{"items": "interactions"}, {"min_insync_replicas": 2, "replication_factor": 1}]
)
def test_topics_that_could_not_work_are_refused(contradiction):
    """Two topics of one name, or more replicas in sync than there are replicas."""
    with pytest.raises(ValidationError):
        TopicSettings(**contradiction)


def test_every_channel_has_a_setting_for_its_name():
    """Renaming one topic renames it wherever topics are listed."""
    for channel in CHANNELS:
        topics = TopicSettings(**{channel.topic.replace("-", "_"): "other"})
        assert topics.name_of(channel) == "other"
        assert "other" in (topics.compacted if channel.compacted else topics.logs)
        assert ("other" in topics.inputs) == (channel.action == "receive")
