"""One settings file for several programs."""

from __future__ import annotations

import pytest

from graph_updater.settings import UpdaterSettings
from programs.settings import ExitstreamSettings
from worker.settings import WorkerSettings


@pytest.mark.parametrize("program", [ExitstreamSettings, UpdaterSettings, WorkerSettings])
def test_every_section_of_a_program_may_stand_in_the_shared_file(program):
    """What one program reads, the others leave alone."""
    assert set(program.model_fields) <= program.shared_sections
    assert program.shared_sections == ExitstreamSettings.shared_sections
