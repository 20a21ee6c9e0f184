"""`exitstream demo`: the whole system on one machine, from an event log to a report; nothing is left running after it.

Updater and worker are separate processes, started by the commands of production and configured by the environment.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console

from cli.offline import reuse_or_train
from cli.replay_table import LiveTable
from cli.report import show_report
from event_data.event_log import EventLog
from event_data.load import load_log
from loadgen.brokers import open_broker
from loadgen.plan import make_plan
from loadgen.player import Player
from loadgen.processes import Processes, Program
from loadgen.report import Report, make_report
from loadgen.worker_metrics import WorkerFigures, read_figures
from models.bundle import read_manifest
from programs.topics import TopicSettings
from runtime.errors import ExitstreamError
from runtime.kafka import create_missing_topics
from runtime.settings import KafkaSettings
from training.pretrained import PretrainedOptions

READY_PATIENCE_S: Final = 120.0
FETCH_MAX_WAIT_MS: Final = 5
"""The embedded broker answers an empty fetch only when this wait is over, even if records arrive meanwhile."""
HISTORY_PATIENCE_S: Final = 180.0
EMBEDDED_BYTES: Final = 15_000_000
"""The most history for the embedded broker: it keeps 5 MB per partition, and keys are spread unevenly."""
BYTES_PER_EVENT: Final = 130
RATE: Final = 20.0
RATE_PRETRAINED: Final = 2.0
LAYERS_PRETRAINED: Final = 4
"""Of pre-trained weights, where nothing else is asked for: two cores can train and serve so many."""
OUTCOME_WAIT_S: Final = 5
"""Replayed users act a quarter of a second after they asked."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The options of the command line."""

    data: Path | None
    broker: str
    requests: int
    rate: float | None
    """Requests per second; None: `RATE`, on pre-trained weights `RATE_PRETRAINED`."""
    folder: Path
    keep: bool = False
    click_at: float | None = None
    pretrained: PretrainedOptions | None = None


@dataclass(frozen=True, slots=True)
class Steps:
    """Shows each step of the demo when it is done, with its duration.

    Attributes:
        seconds: the durations by step, for the report.
    """

    console: Console
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, step: str, detail: str = "") -> Iterator[None]:
        """Time the block; the step counts as done unless it raises."""
        started = time.perf_counter()
        yield
        self.seconds[step] = round(time.perf_counter() - started, 1)
        self.console.print(f"[green]✓[/green] {f'{step} {detail}'.strip()} [dim]({self.seconds[step]} s)[/dim]")


class DemoTooLarge(ExitstreamError):
    """The data set does not fit into the embedded broker."""


def run_demo(options: DemoOptions) -> None:
    """Train or reuse a bundle, start everything, replay, report, stop everything; before that, where asked to, go on
    until interrupted.
    """
    console = Console(highlight=False)
    log = load_log(options.data, options.click_at)
    _check_size(log, options.broker)
    folder = options.folder / _name(log, options.pretrained)
    steps = Steps(console)
    with steps.timed("model"):
        bundle = reuse_or_train(log, folder / "bundle", console, _few_layers(options.pretrained))
    rate = options.rate or (RATE if options.pretrained is None else RATE_PRETRAINED)
    with open_broker(options.broker) as bootstrap, _programs(bootstrap, bundle, folder) as processes:
        kafka = KafkaSettings(bootstrap_servers=bootstrap, fetch_max_wait_ms=FETCH_MAX_WAIT_MS)
        player = Player(kafka, TopicSettings(), make_plan(log, options.requests), rate)
        report, figures = asyncio.run(_play(steps, player, processes))
        _tell(report, figures, steps, folder)
        if options.keep:
            _keep_playing(player, processes, console)


def _name(log: EventLog, pretrained: PretrainedOptions | None) -> str:
    """Of the demo's folder: bundles on other weights or of other depth are kept apart."""
    if pretrained is None:
        return log.name
    return f"{log.name}-{Path(pretrained.where).name}-{pretrained.layers or LAYERS_PRETRAINED}"


def _few_layers(pretrained: PretrainedOptions | None) -> PretrainedOptions | None:
    if pretrained is None or pretrained.layers is not None:
        return pretrained
    return replace(pretrained, layers=LAYERS_PRETRAINED)


def _tell(report: Report, figures: WorkerFigures, steps: Steps, folder: Path) -> None:
    """Shows the report and writes it into the folder."""
    trained = read_manifest(folder / "bundle").metrics
    show_report(report, figures, steps.console, trained)
    result = {
        **msgspec.to_builtins(report),
        "worker": msgspec.to_builtins(figures),
        "seconds": steps.seconds,
        "trained": dict(trained),
    }
    (folder / "report.json").write_text(json.dumps(result, indent=1))
    steps.console.print(f"[dim]report: {folder}/report.json, logs: {folder}/logs[/dim]")


def _keep_playing(player: Player, processes: Processes, console: Console) -> None:
    """Sends the same requests again and again, as new ones, until interrupted.

    Raises:
        ProcessFailed: a program ended.
    """
    console.print(f"the traffic goes on; [bold]live page: {_page(processes)}[/bold]; Ctrl-C ends the demo")
    try:
        for number in count(1):
            again = Player(player.kafka, player.topics, player.plan.again(number), player.rate)
            asyncio.run(again.play())
            processes.check()
    except KeyboardInterrupt:
        console.print("stopping")


def _page(processes: Processes) -> str:
    return f"{processes.address('worker')}/live"


async def _play(steps: Steps, player: Player, processes: Processes) -> tuple[Report, WorkerFigures]:
    kafka, topics = player.kafka, player.topics
    with steps.timed("topics", f"on {kafka.bootstrap_servers}"):
        await create_missing_topics(kafka, topics.specs())
    with steps.timed("updater", f"has {len(player.plan.history):,} interactions of history"):
        processes.start(Program("updater", ["updater"]))
        await player.prepare(HISTORY_PATIENCE_S)
    with steps.timed("worker", "has filled its tables and warmed up the model"):
        live = {
            "EXITSTREAM_TELEMETRY__LIVE_PAGE": "true",
            "EXITSTREAM_WORKER__OUTCOMES__WAIT_S": str(OUTCOME_WAIT_S),
        }
        processes.start(Program("worker", ["worker"], live))
        await asyncio.to_thread(processes.wait_ready, READY_PATIENCE_S)
    steps.console.print(f"[bold]live page: {_page(processes)}[/bold]")
    steps.console.print(f"{len(player.plan.impressions)} impression requests at {player.rate:g} per second:")
    with steps.timed("replay"):
        async with LiveTable(player, steps.console):
            await player.play()
    processes.check()
    return make_report(player.plan, player.sent, player.answers), read_figures(processes.metrics("worker"))


@contextmanager
def _programs(bootstrap: str, bundle: Path, folder: Path) -> Iterator[Processes]:
    snapshots = folder / "snapshots"
    # A snapshot's offsets belong to the broker of an earlier demo.
    shutil.rmtree(snapshots, ignore_errors=True)
    environment = {
        "EXITSTREAM_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "EXITSTREAM_KAFKA__FETCH_MAX_WAIT_MS": str(FETCH_MAX_WAIT_MS),
        "EXITSTREAM_UPDATER__BUNDLE": str(bundle),
        "EXITSTREAM_WORKER__BUNDLE": str(bundle),
        "EXITSTREAM_UPDATER__SNAPSHOTS": str(snapshots),
    }
    with Processes(environment, folder / "logs") as processes:
        yield processes


def _check_size(log: EventLog, broker: str) -> None:
    size = len(log.interactions) * BYTES_PER_EVENT
    if broker == "embedded" and size > EMBEDDED_BYTES:
        raise DemoTooLarge(
            f"{len(log.interactions):,} interactions ({size / 1e6:.0f} MB) exceed what the embedded broker keeps; "
            "use real Kafka: make demo DATA=... BROKER=docker (or BROKER=host:port)"
        )
