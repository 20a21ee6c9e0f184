"""What a worker can be told."""

from __future__ import annotations

import pytest

from runtime.errors import SettingsError
from runtime.settings_sources import load_settings
from worker.settings import WorkerSettings


def _load(**environ):
    return load_settings(WorkerSettings, None, {f"EXITSTREAM_WORKER__{name}": value for name, value in environ.items()})


def test_the_environment_reaches_every_section():
    """Down to the nested ones."""
    worker = _load(BUDGET_MS="150", CONTROLLER__BASE_THRESHOLD="0.8", TABLES__TITLE_TOKENS="10").worker

    assert (worker.budget_ms, worker.controller.base_threshold, worker.tables.title_tokens) == (150, 0.8, 10)


def test_contradictory_thresholds_are_refused():
    """In words."""
    with pytest.raises(SettingsError, match=r"floor_threshold 0\.9 lies above base_threshold 0\.5"):
        _load(CONTROLLER__BASE_THRESHOLD="0.5", CONTROLLER__FLOOR_THRESHOLD="0.9")


@pytest.mark.parametrize("former", sorted(WorkerSettings.renamed))
def test_every_renamed_key_leads_to_a_setting(former):
    """What was set under its former name has its effect under the new one."""
    section, key = WorkerSettings.renamed[former].rsplit(".", 1)
    wanted = {"worker.engine": {"safety_factor": "1.5"}, "worker.controller": {}}.get(section, {}).get(key, "1")
    name = f"EXITSTREAM_{former.upper().replace('.', '__')}"
    loaded = load_settings(WorkerSettings, None, {name: wanted})
    found = loaded.worker.engine if section == "worker.engine" else loaded.worker.controller
    assert getattr(found, key) == float(wanted)
