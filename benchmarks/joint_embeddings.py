r"""Does it pay to let the heads' loss move the items' embeddings, too? READ FIRST: `measure` names every step.

`exitstream train` fits base embeddings to clicks first and keeps them while layers and heads learn. OptiRAG-Rec (arXiv
2501.02173) trains retrieval and generation together. Here each item's embedding gets a shift that the heads' loss
moves through all soft tokens of the item; what would reach it through other items' and users' embeddings is left out.

    python -m benchmarks.joint_embeddings --out out/joint-embeddings.json
    python -m benchmarks.joint_embeddings --data ../shared/datasets/ml-100k --out out/joint-embeddings-ml-100k.json

Keys of the JSON file: `dataset`, `tested`, and `ways`, by name, with `auc` of each head on the last tenth and, of those
with shifts, `gain`: the last head's AUC minus that of the same without, with the 95 % interval.

- `apart`: as shipped.
- `soft_tokens`: the shifts are added in the items' soft tokens.
- `later_apart`, `later_everywhere`: layers and heads learn on the later half of the examples that have embeddings,
  with embeddings as shipped, and with shifts that were learned on all examples before it and added to the base
  embeddings, so that retrieval and statistics are made with them as well. Not on the same half: heads would learn to
  trust embeddings that know the answers to their examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import repeat
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from benchmarks.harness import add_click_at, exit_on_error, finish, parser
from benchmarks.quality_peers import embeddings_alone
from evaluation.auc_difference import auc_difference
from evaluation.metrics import auc
from event_data.event_log import EventLog
from event_data.load import load_log
from graph_updater.graph.base_embeddings import bundled_base
from models.evidence import Evidence
from models.exit_model import ExitModel, SoftTokens
from models.graph_base import GraphBase
from models.prompt import Prompt
from models.text import Text, item_text
from models.token_sequence import SoftKind
from runtime.errors import ExitstreamError
from runtime.process.allocator import keep_freed_memory
from schemas.messages import Item
from training.evaluate import first_tested
from training.examples import ExampleSets, Spans, make_examples
from training.presets import Preset
from training.progress import Reporter, reporter_for
from training.replay import Example, Replay, replay_examples
from training.shards import ShardedExamples
from training.train import preset_for
from training.train_exits import new_model, predict, train_exits

COMPARED: Final = {"soft_tokens": "apart", "later_everywhere": "later_apart"}
"""Each way with shifts, and the one without that had the same examples."""
UNKNOWN: Final = 0
"""Number of an item without embedding; the others count from one, in the order of the catalogue."""


def main() -> None:
    """Measure and write down."""
    arguments = parser("Base embeddings that learn together with the heads, beside those that do not.")
    add_click_at(arguments)
    given = arguments.parse_args()
    keep_freed_memory()
    try:
        log = load_log(given.data, given.click_at)
        figures = measure(log, preset_for(log), reporter_for(Console(stderr=True)))
    except ExitstreamError as error:
        exit_on_error(error)
    finish(figures, given.out)


def measure(log: EventLog, preset: Preset, reporter: Reporter) -> dict[str, Any]:
    """Train in each way and score the last tenth."""
    graph, text = embeddings_alone(log, preset, reporter)
    torch.set_num_threads(preset.threads or torch.get_num_threads())
    sets, tested = _examples(log, graph, text, preset, reporter)
    spans = Spans.of(log, preset)
    middle = (spans.seeing + log.split().train_end) // 2
    earlier, later = _parted(sets, middle)
    shifts, earlier_shifts = Shifts(len(log.items), graph.dim), Shifts(len(log.items), graph.dim)
    answers = {
        "apart": predict(_trained(sets, text, graph, preset, reporter), tested),
        "soft_tokens": predict(_trained(sets, text, graph, preset, reporter, shifts), tested),
        "later_apart": predict(_trained(later, text, graph, preset, reporter), tested),
    }
    _trained(earlier, text, graph, preset, reporter, earlier_shifts)
    moved = with_shifts(graph, log, text, earlier_shifts.numbers())
    sets, tested = _examples(log, moved, text, preset, reporter)
    _, later = _parted(sets, middle)
    answers["later_everywhere"] = predict(_trained(later, text, moved, preset, reporter), tested)
    labels = np.concatenate([example.labels for example in tested])
    users = [event.user_id for event in log.interactions[-len(labels) :]]
    ways: dict[str, dict[str, Any]] = {
        name: {"auc": [auc(labels, logits[:, head]) for head in range(logits.shape[1])]}
        for name, logits in answers.items()
    }
    for name, reference in COMPARED.items():
        gain = auc_difference(labels, answers[name][:, -1], answers[reference][:, -1], users)
        ways[name]["gain"] = asdict(gain)
    return {"dataset": log.name, "tested": len(labels), "exit_layers": preset.exits.exit_layers, "ways": ways}


class Shifts(nn.Module):
    """What is added to each item's embedding; zero at first, and for an unknown item always.

    Args:
        items: their number.
        dim: of embeddings.
    """

    def __init__(self, items: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(items + 1, dim, padding_idx=UNKNOWN)
        nn.init.zeros_(self.table.weight)

    def forward(self, numbers: Tensor) -> Tensor:
        """(n,) numbers of items to (n, dim)."""
        shifts: Tensor = self.table(numbers)
        return shifts

    def numbers(self) -> NDArray[np.float32]:
        """(items, dim), in the order of the catalogue."""
        return self.table.weight.detach().numpy()[1:]


class ShiftedSoftTokens(nn.Module):
    """Soft tokens whose items are shifted. The item's number stands behind its embedding.

    Args:
        soft: as shipped.
        shifts: to add.
    """

    def __init__(self, soft: SoftTokens, shifts: Shifts) -> None:
        super().__init__()
        self.soft = soft
        self.shifts = shifts

    @property
    def item(self) -> nn.Linear:
        """The projection of items, whose number format the values take."""
        return self.soft.item

    def forward(self, kinds: Tensor, values: Tensor) -> Tensor:
        """As `SoftTokens`."""
        dim = self.soft.item.in_features
        rows = (kinds == SoftKind.ITEM).nonzero().squeeze(1)
        shift = self.shifts(values[rows, dim].long())
        padded = nn.functional.pad(shift, (0, values.shape[1] - dim))
        vectors: Tensor = self.soft(kinds, values.index_add(0, rows, padded))
        return vectors


class NumberedReplay(Replay):
    """Writes behind the embedding of each item in a prompt which item it is. Nothing else reads that column."""

    def __init__(self, items: Sequence[Item], *others: Any, **named: Any) -> None:  # noqa: ANN401 - as of `Replay`
        super().__init__(items, *others, **named)
        self._numbers = {item.item_id: number for number, item in enumerate(items, start=UNKNOWN + 1)}

    def prompt_of(self, evidence: Evidence) -> Prompt:
        """The prompt that tells of this evidence."""
        prompt, dim = super().prompt_of(evidence), self.tables.embedding_dim
        for part, shown in zip((prompt.prefix, *prompt.suffixes), self.soft_items(evidence), strict=True):
            part.soft_values[part.soft_kinds == SoftKind.ITEM, dim] = [
                UNKNOWN if one.item.embedding is None else self._numbers[one.item.item_id] for one in shown
            ]
        return prompt


def with_shifts(graph: GraphBase, log: EventLog, text: Text, shifts: NDArray[np.float32]) -> GraphBase:
    """Base embeddings of all items of the catalogue, moved so that each one's own part of its embedding is shifted.

    Args:
        graph: as trained.
        log: of the catalogue.
        text: the tokenizer.
        shifts: (items, dim) of embeddings, in the order of the catalogue.
    """
    trained = dict(zip(graph.item_ids, graph.item_embeddings, strict=True))
    base = np.zeros_like(shifts)
    for row, item in zip(base, log.items, strict=True):
        known = trained.get(item.item_id)
        known = graph.from_text(text.encode(item_text(item.title, item.attributes))) if known is None else known
        if known is not None:
            row[:] = known
    moved = base + shifts / graph.alphas[0]
    return replace(graph, item_ids=tuple(item.item_id for item in log.items), item_embeddings=moved.astype(np.float32))


def _examples(
    log: EventLog, graph: GraphBase, text: Text, preset: Preset, reporter: Reporter
) -> tuple[ExampleSets, list[Example]]:
    """To train on, and of the last tenth."""
    sets = make_examples(log, graph, text, preset, reporter, replay=NumberedReplay)
    first = first_tested(log, preset.most_tested)
    replay = NumberedReplay(log.items, bundled_base(graph, text), text, preset.limits, template=preset.template)
    replay.advance(log.interactions[:first])
    return sets, list(replay_examples(replay, log.interactions[first:], repeat(1), first))


def _parted(sets: ExampleSets, middle: int) -> tuple[ExampleSets, ExampleSets]:
    """The same validation examples, with those to train on before an event of the log, and from it on."""
    earlier = [example for example in sets.train if example.events.max() < middle]
    later = [example for example in sets.train if example.events.max() >= middle]
    return _training_on(sets, earlier), _training_on(sets, later)


def _training_on(sets: ExampleSets, examples: list[Example]) -> ExampleSets:
    return replace(sets, train=ShardedExamples.of([examples]))


def _trained(
    sets: ExampleSets, text: Text, graph: GraphBase, preset: Preset, reporter: Reporter, shifts: Shifts | None = None
) -> ExitModel:
    torch.manual_seed(preset.seed)
    model = new_model(preset.exits, text.vocabulary_size, graph.dim)
    if shifts is not None:
        model.soft = ShiftedSoftTokens(model.soft, shifts)  # type: ignore[assignment]
    with reporter.step("exit heads", preset.exits.epochs * sum(len(example) for example in sets.train)) as advance:
        return train_exits(model, sets.train, sets.to_fit, preset.exits, preset.seed, advance, reporter.say)


if __name__ == "__main__":
    main()
