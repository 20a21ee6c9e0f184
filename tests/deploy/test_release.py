"""The release checklist asks for commands that exist, and a version is the same everywhere."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHECKLIST = (ROOT / "docs" / "release.md").read_text()


def test_the_chart_has_the_version_of_the_project():
    """The chart's own version and the one that it installs."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((ROOT / "deploy" / "helm" / "exitstream" / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)


def test_every_target_of_make_exists():
    """`make something` in the checklist is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = set(re.findall(r"`(?:[A-Z_]+=\S+ )*make ([a-z]+)", CHECKLIST))
    assert len(asked) > 4
    assert asked <= targets


def test_every_module_and_path_exists():
    """What is run with `python -m`, and every file or folder that stands in a command or a link."""
    modules = set(re.findall(r"python -m ((?:benchmarks)\.\w+)", CHECKLIST))
    assert modules
    assert all(importlib.util.find_spec(module) for module in modules)
    paths = re.findall(r"(?<![\w/])((?:tests|deploy|docs|schemas)/[\w/.-]+)", CHECKLIST)
    assert len(paths) > 5
    assert [path for path in paths if not (ROOT / path.rstrip(".")).exists()] == []


@pytest.mark.parametrize("variable", re.findall(r"(REQUIRE_\w+)=1", CHECKLIST))
def test_every_tool_that_is_required_can_be(variable):
    """A switch that no test reads would demand nothing."""
    assert any(variable in path.read_text() for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__))
