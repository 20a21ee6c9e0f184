"""Runs one stage for a batch of parts: pack, layers, head. Executes what the scheduler has decided."""

from __future__ import annotations

import time
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.exit_model import ExitModel
from worker.engine.part import Part
from worker.engine.prefill import PrefixChunk, gap_due
from worker.engine.prefix import KnownPrefix, Stretch, stretches_of
from worker.engine.settings import EngineSettings
from worker.engine.transformer.layers import exit_keys, run_exit_layer, run_layer
from worker.engine.transformer.linear import ANSWER_STEP, ROW_STEP, SLICE_SIZES, rounded
from worker.engine.transformer.packing import Packed, Packer
from worker.engine.transformer.prefix_cache import PrefixCache
from worker.engine.transformer.prefix_keys import PrefixKeys
from worker.engine.transformer.sequence_attention import on_device
from worker.engine.transformer.tree_attention import KeyValue
from worker.engine.transformer.weights import Stage, pack_weights, rotation_table


class StageRunner:
    """Holds the model's weights and runs its stages.

    Args:
        model: the exit model; moved to the settings' device and number format.
        settings: precision, device, size of the prefix cache.
        owns_model: the model's layers are released once they are packed: nobody else computes with them.
    """

    def __init__(self, model: ExitModel, settings: EngineSettings, *, owns_model: bool = False) -> None:
        self.device = torch.device(settings.device)
        self._dtype = torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
        self._model = model.to(self.device).eval()
        with torch.inference_mode():
            for parameter in model.backbone.parameters():
                # The rotary frequencies, which are no parameters, stay in float32. So do soft tokens and heads, whose
                # products are small and come in any number of rows.
                parameter.data = parameter.data.to(self._dtype)
            self._weights = pack_weights(self._model, settings.precision, release=owns_model)
            if owns_model:
                # What is left of it (the table of words) may be a view of the whole file, mapped into memory.
                for parameter in model.parameters():
                    parameter.data = parameter.data.clone()
        self._wide = None if model.wide is None else _Wide(model.wide)
        self._rotation = rotation_table(self._weights.rotary, 0, self.device)
        self._pack = Packer(self.device)
        self.cache = PrefixCache(settings.prefix_cache_bytes)
        self.model_s = 0.0
        """Seconds spent so far in embedding, layers and heads, without packing but for attention's layout."""

    @property
    def max_positions(self) -> int:
        """Longest prompt, prefix and one suffix, that can be scored."""
        return self._weights.shape.max_positions

    @property
    def soft_width(self) -> int:
        """Columns of a soft token's numbers."""
        return self._model.config.soft_width

    @property
    def full_layers(self) -> tuple[int, ...]:
        """How many layers every stage runs for all its tokens; one more is run for the answers alone."""
        return tuple(len(stage.layers) for stage in self._weights.stages)

    def forget_plans(self) -> None:
        """For made-up prompts, which are all alike: known plans would make stages look cheaper than they are."""
        self._pack.forget()

    @contextmanager
    def without_prefix_cache(self) -> Iterator[None]:
        """For made-up prompts, which begin alike: the cache would make stages look cheaper than they are."""
        cache, self.cache = self.cache, PrefixCache(0)
        try:
            yield
        finally:
            self.cache = cache

    @torch.inference_mode()
    def run(self, parts: Sequence[Part]) -> tuple[NDArray[np.float64], list[int]]:
        """Takes parts of equal depth, each with a candidate left, through their next stage. If it raises, the parts can
        go through it again, together or apart.

        Returns:
            (candidates,) raw logits in the order of the parts and their candidates, and each part's number of computed
            tokens.
        """
        stage = parts[0].depth
        if stage == 0:
            for part in parts:
                self.look_up(part)
        before = [self._fill_gaps(part) for part in parts]
        packed = self._pack(parts)
        prefixes = PrefixKeys(parts, packed, self._weights.stages[stage].first_layer)
        gathered = None if stage == 0 else _gather(parts, packed)
        started_s = time.perf_counter()
        hidden = self._embed(parts, packed) if gathered is None else gathered
        answers, hidden = self._run_layers(self._weights.stages[stage], hidden, packed, prefixes)
        deep = np.asarray(self._weights.stages[stage].head(answers.float()).double().cpu().numpy())
        if stage == 0 and self._wide is not None:
            for part in parts:
                part.wide = self._wide.logits(part)
        logits = deep + np.concatenate([part.wide for part in parts])
        self.model_s += time.perf_counter() - started_s
        self._commit(parts, packed, hidden, prefixes, logits)
        return logits, [span.end - span.start + tokens for span, tokens in zip(packed.spans, before, strict=True)]

    def look_up(self, part: Part) -> None:
        """Finds what is known of a part's prefix, when it runs. Until then all of its rows are counted: a prefix may be
        known to few layers only, and a cost foretold too low makes answers late.
        """
        if not self.cache.enabled:
            return
        is_first = not part.stretches[0].key
        if is_first:
            part.stretches = stretches_of(part.prefix)
        self.cache.look_up(part.stretches)
        if is_first:
            self.cache.count(part.stretches)
        part.count_tokens()

    @torch.inference_mode()
    def fill(self, part: Part, stretches: Sequence[Stretch]) -> int:
        """Takes some neighbouring stretches of a part's prefix through its next stage, without the candidates: the
        stage then has less to compute. If it raises, nothing has changed.

        Returns:
            Tokens computed.
        """
        stage = self._weights.stages[part.depth]
        for stretch in stretches:
            if stretch.known is None:
                stretch.known = _known_to(part.depth, stage.first_layer)
        chunk = PrefixChunk(part, stretches)
        packed = self._pack([chunk])
        prefixes = PrefixKeys([chunk], packed, stage.first_layer)
        started_s = time.perf_counter()
        hidden = self._embed([chunk], packed) if part.depth == 0 else _gather([chunk], packed)
        hidden = self._run_full_layers(stage, hidden, packed, prefixes)
        prefixes.of_layer(*exit_keys(hidden, stage.exit_layer, self._weights.shape, self._rotations(packed), packed))
        copies = [hidden[rows].clone() for _, rows in prefixes.computed[0]]
        self.model_s += time.perf_counter() - started_s
        for stretch, layers, rows in reversed(list(zip(stretches, prefixes.recorded[0], copies, strict=True))):
            self._remember(stretch, part.depth, layers, rows)
        part.count_tokens()
        return packed.rows

    def _fill_gaps(self, part: Part) -> int:
        """Leaves a part that computes neighbouring stretches only; tokens computed for that."""
        tokens = 0
        while gap := gap_due(part):
            tokens += self.fill(part, gap)
        return tokens

    @torch.inference_mode()
    def keep(self, part: Part, staying: NDArray[np.bool_]) -> None:
        """Drops the rows of all other candidates, which are not computed any more."""
        rows = part.keep(staying)
        if part.suffix_hidden is not None:
            part.suffix_hidden = part.suffix_hidden.index_select(0, self._tensor(rows))

    @torch.inference_mode()
    def build_kernels(self, most_rows: int, limit_s: float) -> None:
        """Multiplies zeros in every number of rows that can occur: on a CPU the first time is several times as slow.

        A GPU's kernels take any number of rows and need no building.

        Args:
            most_rows: the largest batch.
            limit_s: seconds after which it stops: a model so large spends little of its time on building.
        """
        if self.device.type != "cpu":
            return
        exit_layer, shape = self._weights.stages[0].exit_layer, self._weights.shape
        layer, give_up_s = exit_layer.rest, time.perf_counter() + limit_s
        most_answers = rounded(most_rows // _TOKENS_PER_ANSWER, ANSWER_STEP)
        for rows in reversed(SLICE_SIZES):
            if rows > rounded(most_rows, ROW_STEP) or time.perf_counter() > give_up_s:
                return
            hidden = torch.zeros(rows, shape.hidden, dtype=self._dtype, device=self.device)
            if rows <= most_answers:
                exit_layer.query(hidden)
            if rows >= ROW_STEP:
                layer.qkv(hidden)
                exit_layer.key_value(hidden)
            layer.output(hidden.new_zeros(rows, shape.query_width))
            layer.down(layer.gated(hidden))

    def _embed(self, parts: Sequence[Part | PrefixChunk], packed: Packed) -> Tensor:  # (padded_rows, hidden)
        sequences = [sequence for part in parts for sequence in part.token_sequences()]
        starts = np.cumsum([0, *(len(sequence.token_ids) for sequence in sequences)])
        token_ids = np.zeros(packed.padded_rows, np.int64)
        token_ids[: packed.rows] = np.concatenate([sequence.token_ids for sequence in sequences])
        placed = list(zip(sequences, starts.tolist(), strict=False))
        soft_index = np.concatenate([sequence.soft_positions + start for sequence, start in placed])
        added_index = np.concatenate([sequence.added_positions + start for sequence, start in placed])
        return self._model.embed(
            self._tensor(token_ids),
            self._tensor(soft_index.astype(np.int64)),
            self._tensor(np.concatenate([sequence.soft_kinds for sequence in sequences])),
            self._tensor(np.concatenate([sequence.soft_values for sequence in sequences])),
            self._tensor(np.concatenate([sequence.added_ids for sequence in sequences]).astype(np.int64)),
            self._tensor(added_index.astype(np.int64)),
        )

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        return on_device(array, self.device)

    def _run_layers(self, stage: Stage, hidden: Tensor, packed: Packed, prefixes: PrefixKeys) -> tuple[Tensor, Tensor]:
        """The answers' rows (suffixes, hidden) behind the stage, and all rows as its last layer has read them."""
        hidden = self._run_full_layers(stage, hidden, packed, prefixes)
        shape, rotation = self._weights.shape, self._rotations(packed)
        return run_exit_layer(hidden, stage.exit_layer, shape, rotation, prefixes.of_layer, packed), hidden

    def _run_full_layers(self, stage: Stage, hidden: Tensor, packed: Packed, prefixes: PrefixKeys) -> Tensor:
        rotation = self._rotations(packed)
        for layer in stage.layers:
            hidden = run_layer(hidden, layer, self._weights.shape, rotation, prefixes.of_layer, packed)
        return hidden

    def _rotations(self, packed: Packed) -> Tensor:  # (padded_rows, 1, head_dim / 2)
        if packed.longest > len(self._rotation):
            size = min(max(2 * packed.longest, 1024), self.max_positions)
            self._rotation = rotation_table(self._weights.rotary, size, self.device)
        return self._rotation[packed.positions][:, None]

    def _commit(
        self,
        parts: Sequence[Part],
        packed: Packed,
        hidden: Tensor,
        prefixes: PrefixKeys,
        logits: NDArray[np.float64],
    ) -> None:
        """Gives the parts their rows and the cache the prefixes. What can fail comes before anything is changed."""
        copies = [
            [hidden[rows].clone() if stretch.known is not None else None for stretch, rows in computed]
            for computed in prefixes.computed
        ]
        for index, (part, span) in enumerate(zip(parts, packed.spans, strict=True)):
            computed = dict(prefixes.computed[index])
            for stretch in part.stretches:
                stretch.hidden = hidden[computed[stretch]] if stretch in computed else None
            part.suffix_hidden = hidden[span.middle : span.end]
            if not np.isfinite(logits[span.answers]).all():
                self._distrust(part.stretches, computed)
                continue
            # The shared words last, as in `PrefixCache.look_up`.
            for number, stretch in reversed(list(enumerate(computed))):
                self._remember(stretch, part.depth, prefixes.recorded[index][number], copies[index][number])

    def _remember(self, stretch: Stretch, stage: int, layers: Sequence[KeyValue], hidden: Tensor | None) -> None:
        """Takes what a stage has computed for a stretch into the cache, unless another part of the batch has."""
        if stretch.known is None or hidden is None or stretch.is_known(stage):
            return
        stretch.known.extend(layers, hidden)
        if stretch.key:
            self.cache.keep(stretch.key, stretch.known)

    def _distrust(self, stretches: Sequence[Stretch], computed: Container[Stretch]) -> None:
        """A logit that is no number may come from the prefix: later requests compute it anew."""
        for stretch in stretches:
            self.cache.forget(stretch.key)
            if stretch in computed:
                stretch.known, stretch.key = None, b""  # from here on the part has it for itself


class _Wide:
    """The model's regression on the statistics, on the CPU whatever the layers run on: it costs nothing there."""

    def __init__(self, linear: nn.Linear) -> None:
        self._weight = linear.weight.detach()[0].double().cpu().numpy().copy()
        self._bias = float(linear.bias.detach())

    def logits(self, part: Part) -> NDArray[np.float64]:
        """(n,) of the candidates that are left.

        Raises:
            ValueError: the part has no prompt yet.
        """
        if part.prompt is None:
            raise ValueError("a part that waits has no prompt")
        statistics = part.prompt.statistics(len(self._weight))[part.candidates]
        with np.errstate(invalid="ignore", over="ignore"):  # what is no number is found behind the head
            return np.asarray(statistics @ self._weight + self._bias)


def _known_to(stage: int, first_layer: int) -> KnownPrefix:
    """For a stretch that one part has for itself: nothing before this stage, whose first layer has been begun."""
    nothing = torch.zeros(0), torch.zeros(0)
    return KnownPrefix(layers=[nothing] * (first_layer + 1 if stage else 0), stages=stage)


def _gather(parts: Sequence[Part | PrefixChunk], packed: Packed) -> Tensor:  # (padded_rows, hidden)
    """The parts' rows as one matrix: parts that come from different batches merge here."""
    rows = [rows for part in parts for rows in part.hidden_rows()]
    idle = rows[0].new_zeros(packed.padded_rows - packed.rows, rows[0].shape[1])
    return torch.cat([*rows, idle])


_TOKENS_PER_ANSWER: Final = 16
"""A suffix is assumed to have at least so many tokens. With shorter ones a batch may hold more answers than kernels
were built for, which costs the first such batch a little time.
"""
