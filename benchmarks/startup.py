"""How long until a worker and an updater are ready, and how much memory do they hold when idle? READ FIRST: `main`.

Kafka runs with empty topics; the programs are started as their users start them, one at a time, and asked for /readyz
until it says 200; then they are left alone for some seconds, and the kernel is asked for their memory. Figures are
medians over the rounds. The machine's files are in its cache by then: this is the start of a further replica, or after
a crash, and no first start after a boot.

Keys of the JSON file, for `worker` and `updater`:

- `ready_s` (wall clock, from the start of the process), `ready_cpu_s` (processor time of all its threads until then,
  which others on the machine move less), `all_ready_s`: of every round.
- `stages`: seconds of each stage by name, and `memory_after`: resident MB behind each, from the program's own log.
- `resident_mb`, `proportional_mb` (what is shared with other processes divided among them), `unique_mb` (shared with
  none), `highest_mb`: the largest resident memory of the start.

Beside them `processors`, `precision` and `layers` of the model, and of the model alone, loaded by itself as a worker
loads it, `weights_mb`, `model_mb` and `times_weights` as in `benchmarks.engine_memory`. With `--beside` the programs of
another checkout start in turn with these, with figures of their own (`before`), and `ratios` compares: this ÷ other.

    python -m benchmarks.startup --out out/startup.json
    python -m benchmarks.startup --backbone smollm2 --out out/startup-smollm2.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.engine_memory import loaded_apart
from benchmarks.harness import add_backbone, add_broker, add_bundle, bundle_folder, exit_on_error, finish, parser
from benchmarks.untrained_bundle import save_untrained
from event_data.load import load_log
from loadgen.brokers import open_broker
from loadgen.processes import Processes, Program
from models.decoder_config import read_decoder_config
from programs.topics import TopicSettings
from runtime.errors import ExitstreamError
from runtime.kafka import create_missing_topics
from runtime.observability.stages import STAGE_DONE
from runtime.settings import KafkaSettings
from schemas.topics import CHANNELS

READY_LIMIT_S: Final = 180.0
PROGRAMS: Final = ("worker", "updater")
NAMES: Final = {channel.topic.replace("-", "_") for channel in CHANNELS}
"""The settings that name topics."""
RATIOS: Final = ("ready_s", "ready_cpu_s", "resident_mb", "unique_mb", "highest_mb")
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Start:
    """One start of one program."""

    ready_s: float
    ready_cpu_s: float
    stages: Mapping[str, float]
    memory_after: Mapping[str, float]
    resident_mb: float
    proportional_mb: float
    unique_mb: float
    highest_mb: float


def main() -> None:
    """Starts the programs a few times."""
    arguments = _arguments()
    work = arguments.out.with_suffix(".work")
    try:
        bundle = _bundle(arguments, work)
        with open_broker(arguments.broker) as bootstrap:
            figures = measured(arguments, bundle, bootstrap, work)
    except ExitstreamError as error:
        exit_on_error(error)
    finish(_conditions(arguments, bundle) | figures, arguments.out)


def _arguments() -> argparse.Namespace:
    arguments = parser("Seconds and memory of a start.")
    add_bundle(arguments)
    add_backbone(arguments)
    add_broker(arguments)
    arguments.add_argument("--precision", choices=("float32", "int8", "bfloat16"), help="without: bfloat16 for weights")
    arguments.add_argument("--rounds", type=int, default=5, help="medians are over these")
    arguments.add_argument("--idle", type=float, default=3.0, help="seconds from ready until memory is looked at")
    arguments.add_argument("--beside", type=Path, help="another checkout of exitstream, whose programs start in turn")
    given = arguments.parse_args()
    if given.precision is None:
        given.precision = "bfloat16" if given.backbone else "float32"
    return given


def _bundle(arguments: argparse.Namespace, work: Path) -> Path:
    """The given bundle, one on the given weights, or the one of the data set."""
    if arguments.bundle is not None or arguments.backbone is None:
        return bundle_folder(arguments.bundle, load_log(arguments.data))
    folder = work / "bundle"
    save_untrained(arguments.backbone, arguments.layers, load_log(arguments.data), folder)
    return folder


def _conditions(arguments: argparse.Namespace, bundle: Path) -> dict[str, Any]:
    return {
        "processors": len(os.sched_getaffinity(0)),
        "precision": arguments.precision,
        "layers": read_decoder_config(bundle / "backbone").num_hidden_layers,
        "rounds": arguments.rounds,
    } | loaded_apart(bundle, arguments.precision)


def measured(arguments: argparse.Namespace, bundle: Path, bootstrap: str, work: Path) -> dict[str, Any]:
    """Both programs' starts; those of the other checkout come in turn."""
    checkouts = {"now": Path.cwd()} | ({"before": arguments.beside.absolute()} if arguments.beside else {})
    starts: dict[tuple[str, str], list[Start]] = {}
    for number in range(arguments.rounds):
        for program in PROGRAMS:
            for when, checkout in checkouts.items():
                folder = work / f"{when}-{number}"
                environment = _environment(bootstrap, bundle, checkout, folder, arguments.precision)
                environment |= _topics_of_its_own(bootstrap, f"{program}-{when}-{number}")
                started = _start(program, environment, folder, arguments.idle)
                starts.setdefault((program, when), []).append(started)
                print(
                    f"{when} {program}: ready after {started.ready_s:.1f} s, {started.resident_mb:.0f} MB", flush=True
                )
    figures: dict[str, Any] = {}
    for program in PROGRAMS:
        figures[program] = _medians(starts[program, "now"])
        if arguments.beside:
            before = _medians(starts[program, "before"])
            ratios = {name: figures[program][name] / before[name] for name in RATIOS}
            figures[program] |= {"before": before, "ratios": ratios}
    return figures


def _environment(bootstrap: str, bundle: Path, checkout: Path, folder: Path, precision: str) -> dict[str, str]:
    return {
        "PYTHONPATH": str(checkout),
        "PYTHONSAFEPATH": "1",  # the folder that this runs in would come before
        "EXITSTREAM_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "EXITSTREAM_WORKER__BUNDLE": str(bundle),
        "EXITSTREAM_WORKER__ENGINE__PRECISION": precision,
        "EXITSTREAM_UPDATER__BUNDLE": str(bundle),
        "EXITSTREAM_UPDATER__SNAPSHOTS": str(folder / "snapshots"),
        "EXITSTREAM_TELEMETRY__LOG_FORMAT": "json",
    }


def _topics_of_its_own(bootstrap: str, suffix: str) -> dict[str, str]:
    """New topics and a group of their own: an updater publishes the catalogue of its bundle at its start."""
    suffix = f"-{suffix}-{time.time_ns()}"
    topics = TopicSettings(**{name: value + suffix for name, value in TopicSettings() if name in NAMES})
    asyncio.run(create_missing_topics(KafkaSettings(bootstrap_servers=bootstrap), topics.specs()))
    return {
        "EXITSTREAM_TOPICS": topics.model_dump_json(),
        "EXITSTREAM_WORKER__GROUP_ID": f"worker{suffix}",
        "EXITSTREAM_UPDATER__GROUP_ID": f"updater{suffix}",
    }


def _start(name: str, environment: Mapping[str, str], folder: Path, idle_s: float) -> Start:
    """Starts a program, waits until it is ready, and stops it."""
    with Processes(environment, folder) as processes:
        began_s = time.perf_counter()
        processes.start(Program(name, [name]))
        processes.wait_ready(READY_LIMIT_S)
        ready_s, pid = time.perf_counter() - began_s, processes.pid(name)
        ready_cpu_s = processor_seconds(pid)
        time.sleep(idle_s)
        memory = memory_mb(pid)
    stages, memory_after = logged_stages((folder / f"{name}.log").read_text())
    return Start(ready_s, ready_cpu_s, stages, memory_after, **memory)


def _medians(starts: Sequence[Start]) -> dict[str, Any]:
    """Of every figure; stages are the same in all of them."""
    names = ("ready_s", "ready_cpu_s", "resident_mb", "proportional_mb", "unique_mb", "highest_mb")
    figures: dict[str, Any] = {name: statistics.median(getattr(start, name) for start in starts) for name in names}
    for name in ("stages", "memory_after"):
        every = [getattr(start, name) for start in starts]
        figures[name] = {stage: statistics.median(one[stage] for one in every) for stage in every[0]}
    return figures | {"all_ready_s": [start.ready_s for start in starts]}


def processor_seconds(pid: int) -> float:
    """Processor time of all threads of a process so far."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / _TICKS_PER_S  # user, system


def memory_mb(pid: int) -> dict[str, float]:
    """The kernel's figures for a process, named as in `Start`."""
    lines = (Path(f"/proc/{pid}/smaps_rollup").read_text() + Path(f"/proc/{pid}/status").read_text()).splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.endswith(" kB")}
    return {
        "resident_mb": sizes["Rss"],
        "proportional_mb": sizes["Pss"],
        "unique_mb": sizes["Private_Clean"] + sizes["Private_Dirty"],
        "highest_mb": sizes["VmHWM"],
    }


def logged_stages(log: str) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of every stage, and resident MB behind it, in their order, from a program's log in JSON."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    told = [line for line in lines if line.get("event") == STAGE_DONE]
    return {line["stage"]: line["seconds"] for line in told}, {line["stage"]: line["resident_mb"] for line in told}


if __name__ == "__main__":
    main()
