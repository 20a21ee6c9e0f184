"""The generated pages of the reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.main import app
from cli.reference.pages import pages, write
from graph_updater.metrics import UpdaterMetrics
from schemas.contracts import MESSAGES
from worker.metrics import WorkerMetrics

FOLDER = Path(__file__).parents[3] / "docs" / "reference"


@pytest.fixture(scope="module")
def current():
    """The pages as they would be written now."""
    return pages(app)


def test_the_checked_in_pages_are_current(current):
    """Run `make generated` after a change of commands, messages or metrics."""
    assert {name: (FOLDER / name).read_text() for name in current} == current


def test_writing_makes_the_same_files(tmp_path, current):
    """All of them, and no other."""
    write(app, tmp_path / "new")
    assert {path.name: path.read_text() for path in (tmp_path / "new").iterdir()} == current


@pytest.mark.parametrize("metrics", [WorkerMetrics(), UpdaterMetrics()])
def test_every_metric_that_a_program_exposes_is_listed(current, metrics):
    """By the name under which Prometheus stores it; what the client library adds is told in one sentence."""
    for family in metrics.registry.collect():
        if family.name.startswith("exitstream_"):
            name = family.name + ("_total" if family.type == "counter" else "")
            assert f"| `{name}` |" in current["metrics.md"]


def test_every_field_of_every_message_is_listed(current):
    """Also of the parts that messages are made of."""
    for message in MESSAGES:
        for field in message.__struct_fields__:
            assert f"| `{field}` |" in current["messages.md"]
    assert "| `event_id` |" in current["messages.md"].split("`PastInteraction`:")[1]


def test_every_command_is_listed_with_its_options(current):
    """Commands of groups under their full names; required options are marked."""
    page = current["commands.md"]
    for name in ("exitstream demo", "exitstream topics create", "exitstream dead-letters replay", "exitstream doctor"):
        assert f"## `{name}`" in page
    assert "| `--out OUT` | Folder to write the bundle to. Required. |" in page
    assert "exitstream dead-letters replay [PLACES...] [OPTIONS]" in page
