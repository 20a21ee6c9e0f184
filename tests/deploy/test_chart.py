"""The Helm chart renders to what Kubernetes, KEDA and the Prometheus operator accept, and to settings that exist."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from graph_updater.settings import load as load_updater
from worker.settings import load as load_worker

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "exitstream"
VALUES = {path.stem: ("-f", str(path)) for path in sorted((CHART / "ci").glob("*.yaml"))} | {"as shipped": ()}
SHADOW = VALUES["shadow-values"]
CUSTOM = {"ScaledObject", "ServiceMonitor"}
KUBERNETES = ("1.29.0", "1.32.0")
CRD_PACKAGES = ("@kubernetes-models/keda@0.4.2", "@kubernetes-models/prometheus-operator@6.0.0")


def tool(name):
    """A program's path; a skip where it is not installed, with REQUIRE_HELM=1 a failure."""
    return shutil.which(name) or missing(name)


def missing(what):
    """Skips, or fails where everything has to be there."""
    (pytest.fail if os.environ.get("REQUIRE_HELM") == "1" else pytest.skip)(f"needs {what}")


def helm(*arguments):
    """Runs helm."""
    return subprocess.run([tool("helm"), *arguments], capture_output=True, text=True)


def rendered(*values):
    """The manifests of a release."""
    done = helm("template", "shop", str(CHART), *values)
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def containers(manifests):
    """Every container with its pod's specification."""
    for manifest in manifests:
        pod = manifest.get("spec", {}).get("template", {}).get("spec")
        for container in pod["containers"] if pod else ():
            yield container, pod


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_helm_finds_nothing_wrong(values):
    """`helm lint --strict`."""
    done = helm("lint", "--strict", str(CHART), *values)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_kubernetes_accepts_every_manifest(values):
    """Strictly, in an old and a new version: no unknown field, no wrong type."""
    validate = pytest.importorskip("kubernetes_validate").validate
    for manifest in rendered(*values):
        if manifest["kind"] not in CUSTOM:
            for version in KUBERNETES:
                validate(manifest, version, strict=True)


def test_keda_and_the_prometheus_operator_accept_their_resources(tmp_path):
    """Against the schemas of their own definitions; a wrong field would be refused."""
    npm, node = tool("npm"), tool("node")
    arguments = ("install", "--silent", "--no-audit", "--no-fund", "--prefix", tmp_path, *CRD_PACKAGES)
    if subprocess.run([npm, *arguments]).returncode:
        missing("the packages with KEDA's and the operator's schemas, from the npm registry")
    script = tmp_path / "crd_check.mjs"
    script.write_text((Path(__file__).parent / "crd_check.mjs").read_text())
    custom = [manifest for manifest in rendered(*VALUES["secure-values"]) if manifest["kind"] in CUSTOM]
    assert {manifest["kind"] for manifest in custom} == CUSTOM
    done = subprocess.run([node, script], input=json.dumps(custom), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    custom[0]["spec"]["minReplicaCount" if custom[0]["kind"] == "ScaledObject" else "endpoints"] = "wrong"
    assert subprocess.run([node, script], input=json.dumps(custom), capture_output=True, text=True).returncode != 0


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_every_variable_is_a_setting_that_exists(values, monkeypatch):
    """The programs themselves read what the chart sets, and refuse unknown names."""
    for container, _ in containers(rendered(*values)):
        with monkeypatch.context() as patch:
            for variable in container["env"]:
                secret = variable.get("valueFrom")
                patch.setenv(variable["name"], "from-a-secret" if secret else variable["value"])
            load = load_worker if container["args"] == ["worker"] else load_updater
            assert load().kafka.delivery == os.environ["EXITSTREAM_KAFKA__DELIVERY"]


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_no_container_may_do_more_than_it_needs(values):
    """Non-root, read-only root file system, no capability, no token of the API, bounded resources."""
    for container, pod in containers(rendered(*values)):
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        assert set(container["resources"]) == {"requests", "limits"}


def test_secrets_are_referred_to_and_never_rendered():
    """Passwords come from an existing Secret; without one the chart says which value is missing."""
    text = helm("template", "shop", str(CHART), *VALUES["secure-values"]).stdout
    assert "secretKeyRef: {name: kafka-credentials, key: password}" in text
    done = helm("template", "shop", str(CHART), "--set", "kafka.securityProtocol=SASL_SSL")
    assert done.returncode != 0
    assert "kafka.credentialsSecret: name the Secret with username and password" in done.stderr


@pytest.mark.parametrize(
    "wrong", ["worker.replica=3", "kafka.delivery=twice", "settings.WORKER_BUDGET=1", "worker.replicas=many"]
)
def test_values_that_do_not_exist_are_refused(wrong):
    """Misspelt names and wrong types end in an error instead of being ignored."""
    assert helm("template", "shop", str(CHART), "--set", wrong).returncode != 0


def test_the_autoscaler_owns_the_number_of_workers():
    """With KEDA the deployment names no replicas, which each upgrade would set back."""
    by_kind = {manifest["kind"]: manifest for manifest in rendered(*VALUES["secure-values"])}
    assert "replicas" not in by_kind["Deployment"]["spec"]
    assert by_kind["ScaledObject"]["spec"]["scaleTargetRef"]["name"] == by_kind["Deployment"]["metadata"]["name"]


def labels_of(manifest):
    """The labels of a workload's pods."""
    return manifest["spec"]["template"]["metadata"]["labels"].items()


def test_what_is_for_the_workers_leaves_a_shadow_alone():
    """Service, disruption budget and autoscaler of the workers do not select it; its Service makes a job of its own."""
    manifests = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in rendered(*SHADOW)}
    worker, shadow = (manifests["Deployment", f"shop-exitstream-{name}"] for name in ("worker", "shadow"))
    services = {
        name: manifest["spec"]["selector"].items() for (kind, name), manifest in manifests.items() if kind == "Service"
    }
    budgets = [
        manifest["spec"]["selector"]["matchLabels"].items()
        for (kind, _), manifest in manifests.items()
        if kind == "PodDisruptionBudget"
    ]

    assert [name for name, selector in services.items() if selector <= labels_of(shadow)] == ["shop-exitstream-shadow"]
    assert [name for name, selector in services.items() if selector <= labels_of(worker)] == ["shop-exitstream-worker"]
    assert not any(selector <= labels_of(shadow) for selector in budgets)
    assert not worker["spec"]["selector"]["matchLabels"].items() <= labels_of(shadow)
    scaled = manifests["ScaledObject", "shop-exitstream-worker"]["spec"]["scaleTargetRef"]["name"]
    assert scaled == worker["metadata"]["name"]
    policy = manifests["NetworkPolicy", "shop-exitstream"]["spec"]["podSelector"]["matchLabels"].items()
    monitor = manifests["ServiceMonitor", "shop-exitstream"]["spec"]["selector"]["matchLabels"].items()
    assert policy <= labels_of(shadow)
    assert monitor <= manifests["Service", "shop-exitstream-shadow"]["metadata"]["labels"].items()


def test_a_shadow_differs_from_a_worker_by_its_own_settings_alone():
    """Bundle, share and its own settings replace those of all programs; everything else of the pod is a worker's."""
    worker, shadow = (
        (container, pod)
        for container, pod in containers(rendered(*SHADOW, "--set", "worker.replicas=1"))
        if container["args"] == ["worker"]
    )
    own, common = (
        {variable["name"]: variable.get("value") for variable in container["env"]}
        for container, _ in sorted((worker, shadow), key=lambda found: "SHADOW_SHARE" not in str(found[0]["env"]))
    )
    assert {name: value for name, value in own.items() if common.get(name) != value} == {
        "EXITSTREAM_WORKER__BUNDLE": "s3://bucket/models@2db5ca5f2b41",
        "EXITSTREAM_WORKER__SHADOW_SHARE": "0.25",
        "EXITSTREAM_TOPICS__USER_STATES": "user-states-next",
        "EXITSTREAM_TOPICS__ITEM_STATES": "item-states-next",
    }
    assert common["EXITSTREAM_WORKER__BUNDLE"] == "s3://bucket/models"
    for container, pod in (worker, shadow):
        del container["env"], container["resources"], pod["containers"]
    assert worker == shadow


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_no_variable_is_set_twice(values):
    """Of two of one name Kubernetes takes the last, and updates may lose either."""
    for container, _ in containers(rendered(*values)):
        names = [variable["name"] for variable in container["env"]]
        assert len(names) == len(set(names))


def test_each_shard_is_a_stateful_set_of_its_own():
    """It selects its own pods, and its program knows which it is; the settings of a single updater name none."""
    sets = [one for one in rendered(*VALUES["shards-values"]) if one["kind"] == "StatefulSet"]
    assert [one["metadata"]["name"] for one in sets] == [f"shop-exitstream-updater-{number}" for number in range(3)]
    for number, one in enumerate(sets):
        selected = one["spec"]["selector"]["matchLabels"].items()
        assert [selected <= labels_of(other) for other in sets] == [number == other for other in range(3)]
        ((container, _),) = containers([one])
        own = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert (own["EXITSTREAM_UPDATER__SHARDS"], own["EXITSTREAM_UPDATER__SHARD"]) == ("3", str(number))
    (alone,) = [one for one in rendered() if one["kind"] == "StatefulSet"]
    assert alone["metadata"]["name"] == "shop-exitstream-updater"
    assert "SHARD" not in str(alone)


def test_a_shadow_needs_a_bundle():
    """The chart says which value is missing, and takes no share that the worker would refuse."""
    done = helm("template", "shop", str(CHART), "--set", "shadow.enabled=true")
    assert done.returncode != 0
    assert "shadow.bundle: name the bundle that the shadow scores with" in done.stderr
    for share in ("0", "1.5"):
        assert helm("template", "shop", str(CHART), *SHADOW, "--set", f"shadow.share={share}").returncode != 0


def test_stopping_leaves_time_to_drain():
    """A pod is killed later than the program gives up draining by itself."""
    for _, pod in containers(rendered()):
        if "terminationGracePeriodSeconds" in pod:
            assert pod["terminationGracePeriodSeconds"] > load_worker().telemetry.drain_limit_s
