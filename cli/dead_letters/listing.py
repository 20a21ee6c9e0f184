"""`exitstream dead-letters list`."""

from __future__ import annotations

import json
import re
from collections import Counter, deque
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from cli.dead_letters.describing import as_json, as_line, escaped
from cli.dead_letters.reading import DeadLetterTopic, Stranger
from cli.dead_letters.selection import Selection
from runtime.dead_letters import Letter

REASON_LIMIT: Final = 120
MOST_KINDS: Final = 500
"""Reasons that are counted apart: they may quote what was refused, and then there is no end of them."""
_OTHERS: Final = "other reasons"
Print = Callable[[str], object]


@dataclass
class Summary:
    """What is kept of a topic's letters while they are read: the newest ones, and counts.

    Attributes:
        newest: the letters to be shown.
        reasons: how often each kind of reason was given.
        letters: all that were selected.
        replayed: of these, how many were.
        strangers: records that are no letters.
    """

    newest: deque[tuple[Letter, bool]]
    reasons: Counter[str] = field(default_factory=Counter)
    letters: int = 0
    replayed: int = 0
    strangers: int = 0

    def add(self, letter: Letter, *, replayed: bool) -> None:
        """Counts one letter."""
        self.letters += 1
        self.replayed += replayed
        self.newest.append((letter, replayed))
        kind = kind_of(letter.reason)
        self.reasons[kind if kind in self.reasons or len(self.reasons) < MOST_KINDS else _OTHERS] += 1

    def lines(self, source: str) -> list[str]:
        """What people are shown."""
        if not self.letters and not self.strangers:
            return [f"{source}: no dead letters"]
        lines = [f"{source}: {self.letters} dead letters, {self.replayed} of them replayed"]
        if earlier := self.letters - len(self.newest):
            lines.append(f"  {earlier} earlier ones are not shown; see --last")
        lines += [f"  {as_line(letter, replayed=done, reason_limit=REASON_LIMIT)}" for letter, done in self.newest]
        if self.letters:
            lines += ["  by reason:", *(f"  {count:>8}  {kind}" for kind, count in self.reasons.most_common())]
        if self.strangers:
            lines.append(f"  {self.strangers} records there are no letters of exitstream's; --json names them")
        return lines


def kind_of(reason: str) -> str:
    """A reason without its numbers, so that the same fault in two records counts as one."""
    return escaped(re.sub(r"\d+", "N", reason), REASON_LIMIT)


async def list_people(topic: DeadLetterTopic, selection: Selection, last: int, echo: Print) -> None:
    """The newest letters of a topic, each in a line, and the counts of their reasons."""
    replayed = await topic.replayed()
    summary = Summary(deque(maxlen=last))
    async with aclosing(topic.letters()) as letters:
        async for letter in letters:
            if isinstance(letter, Stranger):
                summary.strangers += 1
            elif selection.holds(letter):
                summary.add(letter, replayed=letter.origin in replayed)
    for line in summary.lines(topic.source):
        echo(line)


async def list_machines(topic: DeadLetterTopic, selection: Selection, echo: Print) -> None:
    """All letters of a topic, a JSON object in each line."""
    replayed = await topic.replayed()
    async with aclosing(topic.letters()) as letters:
        async for letter in letters:
            if isinstance(letter, Stranger):
                echo(json.dumps({"letter": letter.place, "no_letter": letter.why}))
            elif selection.holds(letter):
                echo(json.dumps(as_json(letter, replayed=letter.origin in replayed)))
