"""One settings file for several programs."""

from __future__ import annotations

import pytest

from graph_updater.settings import UpdaterSettings
from programs.settings import ExitstreamSettings
from runtime.errors import SettingsError
from runtime.settings_sources import load_settings
from worker.settings import WorkerSettings


@pytest.mark.parametrize(
    ("program", "variable"),
    [
        (UpdaterSettings, "EXITSTREAM_UPDATER__GRAPH__HISTORY_LENGTH"),
        (WorkerSettings, "EXITSTREAM_WORKER__TABLES__HISTORY_LENGTH"),
    ],
)
def test_the_length_of_histories_is_the_bundles_alone(program, variable):
    """Two programs that set their own would compute statistics that no model was trained on."""
    with pytest.raises(SettingsError, match=rf"{variable} .*no setting any more: the bundle tells .*--history-length"):
        load_settings(program, None, {variable: "100"})


@pytest.mark.parametrize("program", [ExitstreamSettings, UpdaterSettings, WorkerSettings])
def test_every_section_of_a_program_may_stand_in_the_shared_file(program):
    """What one program reads, the others leave alone."""
    assert set(program.model_fields) <= program.shared_sections
    assert program.shared_sections == ExitstreamSettings.shared_sections
