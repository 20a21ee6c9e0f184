"""Dashboards, rules and runbooks fit the programs: nothing asks for a metric that does not exist."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from graph_updater.metrics import UpdaterMetrics
from worker.metrics import WorkerMetrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
DASHBOARDS = ROOT / "deploy" / "grafana" / "dashboards"
FROM_PROMETHEUS = {"up"}
NAME = re.compile(r"\b(?:exitstream[_:]\w+(?::\w+)*|process_\w+|up)(?=[\s{\[)]|$)")


@pytest.fixture(scope="module")
def generate():
    """The script that writes the dashboards."""
    spec = importlib.util.spec_from_file_location("grafana_dashboards", ROOT / "deploy" / "grafana" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def rules():
    """All rules."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def exposed(rules):
    """Names of all samples that the programs can show, and of those that the rules record."""
    names = set(FROM_PROMETHEUS)
    for metrics in (WorkerMetrics(), UpdaterMetrics()):
        for family in metrics.registry.collect():
            suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
            names |= {family.name + suffix for suffix in suffixes}
    return names | {rule["record"] for rule in rules if "record" in rule}


def test_the_dashboards_are_those_that_the_script_writes(generate):
    """A change of a panel without `python deploy/grafana/generate.py` is noticed."""
    assert {path.name: path.read_text() for path in DASHBOARDS.glob("*.json")} == generate.contents()


def test_no_panel_asks_for_a_metric_that_does_not_exist(generate, exposed):
    """Every name in every query is exposed by a program or recorded by a rule, and every query has one."""
    for uid, (title, rows) in generate.DASHBOARDS.items():
        for panel in generate.dashboard(uid, title, rows)["panels"]:
            for target in panel.get("targets", ()):
                asked = set(NAME.findall(target["expr"]))
                assert asked, (title, panel["title"])
                assert asked <= exposed, (title, panel["title"], asked - exposed)


def test_no_rule_asks_for_a_metric_that_does_not_exist(rules, exposed):
    """The same for what is recorded and what alerts."""
    for rule in rules:
        asked = set(NAME.findall(rule["expr"]))
        assert asked, rule
        assert asked <= exposed, (rule, asked - exposed)


def test_every_alert_has_its_runbook(rules):
    """The link leads to a heading that is there, and no runbook is left over."""
    headings = re.findall(r"^## (.+)$", (ROOT / "docs" / "runbooks.md").read_text(), re.MULTILINE)
    anchors = {f"docs/runbooks.md#{heading.lower().replace(' ', '-')}" for heading in headings}
    assert {rule["annotations"]["runbook"] for rule in rules if "alert" in rule} == anchors


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "deploy/prometheus/rules.yaml"),
        ("test", "rules", "deploy/prometheus/rules.test.yaml"),
        ("check", "config", "--syntax-only", "deploy/prometheus/prometheus.yaml"),
    ],
    ids=["rules", "tests of rules", "configuration"],
)
def test_promtool_finds_nothing_wrong(arguments):
    """Prometheus' own checker, and the rules' unit tests."""
    promtool = shutil.which("promtool")
    if promtool is None:
        if os.environ.get("REQUIRE_PROMTOOL") == "1":
            pytest.fail("REQUIRE_PROMTOOL=1, but there is no promtool; Debian's package is prometheus")
        pytest.skip("needs promtool, from Prometheus")
    done = subprocess.run([promtool, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_queries_are_valid_promql(generate, tmp_path):
    """Every panel's query, as a recording rule that promtool parses."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool, from Prometheus")
    queries = [
        target["expr"].replace("$__rate_interval", "1m").replace("$job", ".*")
        for uid, (title, rows) in generate.DASHBOARDS.items()
        for panel in generate.dashboard(uid, title, rows)["panels"]
        for target in panel.get("targets", ())
    ]
    recorded = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    done = subprocess.run([promtool, "check", "rules", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
