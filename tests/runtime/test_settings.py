"""What the groups of settings refuse and derive."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from runtime.settings import KafkaSettings, TopicSettings


@pytest.mark.parametrize(
    ("contradiction", "words"),
    [
        ({"security_protocol": "SASL_SSL"}, "sasl_username"),
        ({"security_protocol": "SSL", "tls_key_file": "k.pem"}, "tls_cert_file"),
        ({"tls_ca_file": "ca.pem"}, "security_protocol"),
        ({"max_record_bytes": 2_000, "batch_bytes": 4_000}, "batch_bytes"),
    ],
)
def test_kafka_settings_that_contradict_each_other_are_refused(contradiction, words):
    """The message names the setting to change."""
    with pytest.raises(ValidationError, match=words):
        KafkaSettings(**contradiction)


def test_a_password_is_never_shown():
    """Neither printing the settings nor an error about them tells the secret."""
    settings = KafkaSettings(security_protocol="SASL_SSL", sasl_username="u", sasl_password="hunter2")
    assert "hunter2" not in repr(settings)
    with pytest.raises(ValidationError) as raised:
        KafkaSettings(sasl_password=["hunter2"])
    assert "hunter2" not in str(raised.value)


def test_settings_are_frozen():
    """Nobody changes settings behind another's back."""
    with pytest.raises(ValidationError, match="frozen"):
        KafkaSettings().linger_ms = 3


def test_every_topic_has_a_specification():
    """Logs are kept by time, tables compacted, and every input has a dead-letter topic with room for its records."""
    specs = {spec.name: spec for spec in TopicSettings(partitions=6).specs()}
    assert len(specs) == 9
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
