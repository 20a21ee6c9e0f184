"""What a user gets wrong ends in one line that says what to change, and status 1."""

import os
import subprocess
import sys

import pytest


def exitstream(*arguments, **environment):
    """Runs the command as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "cli", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def assert_one_line(result, *words):
    """Status 1, no traceback, a last line of ours that holds these words."""
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("exitstream: ")
    for word in words:
        assert word in line


@pytest.mark.parametrize("program", ["worker", "updater"])
def test_an_unknown_setting_names_the_closest_one(program):
    """A typing error in the environment is found, and the right name proposed."""
    result = exitstream(program, EXITSTREAM_KAFKA__BOOTSTRAP_SERVER="localhost:1")
    assert_one_line(result, "EXITSTREAM_KAFKA__BOOTSTRAP_SERVER", "EXITSTREAM_KAFKA__BOOTSTRAP_SERVERS")


def test_a_missing_settings_file_is_named(tmp_path):
    """A config path that leads nowhere ends in its name."""
    assert_one_line(exitstream("worker", "--config", tmp_path / "none.toml"), "none.toml")


@pytest.mark.parametrize(
    "command",
    [
        ("worker",),
        ("updater",),
        ("topics", "create"),
        ("dead-letters", "list"),
        ("dead-letters", "show", "items[0]@1"),
        ("dead-letters", "replay", "--all"),
    ],
)
def test_an_unreachable_broker_is_named(command, tmp_path, tiny_bundle_folder):
    """Nobody listens: the address and the cause are told."""
    result = exitstream(
        *command,
        EXITSTREAM_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1",
        EXITSTREAM_KAFKA__CONNECT_TIMEOUT_S="1",
        EXITSTREAM_WORKER__BUNDLE=str(tiny_bundle_folder),
        EXITSTREAM_UPDATER__BUNDLE=str(tiny_bundle_folder),
        EXITSTREAM_UPDATER__SNAPSHOTS=str(tmp_path),
    )
    assert_one_line(result, "127.0.0.1:1", "refused")


def test_a_missing_bundle_tells_how_to_make_one(tmp_path):
    """No bundle: the folder and the command that makes one."""
    result = exitstream("evaluate", "--bundle", tmp_path / "none")
    assert_one_line(result, "none", "exitstream train")


def test_an_unknown_data_set_tells_what_was_looked_for(tmp_path):
    """A folder without known files: what would have been known."""
    assert_one_line(exitstream("train", "--data", tmp_path, "--out", tmp_path / "out"), "MovieLens", "Amazon")


def test_a_request_that_cannot_be_read_shows_an_example(tmp_path, tiny_bundle_folder):
    """A malformed request: what is wrong with it, and what one looks like."""
    request = tmp_path / "request.json"
    request.write_text('{"type": "impression-request", "request_id": ""}')
    assert_one_line(exitstream("score", request, "--bundle", tiny_bundle_folder), "request_id", "for example")


@pytest.mark.parametrize(
    ("source", "words"), [((), ("--click-at", "synthetic")), (("--from-kafka",), ("--click-at", "Kafka"))]
)
def test_a_click_rating_without_ratings_is_refused(source, words, tmp_path):
    """Neither the synthetic data nor what the topics hold has ratings."""
    assert_one_line(exitstream("train", "--out", tmp_path / "bundle", "--click-at", "4", *source), *words)
