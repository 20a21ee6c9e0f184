"""The updater's settings."""

from __future__ import annotations

import pytest

from graph_updater.graph.config import GraphConfig
from graph_updater.settings import UpdaterSettings, load
from runtime.errors import SettingsError
from runtime.settings_sources import load_settings


def test_the_defaults_are_the_engines_own():
    """What a user does not set is as the engine has it."""
    assert UpdaterSettings().updater.graph == GraphConfig()


def test_the_environment_reaches_the_engine():
    """Nested sections are spelled with two underscores."""
    environ = {
        "EXITSTREAM_UPDATER__GRAPH__EPSILON": "0",
        "EXITSTREAM_UPDATER__GRAPH__POSITIVE_KINDS": '["rating"]',
        "EXITSTREAM_UPDATER__FLUSH_MS": "20",
    }

    updater = load_settings(UpdaterSettings, environ=environ).updater

    assert updater.graph == GraphConfig(epsilon=0.0, positive_kinds=frozenset({"rating"}))
    assert updater.flush_ms == 20


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[updater]\nflush = 3", "updater.flush"),
        ("[updater.graph]\nepsilon = 1.5", "updater.graph.epsilon"),
        ("[updater]\nflush_ms = 10_000", "below kafka.transaction_timeout_ms"),
        ("[updater]\nsnapshots_kept = 1", "updater.snapshots_kept"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, text, said):
    """Unknown keys and impossible values end in one line that names the key."""
    path = tmp_path / "exitstream.toml"
    path.write_text(text)

    with pytest.raises(SettingsError, match=said) as error:
        load(path)
    assert "\n" not in str(error.value)


def test_the_election_notices_silence_sooner():
    """As a member of the updaters' group the session is short; for everything else it is Kafka's setting."""
    settings = UpdaterSettings()

    assert settings.election.session_timeout_ms == settings.updater.leader_timeout_ms
    assert settings.election.bootstrap_servers == settings.kafka.bootstrap_servers
