"""The image and the compose file do what the README says, in containers from end to end."""

import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest

from loadgen.processes import free_port

ROOT = Path(__file__).parents[2]
REQUESTS = 100
PATIENCE_S = 1_800  # beside the brokers and workers of other tests, training takes several times as long as alone


@pytest.fixture(scope="module")
def image(docker_engine):  # noqa: ARG001 - skips where there is no Docker
    """The image, built as the README says; from wheels made outside where a build reaches no package index."""
    subprocess.run(["make", "wheels"], cwd=ROOT, check=True, capture_output=True)
    name = "exitstream:test"
    build = ["docker", "build", "-q", "-f", "deploy/Dockerfile", "-t", name, "."]
    if base := os.environ.get("BASE_IMAGE"):
        build[2:2] = ["--build-arg", f"BASE_IMAGE={base}"]
    built = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert built.returncode == 0, built.stderr[-3000:]
    return name


@pytest.fixture
def compose(image):
    """Runs compose commands on a project of this test's own, which is gone afterwards."""
    program = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    project = f"exitstream-{uuid.uuid4().hex[:8]}"
    environment = {
        **os.environ,
        "EXITSTREAM_IMAGE": image,
        "REQUESTS": str(REQUESTS),
        "METRICS_PORT": str(free_port()),
    }

    def run(*arguments):
        command = [*program, "-f", "deploy/compose.yaml", "-p", project, *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)

    yield run
    run("down", "-v", "--remove-orphans", "-t", "5")


LOCKED = ["--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]


def in_the_image(image, *command):
    """What a command in a container without any privilege says."""
    run = ["docker", "run", *LOCKED, "--network", "none", "--entrypoint", command[0], image, *command[1:]]
    return subprocess.run(run, capture_output=True, text=True, timeout=PATIENCE_S)


@pytest.mark.docker
@pytest.mark.slow
def test_the_image_needs_no_privilege_and_holds_no_tools(image):
    """On a read-only root file system, without capabilities: not root, no installer, no compiler, and it starts."""
    assert in_the_image(image, "exitstream", "settings").stdout.startswith("# ")
    assert in_the_image(image, "id", "-u").stdout.strip() == "10001"
    tools = in_the_image(image, "sh", "-c", "command -v pip pip3 gcc cc make; python -m pip --version")
    assert tools.stdout == ""
    assert "No module named pip" in tools.stderr
    writes = in_the_image(image, "sh", "-c", "touch /tmp/x /snapshots/x; touch /opt/exitstream/x ~/x /etc/x")
    assert writes.returncode == 1
    assert writes.stderr.count("Read-only file system") == 3
    assert "/tmp/x" not in writes.stderr
    health = in_the_image(image, "python", "/opt/exitstream/health.py", "healthz")
    assert (health.returncode, "no answer on port 9464" in health.stderr) == (1, True)


@pytest.mark.docker
@pytest.mark.slow
def test_compose_up_trains_serves_and_scores_every_request(compose):
    """`docker compose up` brings the system up, and the load generator's report shows that nothing was lost."""
    up = compose("up", "-d")
    assert up.returncode == 0, up.stderr[-3000:]
    container = compose("ps", "-q", "load").stdout.strip()
    status = subprocess.run(["docker", "wait", container], capture_output=True, text=True, timeout=PATIENCE_S)
    logs = subprocess.run(["docker", "logs", container], capture_output=True, text=True)
    assert status.stdout.strip() == "0", logs.stdout + logs.stderr + compose("logs", "--tail", "20").stdout
    report = json.loads(logs.stdout.strip().splitlines()[-1])
    assert report["requests"] == report["answered"] == REQUESTS
    assert report["lost"] == 0
    for service in ("updater", "worker"):
        is_locked_and_healthy(compose("ps", "-q", service).stdout.strip())


def is_locked_and_healthy(container):
    """The program runs without privileges, and its health check finds it ready."""
    described = json.loads(subprocess.run(["docker", "inspect", container], capture_output=True, text=True).stdout)[0]
    host, state = described["HostConfig"], described["State"]
    assert (host["ReadonlyRootfs"], host["CapDrop"]) == (True, ["ALL"])
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert state["Health"]["Status"] == "healthy"
