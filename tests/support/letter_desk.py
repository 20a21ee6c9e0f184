"""The command `exitstream dead-letters` on the topics of one test."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from programs.topics import TopicSettings
from runtime.clock import SystemClock
from runtime.dead_letters import DeadLetters
from runtime.kafka import RecordSink, TopicFollower, create_missing_topics
from runtime.records import Record

NAMES = ("interactions", "items", "impression_requests", "ctr_scores", "user_states", "item_states", "item_parts")


class LetterDesk:
    """Runs the command as a user does, with a settings file.

    Args:
        broker: a `brokers.TestBroker`.
        topics: their names.
        folder: for the settings file.
    """

    def __init__(self, broker, topics: TopicSettings, folder: Path) -> None:
        self.broker = broker
        self.topics = topics
        self._config = folder / "exitstream.toml"
        lines = ["[kafka]", f'bootstrap_servers = "{broker.bootstrap_servers}"', "[topics]"]
        self._config.write_text("\n".join([*lines, *(f'{name} = "{getattr(topics, name)}"' for name in NAMES)]))

    @classmethod
    async def on_new_topics(cls, broker, folder: Path) -> LetterDesk:
        """One whose topics are made for it, and are empty."""
        prefix = broker.name("desk")
        topics = TopicSettings(**{name: f"{prefix}-{name}" for name in NAMES})
        await create_missing_topics(broker.settings(), topics.specs())
        return cls(broker, topics, folder)

    async def run(self, command: str, *arguments: object, fails: bool = False, lines: bool = False) -> str:
        """What a command prints; where it must fail, its error, behind what it printed if the lines are wanted."""
        everything = ["dead-letters", command, *map(str, arguments), "--config", str(self._config)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cli", *everything, stdout=PIPE, stderr=PIPE
        )
        printed, errors = (text.decode() for text in await process.communicate())
        assert process.returncode == (1 if fails else 0), errors
        if not fails:
            return printed
        assert "Traceback" not in errors
        return (printed if lines else "") + errors.splitlines()[-1]

    async def listed(self, *arguments: object) -> list[dict]:
        """What `list --json` prints."""
        return [json.loads(line) for line in (await self.run("list", "--json", *arguments)).splitlines()]

    async def refuse(self, *records: Record, reason: str = "wrong") -> None:
        """Writes the letters of records, as a program does."""
        letters = DeadLetters("worker", self.topics.dead_letter_suffix, SystemClock())
        async with RecordSink(self.broker.settings()) as sink:
            for record in records:
                await sink.send_and_wait(letters.letter(record, reason))

    async def contents(self, topic: str) -> list[Record]:
        """All committed records of a topic."""
        follower = TopicFollower(self.broker.settings(), [topic])
        await follower.start()
        records = []
        while not follower.caught_up:
            records += await follower.poll()
        await follower.stop()
        return records
