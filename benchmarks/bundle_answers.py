"""Every head of a trained bundle on the last tenth of its log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, pairwise, repeat
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evaluation.auc_difference import auc_difference
from evaluation.metrics import auc
from event_data.event_log import EventLog
from models.bundle import Bundle
from schemas.messages import Item
from training.clicks import is_click
from training.evaluate import first_tested
from training.replay import Replay, replay_examples
from training.train_exits import predict

AT_ONCE: Final = 256
"""Examples are made and scored in groups, so that memory stays bounded."""


@dataclass(frozen=True, slots=True)
class HeadAnswers:
    """Logits (events, heads) of the tested events, whether they were clicks, and whose they were."""

    logits: NDArray[np.float32]
    labels: NDArray[np.bool_]  # (events,)
    users: Sequence[str]
    exit_layers: Sequence[int]

    def figures(self) -> dict[str, Any]:
        """AUC of each head, and what each but the first gains over the one before it."""
        heads = range(self.logits.shape[1])
        return {
            "exit_layers": list(self.exit_layers),
            "auc": [auc(self.labels, self.logits[:, head]) for head in heads],
            "gain": [
                asdict(auc_difference(self.labels, self.logits[:, deeper], self.logits[:, head], self.users))
                for head, deeper in pairwise(heads)
            ],
        }


def head_answers(
    bundle: Bundle,
    log: EventLog,
    most_events: int,
    make_replay: Callable[[Sequence[Item], Bundle], Replay] = Replay.for_bundle,
) -> HeadAnswers:
    """Each event is scored as of its time; of a longer last tenth, so many of the latest events are."""
    first = first_tested(log, most_events)
    tested = log.interactions[first:]
    replay = make_replay(log.items, bundle)
    replay.advance(log.interactions[:first])
    examples = replay_examples(replay, tested, repeat(1), first)
    logits = []
    while group := list(islice(examples, AT_ONCE)):
        logits.append(predict(bundle.model, group))
    return HeadAnswers(
        np.concatenate(logits),
        np.array([is_click(event) for event in tested]),
        [event.user_id for event in tested],
        bundle.model.config.exit_layers,
    )
