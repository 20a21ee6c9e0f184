"""What the sections of settings refuse and derive."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from runtime.settings import KafkaSettings


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
    """Neither the settings' repr nor an error about them contains the secret."""
    settings = KafkaSettings(security_protocol="SASL_SSL", sasl_username="u", sasl_password="hunter2")
    assert "hunter2" not in repr(settings)
    with pytest.raises(ValidationError) as raised:
        KafkaSettings(sasl_password=["hunter2"])
    assert "hunter2" not in str(raised.value)


def test_settings_are_frozen():
    """Assigning to a setting raises."""
    with pytest.raises(ValidationError, match="frozen"):
        KafkaSettings().linger_ms = 3
