"""The commands of `exitstream dead-letters`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from pathlib import Path

import typer

from cli.dead_letters.describing import describe
from cli.dead_letters.listing import list_machines, list_people
from cli.dead_letters.reading import DeadLetterTopic, Stranger
from cli.dead_letters.replaying import Outcome, Replaying
from cli.dead_letters.selection import BadSelection, Selection, inputs_of, inputs_of_places, since
from programs.settings import ExitstreamSettings
from runtime.clock import SystemClock
from runtime.dead_letters import Letter
from runtime.errors import ExitstreamError
from runtime.kafka import require_topics
from runtime.observability.telemetry import configure_logging
from runtime.settings import TelemetrySettings
from runtime.settings_sources import load_settings
from schemas.topics import CHANNELS


class NotReplayed(ExitstreamError):
    """Some of the letters could not be replayed."""


def list_letters(
    wanted: Sequence[str], reason: str | None, when: str | None, config: Path | None, *, last: int, as_json: bool
) -> None:
    """Print the letters of some topics, or of all."""
    settings = _settings(config)
    selection = Selection(reason=reason, since_ms=since(when, SystemClock().wall_ms()))
    topics = _topics(settings, inputs_of(settings.topics, wanted))

    async def read() -> None:
        for topic in topics:
            if as_json:
                await list_machines(topic, selection, typer.echo)
            else:
                await list_people(topic, selection, last, typer.echo)

    asyncio.run(read())


def show_letter(place: str, limit: int, config: Path | None) -> None:
    """Print everything about the letter at a place; of several for one record, the newest."""
    settings = _settings(config)
    [topic] = _topics(settings, inputs_of_places(settings.topics, [place]))
    selection = Selection(places=frozenset({place}))

    async def read() -> tuple[list[Letter], bool]:
        """The newest letter there, if there is one, and whether it was replayed."""
        found: list[Letter] = []
        async with aclosing(topic.letters()) as letters:
            async for letter in letters:
                if not isinstance(letter, Stranger) and selection.holds(letter):
                    found = [letter]
        return found, bool(found) and found[0].origin in await topic.replayed()

    found, replayed = asyncio.run(read())
    if not found:
        raise _missing([place])
    [channel] = (channel for channel in CHANNELS if settings.topics.name_of(channel) == topic.source)
    largest = settings.kafka.max_record_bytes
    typer.echo(describe(found[0], channel, max_record_bytes=largest, limit=limit, replayed=replayed))


def replay_letters(
    places: Sequence[str],
    reason: str | None,
    when: str | None,
    wanted: Sequence[str],
    config: Path | None,
    *,
    everything: bool,
    dry_run: bool,
) -> None:
    """Write the records of letters to their topics again."""
    if not (places or reason or everything):
        raise BadSelection("name what to replay: places, --reason TEXT, or --all")
    settings = _settings(config)
    clock = SystemClock()
    selection = Selection(frozenset(places), reason, since(when, clock.wall_ms()))
    inputs = inputs_of(settings.topics, wanted)
    if places:
        inputs = tuple(name for name in inputs_of_places(settings.topics, places) if name in inputs)
    outcome = Outcome(replayed=0, before=0, refused=0, named=set())

    async def run() -> None:
        await require_topics(settings.kafka, [*inputs, *map(settings.topics.dead_letter, inputs)])
        for topic in _topics(settings, inputs):
            replaying = Replaying(settings.kafka, topic, selection, outcome, clock, typer.echo)
            await (replaying.rehearse() if dry_run else replaying.run())

    asyncio.run(run())
    typer.echo(f"{outcome}{'; nothing was written (--dry-run)' if dry_run else ''}")
    if missing := selection.places - outcome.named:
        raise _missing(missing)
    if outcome.refused:
        raise NotReplayed(
            f"the broker refused {outcome.refused} records; the lines above say why; they can be replayed later"
        )


def _settings(config: Path | None) -> ExitstreamSettings:
    """The settings; from now on only warnings are logged, to standard error: a machine may read what is printed."""
    configure_logging(TelemetrySettings(log_format="console", log_level="warning"), "dead-letters")
    return load_settings(ExitstreamSettings, config)


def _topics(settings: ExitstreamSettings, inputs: Iterable[str]) -> list[DeadLetterTopic]:
    return [DeadLetterTopic(settings.kafka, settings.topics.dead_letter(name), name) for name in inputs]


def _missing(places: Iterable[str]) -> BadSelection:
    return BadSelection(
        f"no dead letter at {', '.join(sorted(places))}; `exitstream dead-letters list` shows those that are kept"
    )
