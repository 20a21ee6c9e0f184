"""`exitstream score`: scores one request and shows everything that went into the score."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text as Styled

from cli.dead_letters.describing import escaped
from event_data.load import load_log
from event_data.synthetic import NAME as SYNTHETIC
from models.bundle import Bundle
from models.bundle_store import resolve
from models.evidence import CandidateEvidence, ItemFacts
from models.feature_words import in_words
from programs.settings import ExitstreamSettings
from runtime.errors import DatasetError, ExitstreamError
from runtime.kafka import probe
from runtime.settings_sources import load_settings
from schemas.codec import MalformedRecord, MessageDecoder
from schemas.messages import ImpressionRequest
from training.replay import Replay
from worker.explain import CandidateExplanation, Explanation, explain
from worker.reasons import closing_sentence
from worker.state_store.state_reader import StateReader, read_tables
from worker.state_store.tables import Tables


class UnusableRequest(ExitstreamError):
    """The request cannot be read or decoded."""


def explain_request(
    request: Path,
    bundle: str,
    data: Path | None,
    config: Path | None,
    *,
    from_kafka: bool,
    click_at: float | None = None,
) -> None:
    """Read the request, look up its user and items, score it, and show what went into the score."""
    wanted = _read_request(request)
    model = Bundle.load(resolve(bundle))
    tables = _live_tables(model, config) if from_kafka else _replayed_tables(model, data, click_at)
    show_explanation(explain(model, tables, wanted), wanted, Console(highlight=False))


def _read_request(path: Path) -> ImpressionRequest:
    try:
        value = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return MessageDecoder(ImpressionRequest).decode(value)
    except OSError as error:
        raise UnusableRequest(f"the request {path} cannot be read: {error.strerror}") from error
    except MalformedRecord as error:
        raise UnusableRequest(
            f'the request {path} is {error}; for example {{"type": "impression-request", "request_id": "r1", '
            '"user_id": "u1", "candidate_item_ids": ["i1"], "created_time_ms": 0}'
        ) from error


def _replayed_tables(bundle: Bundle, data: Path | None, click_at: float | None) -> Tables:
    """The tables of a worker that has seen a whole data set.

    Raises:
        DatasetError: none was named, and the bundle was trained on another one than the synthetic.
    """
    if data is None and bundle.dataset not in ("", SYNTHETIC):
        raise DatasetError(
            f"this bundle was trained on {bundle.dataset}: name its folder with --data, or --from-kafka for live states"
        )
    log = load_log(data, click_at)
    replay = Replay.for_bundle(log.items, bundle)
    replay.advance(log.interactions)
    return replay.tables


def _live_tables(bundle: Bundle, config: Path | None) -> Tables:
    """The tables that a worker has now, read from Kafka."""
    settings = load_settings(ExitstreamSettings, config)
    tables = Tables(bundle.text, bundle.graph.dim, space=bundle.space, history_length=bundle.limits.history_length)

    async def read() -> None:
        await probe(settings.kafka)
        await read_tables(settings.kafka, StateReader(settings.topics, settings.kafka.max_record_bytes), tables)

    asyncio.run(read())
    tables.refresh_indexes()
    return tables


def show_explanation(explanation: Explanation, request: ImpressionRequest, console: Console) -> None:
    """The user, the shared prompt, then each candidate: evidence, statistics, every head's answer, and one sentence."""
    user = explanation.user
    console.print(Styled(f"request {escaped(request.request_id)}, model {explanation.model_version}", style="bold"))
    console.print(_plain(f"user {user.user_id}: {user.positives} clicks in {user.impressions} impressions"))
    _print_prompt(console, "prompt, shared", explanation.prefix)
    for candidate in explanation.candidates:
        console.print()
        console.print(Styled(escaped(f"candidate {_name(candidate.evidence.item, explanation)}"), style="bold"))
        console.print(_neighbours(candidate.evidence, explanation))
        _print_prompt(console, "prompt, its own", candidate.suffix)
        console.print(_statistics(candidate))
        console.print(_answers(candidate, explanation.base_threshold))
        console.print(Styled(escaped(closing_sentence(candidate.answer.ctr, candidate.evidence, user)), style="bold"))


def _plain(text: str) -> Styled:
    """Titles and ids come from outside: neither this library nor a terminal may obey what they hold."""
    return Styled(escaped(text))


def _name(item: ItemFacts, explanation: Explanation) -> str:
    title = explanation.titles.get(item.item_id)
    return item.item_id if title is None else f"{title} ({item.item_id})"


def _print_prompt(console: Console, name: str, prompt: str) -> None:
    """In one line with its name; one that has several lines, below it."""
    lines = prompt.split("\n")
    if len(lines) == 1:
        console.print(Styled(f"{name}: ", style="dim") + _plain(prompt))
        return
    console.print(Styled(f"{name}:", style="dim"))
    for line in lines:
        console.print(Padding(_plain(line), (0, 0, 0, 4)))


def _neighbours(evidence: CandidateEvidence, explanation: Explanation) -> Table:
    table = Table("neighbour", "similarity", "outcome", title="evidence", title_justify="left")
    for past in evidence.past:
        answer = "clicked" if past.positive else "not clicked"
        table.add_row(_plain(f"own past item {_name(past.item, explanation)}"), f"{past.similarity:.3f}", answer)
    for near in evidence.similar_users:
        answer = "clicked this candidate" if near.positive else "did not click this candidate"
        table.add_row(_plain(f"similar user {near.user_id}"), f"{near.similarity:.3f}", answer)
    for item in evidence.similar_items:
        rate = f"{item.item.positives} clicks in {item.item.impressions} impressions"
        table.add_row(_plain(f"similar item {_name(item.item, explanation)}"), f"{item.similarity:.3f}", rate)
    for value in evidence.attributes:
        theirs = f"{value.positives} clicks in {value.impressions} impressions"
        with_user = f"; this user {value.user_positives} in {value.user_impressions}" if value.user_impressions else ""
        table.add_row(_plain(f"{value.name} {value.value}"), "", f"{theirs}{with_user}")
    own = evidence.item
    table.add_row("the candidate itself", "", f"{own.positives} clicks in {own.impressions} impressions")
    return table


def _statistics(candidate: CandidateExplanation) -> Table:
    table = Table("statistic", "value", title="statistics, as the model reads them", title_justify="left")
    table.columns[1].justify = "right"
    for words, value in in_words(candidate.statistics.tolist()):
        table.add_row(words, value)
    return table


def _answers(candidate: CandidateExplanation, base_threshold: float) -> Table:
    title = f"answers (base threshold {base_threshold:.3f})"
    table = Table("answered by", "CTR", "confidence", "", title=title, title_justify="left")
    table.add_row("graph score", f"{candidate.graph_ctr:.4f}", "", "used if no head finishes in time")
    for place, head in enumerate(candidate.heads):
        note = "answers when there is no load" if place == candidate.exit_at else ""
        table.add_row(f"head after layer {head.layer}", f"{head.ctr:.4f}", f"{head.confidence:.3f}", note)
    return table
