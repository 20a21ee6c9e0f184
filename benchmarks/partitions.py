"""What would similar users of the same partitions alone cost?

    python -m benchmarks.partitions --data ../shared/datasets/ml-100k --out out/partitions.json

A worker that held the users of its partitions only would find similar users among these. Here as many tables as there
are partitions hold each the users whose ids Kafka's partitioner gives it, and all items; a trained bundle scores the
last tenth of a log, each event as of its time. The model is the same: it was trained with all users in reach.

Keys of the JSON file: `partitions`; `users`; by number of partitions `auc` of the last head, and `difference` to one
partition with its confidence interval (`evaluation.auc_difference`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Final

from benchmarks.bundle_answers import HeadAnswers, head_answers
from benchmarks.harness import add_bundle, add_click_at, bundle_folder, exit_on_error, finish, parser
from evaluation.auc_difference import auc_difference
from evaluation.metrics import auc
from event_data.event_log import EventLog
from event_data.load import load_log
from graph_updater.graph.base_embeddings import bundled_base
from models.bundle import Bundle
from models.evidence import Evidence
from runtime.errors import ExitstreamError
from runtime.kafka import partition_of
from schemas.messages import Item
from schemas.packed_states import ITEM_MAGIC, USER_MAGIC
from training.replay import Replay
from worker.retrieval import Retriever
from worker.state_store.packed_batch import PackedBatch
from worker.state_store.tables import Tables

PARTITIONS: Final = (1, 4, 16)


class PartitionedReplay(Replay):
    """A replay whose users are found in the tables of their partition.

    Args:
        partitions: how many there are.
        items: the catalogue.
        bundle: the trained model.

    Attributes:
        of_partition: the tables of each.
    """

    def __init__(self, partitions: int, items: Sequence[Item], bundle: Bundle) -> None:
        self.of_partition = [
            Tables(bundle.text, bundle.graph.dim, history_length=bundle.limits.history_length)
            for _ in range(partitions)
        ]
        self._retrievers = [Retriever(tables, bundle.limits) for tables in self.of_partition]
        for tables in self.of_partition:
            for item in items:
                tables.put_item(item)
        base = bundled_base(bundle.graph, bundle.text)
        super().__init__(items, base, bundle.text, bundle.limits, bundle.model.config.statistics, bundle.template)

    def evidence(self, user_id: str, item_ids: Sequence[str]) -> Evidence:
        """What the worker of the user's partition finds."""
        return self._retrievers[self._partition(user_id)].retrieve(user_id, item_ids)

    def same_partition(self, user_id: str, other: str) -> bool:
        """Whether one worker has both."""
        return self._partition(user_id) == self._partition(other)

    def _partition(self, user_id: str) -> int:
        return partition_of(user_id.encode(), len(self.of_partition))

    def _publish(self, now_ms: int) -> None:
        published = self._state.published
        changes = published.take_changes()
        items = [state for state in published.packed_items(changes.items, now_ms) if state is not None]
        item_keys = [name.encode() for name in changes.items]
        users: list[list[str]] = [[] for _ in self.of_partition]
        for name in changes.users:
            users[self._partition(name)].append(name)
        for tables, names in zip(self.of_partition, users, strict=True):
            states = [state for state in published.packed_users(names, now_ms) if state is not None]
            tables.put_user_states(PackedBatch(states, USER_MAGIC), [name.encode() for name in names])
            tables.put_item_states(PackedBatch(items, ITEM_MAGIC), item_keys)


def main() -> None:
    """Score the same events with every number of partitions."""
    arguments = parser(__doc__)
    add_bundle(arguments)
    add_click_at(arguments)
    arguments.add_argument("--events", type=int, default=20_000, help="most events to score, the latest ones")
    given = arguments.parse_args()
    try:
        log = load_log(given.data, given.click_at)
        bundle = Bundle.load(bundle_folder(given.bundle, log))
        finish(figures(bundle, log, given.events), given.out)
    except ExitstreamError as error:
        exit_on_error(error)


def figures(bundle: Bundle, log: EventLog, most_events: int) -> dict[str, Any]:
    """AUC by number of partitions, and what each number costs."""
    answers: dict[int, HeadAnswers] = {}
    for partitions in PARTITIONS:
        answers[partitions] = head_answers(bundle, log, most_events, partial(PartitionedReplay, partitions))
        sys.stderr.write(f"{partitions} partitions: {auc(*_last(answers[partitions])):.4f}\n")
    whole = answers[1]
    return {
        "partitions": list(PARTITIONS),
        "users": len({event.user_id for event in log.interactions}),
        "auc": [auc(*_last(answers[partitions])) for partitions in PARTITIONS],
        "difference": [
            asdict(auc_difference(whole.labels, answers[partitions].logits[:, -1], whole.logits[:, -1], whole.users))
            for partitions in PARTITIONS
        ],
    }


def _last(answers: HeadAnswers) -> tuple[Any, Any]:
    return answers.labels, answers.logits[:, -1]


if __name__ == "__main__":
    main()
