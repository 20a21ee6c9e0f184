"""The page of settings is what the definitions say."""

from pathlib import Path

from cli.settings_reference import reference
from worker.settings import WorkerSettings


def test_the_checked_in_page_is_current():
    """docs/settings.md is what `exitstream settings` prints; run `make generated` after a change."""
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert page.read_text() == reference()


def test_every_key_names_its_variable():
    """A key's environment variable is spelt out."""
    assert "`EXITSTREAM_KAFKA__BOOTSTRAP_SERVERS`" in reference()
    assert "`EXITSTREAM_WORKER__ENGINE__PRECISION`" in reference()


def test_former_names_are_listed(monkeypatch):
    """A renamed key is told with its new name."""
    renamed = {"worker.controller.calm_threshold": "worker.controller.base_threshold"}
    monkeypatch.setattr(WorkerSettings, "renamed", renamed)
    assert "| `worker.controller.calm_threshold` | `worker.controller.base_threshold` |" in reference()
