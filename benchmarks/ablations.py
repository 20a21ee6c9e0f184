r"""What is each part worth? Parts are left out or replaced, one at a time. READ FIRST: `measure` names every step.

Every variant is trained on the same requests, from the same weights, and scored on the same last tenth:

- evidence: from none at all to what is shipped; `benchmarks.ablation_evidence.CHOICES` lists it.
- inputs, with the evidence as shipped: words only, soft tokens only, statistics only, all.
- graph: LightGCN's mean over its layers against each node's last layer.
- exits: the calibrated criterion against the plain one of OptiRAG-Rec.

Models, prompts and examples are those of `exitstream train`, so that all of it takes fifteen times as long;
`--examples` takes fewer of them.

    python -m benchmarks.ablations --out out/ablations-synthetic.json
    python -m benchmarks.ablations --data ../shared/datasets/ml-100k --examples 20000 --out out/ablations-ml-100k.json
    python -m benchmarks.ablations --data ../shared/datasets/book-crossing --click-at 8 \
        --out out/ablations-book-crossing.json
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
from rich.console import Console

from benchmarks.ablation_evidence import CHOICES, Records, record, request_events
from benchmarks.ablation_models import ALL_INPUTS, INPUTS, Answers, Variant, train_variant
from benchmarks.harness import add_click_at, exit_on_error, finish, parser
from benchmarks.quality import log_figures
from benchmarks.quality_peers import embeddings_alone
from benchmarks.retrieval_times import SOURCES, retrieval_times
from evaluation.auc_difference import auc_difference
from evaluation.metrics import auc, log_loss
from event_data.event_log import EventLog
from event_data.load import load_log
from event_data.suitability import require_suitable
from graph_updater.graph.base_embeddings import bundled_base
from models.graph_base import GraphBase
from models.text import Text
from runtime.errors import ExitstreamError
from runtime.process.allocator import keep_freed_memory
from training.calibrate import calibrate
from training.exit_costs import answers_at, confidences, exit_heads
from training.presets import DEMO, Preset
from training.progress import Reporter, reporter_for
from training.replay import Replay
from training.train import preset_for

QUICK: Final = replace(
    DEMO, exits=replace(DEMO.exits, exit_layers=(1, 2), epochs=2), most_examples=2_000, most_held_out=2_000
)
"""For a first look."""
EVIDENCE_REFERENCE: Final = "latest"
COMPARED: Final = {
    "graph_both_minus_latest": ("graph_both", "latest"),
    "graph_both_minus_text": ("graph_both", "text"),
    "graph_history_minus_text": ("graph_history", "text_embeddings"),
}
"""What the graph's evidence is worth: beside the other sources as they are, and, in the last, where nothing but the
choice of past items differs."""
EXITS_OF: Final = ("all", "no_regression")
"""Where hardly anything is learned but the regression, heads hardly differ; without it they do."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured, and how.

    Attributes:
        preset: hyperparameters of every variant.
        most_tested: of a longer last tenth, so many of the latest events are scored.
        rounds: timed rounds of retrieval.
        requests: in each of them.
    """

    preset: Preset
    most_tested: int = 10_000
    rounds: int = 7
    requests: int = 200


def main() -> None:
    """Measure and write down."""
    arguments = _arguments()
    keep_freed_memory()
    try:
        log = load_log(arguments.data, arguments.click_at)
        require_suitable(log)
        options = _options(arguments, log)
        figures = measure(log, options, reporter_for(Console(stderr=True)))
    except ExitstreamError as error:
        exit_on_error(error)
    finish({**figures, "quick": arguments.quick}, arguments.out)


def _arguments() -> Namespace:
    arguments = parser("What each part of the model is worth: parts left out or replaced, one at a time.")
    add_click_at(arguments)
    arguments.add_argument("--quick", action="store_true", help="few examples, two heads: for a first look")
    arguments.add_argument("--examples", type=int, help="candidates to train each variant on")
    arguments.add_argument("--seed", type=int, default=0, help="of every training")
    return arguments.parse_args()


def _options(arguments: Namespace, log: EventLog) -> Options:
    preset = replace(QUICK if arguments.quick else preset_for(log), seed=arguments.seed)
    if arguments.examples is not None:
        preset = replace(preset, most_examples=arguments.examples)
    if arguments.quick:
        return Options(preset, most_tested=2_000, rounds=3, requests=50)
    return Options(preset)


def measure(log: EventLog, options: Options, reporter: Reporter) -> dict[str, Any]:
    """All figures of a log."""
    preset = options.preset
    graph, text = embeddings_alone(log, preset, reporter)
    records = record(log, graph, text, preset, options.most_tested, reporter)
    scored = {
        name: train_variant(choice.words, Variant(choice), records, text, preset, reporter)
        for name, choice in CHOICES.items()
    }
    by_inputs = {
        name: scored["shipped"]
        if inputs == ALL_INPUTS
        else train_variant(inputs.words, Variant(inputs=inputs), records, text, preset, reporter)
        for name, inputs in INPUTS.items()
    }
    last_layer = _of_last_layer(log, options, reporter)
    by_graph = {"mean": scored["shipped"], "last": last_layer}
    test = _Test.of(log, records)
    return {
        **log_figures(log),
        "scored": len(test.labels),
        "trained_on": int(sum(len(one.request.labels) for one in records.train)),
        "exit_layers": list(preset.exits.exit_layers),
        "evidence": test.rows(scored, EVIDENCE_REFERENCE),
        "graph_evidence": {
            name: test.difference(scored[one], scored[other]) for name, (one, other) in COMPARED.items()
        },
        "inputs": test.rows(by_inputs, "all"),
        "graph": test.rows(by_graph, "mean"),
        "exits": {name: _exits(by_inputs[name], preset, test) for name in EXITS_OF},
        "retrieval_us": _times(log, graph, text, options, reporter),
    }


def _of_last_layer(log: EventLog, options: Options, reporter: Reporter) -> Answers:
    """The model as shipped on a graph that is trained, and read, without the mean over layers."""
    preset = replace(options.preset, graph=replace(options.preset.graph, average=False))
    graph, text = embeddings_alone(log, preset, reporter)
    records = record(log, graph, text, preset, options.most_tested, reporter)
    return train_variant("last layer of the graph", Variant(), records, text, preset, reporter)


@dataclass(frozen=True, slots=True)
class _Test:
    """The events that are scored."""

    labels: np.ndarray  # (candidates,)
    users: list[str]

    @classmethod
    def of(cls, log: EventLog, records: Records) -> _Test:
        events = request_events(records.last_tenth)
        labels = np.concatenate([one.request.labels for one in records.last_tenth])
        return cls(labels, [log.interactions[event].user_id for event in events])

    def rows(self, scored: Mapping[str, Answers], reference: str) -> dict[str, dict[str, Any]]:
        """AUC of each head of each variant, and at full depth what it differs from the reference."""
        return {
            name: {
                "auc": [auc(self.labels, answers.last_tenth.logits[:, head]) for head in _heads(answers)],
                "minus_reference": self.difference(answers, scored[reference]),
                "tokens": answers.tokens,
            }
            for name, answers in scored.items()
        }

    def difference(self, one: Answers, other: Answers) -> dict[str, float]:
        """Of full depths."""
        scores = one.last_tenth.logits[:, -1], other.last_tenth.logits[:, -1]
        return asdict(auc_difference(self.labels, *scores, self.users))


def _heads(answers: Answers) -> range:
    return range(answers.last_tenth.logits.shape[1])


def _exits(answers: Answers, preset: Preset, test: _Test) -> dict[str, dict[str, Any]]:
    """Both criteria with the same promise, each at the threshold that was chosen for it."""
    layers, tested = preset.exits.exit_layers, answers.last_tenth
    rows: dict[str, dict[str, Any]] = {}
    for criterion in ("calibrated", "ratio"):
        promise = replace(preset.calibration, criterion=criterion)
        calibration = calibrate(answers.to_fit, answers.to_test, layers, promise)
        ctrs = np.stack([calibration.ctr(head, tested.logits[:, head]) for head in _heads(answers)], axis=1)
        heads = exit_heads(confidences(calibration, tested.logits), calibration.base_threshold)
        served = answers_at(ctrs, heads)
        rows[criterion] = {
            "auc": auc(test.labels, served),
            "log_loss": log_loss(test.labels, served),
            "token_layer_share": tested.costs.share(layers, heads),
            "minus_full_depth": asdict(auc_difference(test.labels, served, ctrs[:, -1], test.users)),
        }
    return rows


def _times(log: EventLog, graph: GraphBase, text: Text, options: Options, reporter: Reporter) -> dict[str, float]:
    limits = options.preset.limits
    with reporter.step("time of retrieval", len(SOURCES)) as advance:
        replay = Replay(log.items, bundled_base(graph, text), text, limits)
        replay.advance(log.interactions)
        times = retrieval_times(log, replay, limits, options.requests, options.rounds)
        advance(len(SOURCES))
    return times


if __name__ == "__main__":
    main()
