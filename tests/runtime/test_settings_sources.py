"""Reading settings from a file and the environment."""

from __future__ import annotations

import logging
from typing import ClassVar

import pytest
from pydantic import Field

from runtime.errors import SettingsError
from runtime.settings import KafkaSettings, ProgramSettings, SettingsSection
from runtime.settings_sources import load_settings


class Limits(SettingsSection):
    """A section in a section."""

    depth: int = 3
    seed_of_limits: tuple[int, ...] = ()


class WorkerSection(SettingsSection):
    """A program's own section."""

    bundle: str = "bundle"
    kinds: tuple[str, ...] = ("click",)
    weights: dict[str, float] = Field(default_factory=dict)
    seed: int | None = 7
    limits: Limits = Limits()


class Settings(ProgramSettings):
    """A program's settings."""

    renamed: ClassVar = {
        "worker.limits.levels": "worker.limits.depth",
        "worker.start": "worker.limits.seed_of_limits",
        "worker.old": "worker.limits",
    }

    removed: ClassVar = {"worker.limits.width": "follow depth"}
    shared_sections: ClassVar = frozenset({"kafka", "worker", "updater"})

    kafka: KafkaSettings = KafkaSettings()
    worker: WorkerSection = WorkerSection()


@pytest.fixture
def file(tmp_path):
    """Writes a settings file."""

    def write(text):
        path = tmp_path / "exitstream.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_environment_wins_over_the_file_and_both_over_the_defaults(file):
    """Key by key, down to nested sections; the command line wins over all."""
    path = file("[kafka]\nlinger_ms = 7\nbatch_bytes = 9000\n[worker.limits]\ndepth = 4\n")
    environ = {"EXITSTREAM_KAFKA__LINGER_MS": "9", "EXITSTREAM_CONFIG": str(path)}
    settings = load_settings(Settings, None, environ, overrides={"worker": {"bundle": "given"}})
    assert (settings.kafka.linger_ms, settings.kafka.batch_bytes) == (9, 9_000)
    assert (settings.worker.limits.depth, settings.worker.bundle) == (4, "given")


def test_lists_tables_and_sections_are_json_in_the_environment():
    """Structured values are JSON; an empty variable is None where None is allowed."""
    environ = {
        "EXITSTREAM_WORKER__KINDS": '["click", "purchase"]',
        "EXITSTREAM_WORKER__WEIGHTS": '{"click": 0.5}',
        "EXITSTREAM_WORKER__LIMITS": '{"depth": 5}',
        "EXITSTREAM_WORKER__SEED": "",
    }
    worker = load_settings(Settings, None, environ).worker
    assert worker == WorkerSection(
        kinds=("click", "purchase"), weights={"click": 0.5}, limits=Limits(depth=5), seed=None
    )


@pytest.mark.parametrize("order", [1, -1])
def test_a_variable_of_a_key_wins_over_its_section_as_json(order):
    """The order of the variables in the environment does not matter."""
    section = '{"depth": 5, "seed_of_limits": [1]}'
    environ = {"EXITSTREAM_WORKER__LIMITS": section, "EXITSTREAM_WORKER__LIMITS__DEPTH": "6"}
    worker = load_settings(Settings, None, dict(list(environ.items())[::order])).worker
    assert worker.limits == Limits(depth=6, seed_of_limits=(1,))


def test_sections_of_another_program_are_no_unknown_keys(file):
    """One file and one environment may serve several programs."""
    path = file("[updater]\nanything = 1\n")
    assert load_settings(Settings, path, {"EXITSTREAM_UPDATER__X": "1", "HOME": "/"}) == Settings()


@pytest.mark.parametrize(
    ("text", "environ", "words"),
    [
        ("[kafka]\nlinger = 1", {}, "unknown key kafka.linger in .*did you mean kafka.linger_ms"),
        ("[kafak]\nlinger_ms = 1", {}, "unknown key kafak"),
        ("[worker.limits]\ndept = 1", {}, "did you mean worker.limits.depth"),
        ("", {"EXITSTREAM_KAFKA__LINGER": "1"}, "EXITSTREAM_KAFKA__LINGER in the .*mean EXITSTREAM_KAFKA__LINGER_MS"),
        ("", {"EXITSTREAM_QQQ": "1"}, "unknown variable EXITSTREAM_QQQ.*known sections are kafka, worker"),
        ("[kafka]\nlinger_ms = 'x'", {}, r"kafka.linger_ms \(.*exitstream.toml\): .*integer"),
        (
            "",
            {"EXITSTREAM_KAFKA__LINGER_MS": "x"},
            r"linger_ms \(environment variable EXITSTREAM_KAFKA__LINGER_MS",
        ),
        ("", {"EXITSTREAM_WORKER__KINDS": "click"}, "EXITSTREAM_WORKER__KINDS.* must be JSON"),
        ("[kafka\n", {}, "not valid TOML"),
        ("[worker]\nstart = [1]\nlimits = 3", {}, r"worker.limits \(.*exitstream.toml\): .*Limits"),
        ("kafka = 3", {}, r"kafka \(.*exitstream.toml\): .*KafkaSettings"),
        ("worker = 3", {"EXITSTREAM_WORKER__SEEED": "1"}, "unknown variable EXITSTREAM_WORKER__SEEED"),
        ("", {"EXITSTREAM_KAFAK__LINGER_MS": "1"}, "KAFAK__LINGER_MS in .*mean EXITSTREAM_KAFKA__LINGER_MS"),
        ("", {"EXITSTREAM_KAFKA__LINGER_MS__X": "1"}, "environment variable EXITSTREAM_KAFKA__LINGER_MS__X"),
        ("", {"EXITSTREAM_WORKER__LIMITS": '{"dept": 1}'}, "variable EXITSTREAM_WORKER__LIMITS .*LIMITS__DEPTH"),
        ("", {"EXITSTREAM_WORKER__KINDS": "[1]"}, r"worker.kinds.0 \(environment variable EXITSTREAM_WORKER__KINDS\)"),
        ("", {"EXITSTREAM_WORKER__BUNDLE": ""}, r"worker.bundle \(environment variable EXITSTREAM_WORKER__BUNDLE\)"),
        ("[kafka]\nlinger = 1\nlinger_ms = 'x'", {}, "linger_ms .*integer; unknown key kafka.linger in"),
    ],
)
def test_every_mistake_is_one_line_that_names_the_key(file, text, environ, words):
    """Unknown, malformed or of the wrong type: the line says where it stands and proposes the closest key."""
    with pytest.raises(SettingsError, match=words) as raised:
        load_settings(Settings, file(text), environ)
    assert "\n" not in str(raised.value).replace("\n)", ")")


@pytest.mark.parametrize(("text", "where"), [("", "kafka: "), ("[worker]\nseed = 1\n", "kafka (")])
def test_a_contradiction_within_a_section_is_blamed_on_no_single_variable(file, text, where):
    """The line names the section, and the file if there is one."""
    environ = {"EXITSTREAM_KAFKA__SECURITY_PROTOCOL": "SASL_SSL", "EXITSTREAM_KAFKA__SASL_USERNAME": "u"}
    with pytest.raises(SettingsError, match="SASL_SSL needs sasl_username and sasl_password") as raised:
        load_settings(Settings, file(text) if text else None, environ)
    assert str(raised.value).startswith(where)
    assert "EXITSTREAM_" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path):
    """The line says which file cannot be read."""
    with pytest.raises(SettingsError, match=r"nowhere\.toml cannot be read"):
        load_settings(Settings, tmp_path / "nowhere.toml", {})


def test_an_error_never_quotes_a_value():
    """A secret in the wrong variable does not reach the log."""
    with pytest.raises(SettingsError) as raised:
        load_settings(Settings, None, {"EXITSTREAM_KAFKA__LINGER_MS": "hunter2"})
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "environ", "named"),
    [
        ("[worker.limits]\nlevels = 5\n", {}, ["worker.limits.levels", "worker.limits.depth", "exitstream.toml"]),
        ("", {"EXITSTREAM_WORKER__LIMITS__LEVELS": "5"}, ["WORKER__LIMITS__LEVELS", "WORKER__LIMITS__DEPTH"]),
        ("", {"EXITSTREAM_WORKER__LIMITS": '{"levels": 5}'}, ["worker.limits.levels", "worker.limits.depth"]),
        ("[worker.old]\ndepth = 5\n", {}, ["worker.old", "worker.limits"]),
        ("", {"EXITSTREAM_WORKER__OLD__DEPTH": "5"}, ["EXITSTREAM_WORKER__OLD__DEPTH", "WORKER__LIMITS__DEPTH"]),
        ("[worker.limits]\nlevels = 4\n", {"EXITSTREAM_WORKER__LIMITS__DEPTH": "5"}, ["worker.limits.levels"]),
        ("[worker.limits]\ndepth = 4\n", {"EXITSTREAM_WORKER__LIMITS__LEVELS": "5"}, ["WORKER__LIMITS__LEVELS"]),
    ],
)
def test_a_renamed_key_still_counts_and_one_warning_names_both(file, caplog, text, environ, named):
    """The old name of a key or section works in the file and the environment; the environment still wins."""
    with caplog.at_level(logging.WARNING):
        settings = load_settings(Settings, file(text), environ)
    assert settings.worker == WorkerSection(limits=Limits(depth=5))
    (line,) = caplog.messages
    assert all(name in line for name in named)


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ("[worker]\nstart = [1, 2]\n", {}),
        ("", {"EXITSTREAM_WORKER__START": "[1, 2]"}),
    ],
)
def test_a_key_may_have_moved_to_another_section(file, text, environ):
    """Its value is read as the new key's, and the old key is gone."""
    settings = load_settings(Settings, file(text), environ)
    assert settings.worker.limits == Limits(seed_of_limits=(1, 2))


@pytest.mark.parametrize(
    ("text", "environ", "words"),
    [
        ("[worker.limits]\nlevels = 5\ndepth = 5\n", {}, "worker.limits.levels is the former name of .*remove"),
        (
            "",
            {"EXITSTREAM_WORKER__LIMITS__LEVELS": "5", "EXITSTREAM_WORKER__LIMITS__DEPTH": "5"},
            "EXITSTREAM_WORKER__LIMITS__LEVELS is the former name of EXITSTREAM_WORKER__LIMITS__DEPTH",
        ),
        (
            "",
            {"EXITSTREAM_WORKER__LIMITS": '{"levels": 5}', "EXITSTREAM_WORKER__LIMITS__DEPTH": "5"},
            "worker.limits.levels is the former name of worker.limits.depth, and the environment has both",
        ),
    ],
)
def test_the_old_and_the_new_name_at_once_are_refused(file, text, environ, words):
    """The error names both and says which to remove."""
    with pytest.raises(SettingsError, match=words):
        load_settings(Settings, file(text), environ)


@pytest.mark.parametrize(
    ("text", "environ", "words"),
    [
        ("[worker.limits]\nwidth = 5\n", {}, r"worker\.limits\.width in .*\.toml is no setting any more: follow depth"),
        (
            "",
            {"EXITSTREAM_WORKER__LIMITS__WIDTH": "5"},
            "EXITSTREAM_WORKER__LIMITS__WIDTH in the environment is no setting any more: follow depth",
        ),
    ],
)
def test_a_removed_key_is_refused_with_what_to_do_instead(file, text, environ, words):
    """The error says where it is set and why it has no effect any more."""
    with pytest.raises(SettingsError, match=words):
        load_settings(Settings, file(text), environ)


def test_settings_without_former_names_warn_of_nothing(file, caplog):
    """Current names cause no warning."""
    load_settings(Settings, file("[worker.limits]\ndepth = 4\n"), {"EXITSTREAM_WORKER__SEED": "3"})
    assert caplog.messages == []
