"""The `exitstream` command. Each subcommand imports what it needs when it runs, so that `--help` is quick.

A user's mistake ends in one line on standard error and status 1; a traceback is always a bug.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.bundles.app import app as bundle_app
from cli.preset_options import PresetChanges, with_preset_options
from cli.pretrained_options import with_pretrained_options
from runtime.errors import ExitstreamError
from runtime.process.ending import INTERRUPTED, ending_before_its_threads

if TYPE_CHECKING:
    from training.pretrained import PretrainedOptions

app = typer.Typer(
    name="exitstream",
    help="Real-time CTR scoring over Kafka: fresh graph embeddings, early-exit language model, latency budget.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
topics_app = typer.Typer(help="Kafka topics.", no_args_is_help=True)
schemas_app = typer.Typer(help="Message contracts.", no_args_is_help=True)
letters_app = typer.Typer(
    help="Records that were refused: list them, show one, replay after a fix.", no_args_is_help=True
)
app.add_typer(topics_app, name="topics")
app.add_typer(schemas_app, name="schemas")
app.add_typer(letters_app, name="dead-letters")
app.add_typer(bundle_app, name="bundle")

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file; EXITSTREAM_* variables override it.", envvar="EXITSTREAM_CONFIG"),
]
DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Folder of your own or of MovieLens, Book-Crossing or Amazon files; default: synthetic."
    ),
]
ClickAt = Annotated[
    float | None,
    typer.Option(
        "--click-at",
        help="Rating from which on a MovieLens, Book-Crossing or Amazon rating is a click; default: 4, 5 for "
        "Book-Crossing (8 divides its ratings better).",
    ),
]
InputTopics = Annotated[list[str] | None, typer.Option("--topic", help="Only of this input topic; may be repeated.")]
WithReason = Annotated[str | None, typer.Option("--reason", help="Only with this text in their reason, in any case.")]
SinceWhen = Annotated[
    str | None,
    typer.Option("--since", help="Only refused since: an age (30m, 2h, 7d) or a UTC time (2026-01-31T12:00)."),
]
BundleAddress = Annotated[
    str, typer.Option("--bundle", help="A trained bundle: its folder, a bundle store, or STORE@VERSION.")
]


def run() -> None:
    """Entry point: runs the command and prints an `ExitstreamError` as one line."""
    with ending_before_its_threads():
        try:
            app()
        except ExitstreamError as error:
            sys.stderr.write(f"exitstream: {error}\n")
            sys.exit(1)
        except KeyboardInterrupt:
            sys.stderr.write("exitstream: interrupted\n")
            sys.exit(INTERRUPTED)


@app.command()
@with_pretrained_options
def demo(
    data: DataFolder = None,
    click_at: ClickAt = None,
    broker: Annotated[str, typer.Option(help="embedded, docker, or host:port of a running Kafka.")] = "embedded",
    requests: Annotated[int, typer.Option(min=1, help="Impression requests to replay.")] = 600,
    rate: Annotated[
        float | None, typer.Option(min=0.1, help="Requests per second; default: 20, with --backbone 2.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where the bundle, the logs and the report are kept.")] = Path(".demo"),
    keep: Annotated[
        bool, typer.Option("--keep", help="After the report, go on with the traffic until Ctrl-C.")
    ] = False,
    pretrained: PretrainedOptions | None = None,
) -> None:
    """Train (once), start broker, updater and worker, replay a data set in time order and report.

    With --backbone the model starts from pre-trained weights: their first four layers, unless --layers says otherwise.
    """
    from cli.demo import DemoOptions, run_demo

    options = DemoOptions(data, broker, requests, rate, folder, keep=keep, click_at=click_at, pretrained=pretrained)
    run_demo(options)


@app.command()
@with_pretrained_options
@with_preset_options
def train(
    out: Annotated[Path, typer.Option("--out", help="Folder to write the bundle to.")],
    data: DataFolder = None,
    click_at: ClickAt = None,
    config: ConfigFile = None,
    from_kafka: Annotated[
        bool, typer.Option("--from-kafka", help="Read the topics of items and interactions.")
    ] = False,
    changes: PresetChanges = PresetChanges(),  # noqa: B008 - frozen
    pretrained: PretrainedOptions | None = None,
) -> None:
    """Train a model bundle from an event log: a folder's, or what the topics hold.

    With --backbone it starts from pre-trained weights, and the same command continues a training that was interrupted.
    Started by `accelerate launch` or `torchrun`, several processes train it together, each on a GPU if there are any.
    """
    from cli.offline import assists_training, train_bundle
    from cli.topic_log import chosen_log

    if assists_training(out, pretrained):
        return
    log = chosen_log(data, config, from_kafka=from_kafka, click_at=click_at)
    train_bundle(log, out, pretrained, changes)


@app.command("check-data")
def check_data(
    folder: Annotated[Path, typer.Argument(help="Folder with interactions.* and items.* (docs/your-own-data.md).")],
) -> None:
    """Say in plain words what a folder of your own data holds, and what would be skipped and why."""
    from cli.own_data import check

    check(folder)


@app.command()
def load(
    data: Annotated[Path, typer.Option("--data", help="Folder of the data set.")],
    click_at: ClickAt = None,
    config: ConfigFile = None,
) -> None:
    """Send a data set's catalogue and interactions to Kafka, for updater and worker to start from."""
    from cli.own_data import load as load_data

    load_data(data, config, click_at)


@app.command()
def evaluate(
    bundle: BundleAddress,
    data: DataFolder = None,
    click_at: ClickAt = None,
    out: Annotated[Path | None, typer.Option("--out", help="JSON file to write the figures to.")] = None,
    report: Annotated[Path | None, typer.Option("--report", help="HTML page to write for readers.")] = None,
    *,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Also score with state refreshed less often; takes several passes.")
    ] = False,
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Also score with one kind of evidence left out; takes eleven passes.")
    ] = False,
) -> None:
    """Score the last tenth of an event log, each event as of its time, and print AUC, log loss and exits."""
    from cli.offline import evaluate_bundle

    evaluate_bundle(bundle, data, out, report, click_at=click_at, refresh=refresh, leave_out=leave_out)


@app.command()
def score(
    request: Annotated[Path, typer.Argument(help="JSON file of an impression request; - for standard input.")],
    bundle: BundleAddress,
    data: DataFolder = None,
    click_at: ClickAt = None,
    config: ConfigFile = None,
    from_kafka: Annotated[
        bool, typer.Option("--from-kafka", help="Read states from Kafka, not from a data set.")
    ] = False,
) -> None:
    """Score one request and show why: the prompt, the neighbours and each head's answer."""
    from cli.score import explain_request

    explain_request(request, bundle, data, config, from_kafka=from_kafka, click_at=click_at)


@app.command()
def updater(config: ConfigFile = None) -> None:
    """Run the graph updater: it reads interactions and items and publishes fresh user and item states."""
    from graph_updater.app import run as run_updater
    from graph_updater.settings import load

    run_updater(load(config))


@app.command()
def worker(config: ConfigFile = None) -> None:
    """Run the scoring worker: it reads impression requests and publishes CTR scores."""
    from worker.app import run as run_worker
    from worker.settings import load

    run_worker(load(config))


@app.command()
def live(
    workers: Annotated[list[str], typer.Argument(help="Status addresses of workers, such as http://127.0.0.1:8080.")],
) -> None:
    """Show what running workers do, a line each, and the addresses of their live pages (telemetry.live_page)."""
    from cli.live import follow_workers

    follow_workers(workers)


@app.command()
def replay(
    data: DataFolder = None,
    click_at: ClickAt = None,
    requests: Annotated[int, typer.Option(min=1, help="Impression requests to send.")] = 600,
    rate: Annotated[float, typer.Option(min=0.1, help="Requests per second.")] = 20.0,
    config: ConfigFile = None,
) -> None:
    """Send a data set's catalogue, history and requests to Kafka in time order, then report on the scores."""
    from cli.replay import run_replay

    run_replay(data, requests, rate, config, click_at)


@app.command()
def doctor(
    config: ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="A list of findings instead of lines.")] = False,
) -> None:
    """Look at broker, topics, groups, bundle and machine; say what is wrong and what to do; status 1 for a problem."""
    from cli.doctor.command import run as run_doctor

    run_doctor(config, as_json=as_json)


@app.command()
def settings() -> None:
    """Print the reference of all settings in Markdown."""
    from cli.settings_reference import reference

    typer.echo(reference(), nl=False)


@app.command()
def reference(
    folder: Annotated[Path, typer.Option(help="Where to write them.")] = Path("docs/reference"),
) -> None:
    """Write the pages of metrics, messages and commands for the docs."""
    from cli.reference.pages import write

    write(app, folder)


@topics_app.command("create")
def create_topics(config: ConfigFile = None) -> None:
    """Create the topics that are missing; report on those that differ; never delete."""
    from cli.topics import create

    create(config)


@schemas_app.command("generate")
def generate_schemas(
    folder: Annotated[Path, typer.Option(help="Where to write them.")] = Path("schemas/generated"),
) -> None:
    """Write the JSON Schemas and the AsyncAPI document from the message types."""
    from schemas.contracts import generate

    generate(folder)


@letters_app.command("list")
def list_dead_letters(
    topic: InputTopics = None,
    reason: WithReason = None,
    since: SinceWhen = None,
    last: Annotated[int, typer.Option(min=1, help="How many of each topic to show, the newest; all are counted.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="All of them, one JSON object in each line.")] = False,
    config: ConfigFile = None,
) -> None:
    """List refused records: where they were read, when, by which program, why; and how often for each reason."""
    from cli.dead_letters.commands import list_letters

    list_letters(topic or [], reason, since, config, last=last, as_json=as_json)


@letters_app.command("show")
def show_dead_letter(
    place: Annotated[str, typer.Argument(help="'TOPIC[PARTITION]@OFFSET', as listed and as in the program's log.")],
    limit: Annotated[int, typer.Option("--bytes", min=1, help="Most bytes shown of key, header and value.")] = 2_000,
    config: ConfigFile = None,
) -> None:
    """Show one refused record: headers, key, value (decoded if it can be), the reason, and what to do."""
    from cli.dead_letters.commands import show_letter

    show_letter(place, limit, config)


@letters_app.command("replay")
def replay_dead_letters(
    places: Annotated[list[str] | None, typer.Argument(help="'TOPIC[PARTITION]@OFFSET', any number of them.")] = None,
    reason: WithReason = None,
    since: SinceWhen = None,
    topic: InputTopics = None,
    everything: Annotated[bool, typer.Option("--all", help="All that the other options leave.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be replayed.")] = False,
    config: ConfigFile = None,
) -> None:
    """Write refused records to the topics they came from, with their keys and headers, once what refused them is fixed.

    The record's key chooses the partition: it is the one where the key's other records are now. A header,
    dead-letter-attempt, counts the attempts.

    Each record is replayed once, however often the command is run, also after it was interrupted: a mark in the
    dead-letter topic, written in the same transaction, remembers it. A record that is refused again has a new letter,
    which can be replayed. Two runs at once: the later one ends the earlier.
    """
    from cli.dead_letters.commands import replay_letters

    replay_letters(places or [], reason, since, topic or [], config, everything=everything, dry_run=dry_run)
