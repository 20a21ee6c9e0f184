"""The contestants of `benchmarks.engine`: what a user would write with transformers, ONNX Runtime, and this engine."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.backbone import as_transformers
from models.bundle import Bundle
from models.exit_model import ExitModel
from models.prompt import Prompt
from models.prompt_batch import collate
from worker.budget.controller import FixedThreshold
from worker.engine.engine import ScoringEngine
from worker.engine.scoring_job import ScoringJob
from worker.engine.settings import EngineSettings

FULL_DEPTH: Final = 2.0
"""An exit threshold that no confidence reaches."""

Floats = NDArray[np.float64]


class Contestant(Protocol):
    """Scores requests; construction and preparation are not timed."""

    def score(self, prompts: Sequence[Prompt]) -> Floats:
        """CTRs of all candidates, in order of prompts, then candidates."""


class Naive:
    """transformers at full depth: a request is a batch, every candidate a padded row of its own."""

    def __init__(self, bundle: Bundle) -> None:
        self._model = bundle.model
        self._backbone = as_transformers(copy.deepcopy(bundle.model.backbone))
        self._backbone.norm = nn.Identity()  # the final head has its own
        self._calibration = bundle.calibration

    @torch.inference_mode()
    def score(self, prompts: Sequence[Prompt]) -> Floats:
        """See `Contestant`."""
        logits = np.concatenate([self._request(prompt).numpy() + wide(self._model, prompt) for prompt in prompts])
        return self._calibration.ctr(self._calibration.heads - 1, logits)

    def _request(self, prompt: Prompt) -> Tensor:  # (candidates,)
        vectors, visible = padded_rows(self._model, prompt)
        hidden = self._backbone(inputs_embeds=vectors, attention_mask=visible, use_cache=False).last_hidden_state
        answers = hidden[torch.arange(len(hidden)), visible.sum(dim=1) - 1]
        logits: Tensor = self._model.heads[-1](answers)
        return logits


class OnnxInt8:
    """The same rows through ONNX Runtime, dynamically quantised to int8."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        import onnxruntime  # noqa: PLC0415 - an optional extra, as its exporter below

        self._model = copy.deepcopy(bundle.model)
        self._calibration = bundle.calibration
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Its threads may spin while it runs, but not on into another contestant's turn.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        with tempfile.TemporaryDirectory() as folder:
            path = _export_int8(self._model, Path(folder))
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    @torch.inference_mode()
    def score(self, prompts: Sequence[Prompt]) -> Floats:
        """See `Contestant`."""
        logits = np.concatenate([self._request(prompt) + wide(self._model, prompt) for prompt in prompts])
        return self._calibration.ctr(self._calibration.heads - 1, logits)

    def _request(self, prompt: Prompt) -> NDArray[np.float32]:  # (candidates,)
        vectors, visible = padded_rows(self._model, prompt)
        answers: list[NDArray[np.float32]] = self._session.run(
            None, {"vectors": vectors.numpy(), "last": (visible.sum(dim=1) - 1).numpy()}
        )
        return answers[0]


class Ours:
    """This engine with all requests in flight at once, at one exit threshold."""

    def __init__(self, bundle: Bundle, settings: EngineSettings, threshold: float) -> None:
        # Some requests are scored in several rounds: cached prefixes would flatter.
        settings = settings.model_copy(update={"prefix_cache_bytes": 0})
        self.engine: ScoringEngine[ScoringJob] = ScoringEngine(
            copy.deepcopy(bundle.model), bundle.calibration, settings, FixedThreshold(threshold)
        )
        self.engine.warm_up()

    def score(self, prompts: Sequence[Prompt]) -> Floats:
        """See `Contestant`."""
        return np.concatenate([job.ctr for job in self.results(prompts)])

    def results(self, prompts: Sequence[Prompt]) -> list[ScoringJob]:
        """The engine's answers, in the order of the prompts."""
        return self.engine.score(prompts)


def padded_rows(model: ExitModel, prompt: Prompt) -> tuple[Tensor, Tensor]:
    """Input vectors (candidates, length, hidden) of prefix plus suffix, and a mask that is 0 on padding."""
    batch = collate([Prompt(prompt.prefix, [suffix]) for suffix in prompt.suffixes])
    vectors = model.embed(batch.token_ids.flatten(), batch.soft_index, batch.soft_kinds, batch.soft_values)
    lengths = torch.from_numpy(len(prompt.prefix) + prompt.suffix_lengths)
    visible = torch.arange(batch.token_ids.shape[1]) < lengths[:, None]
    return vectors.view(*batch.token_ids.shape, -1), visible.long()


@torch.inference_mode()
def wide(model: ExitModel, prompt: Prompt) -> NDArray[np.float32]:
    """What the model's regression on the statistics adds to each candidate's logit (candidates,)."""
    if model.wide is None:
        return np.zeros(len(prompt.suffixes), np.float32)
    statistics = torch.from_numpy(prompt.statistics(model.config.statistics))
    return np.asarray(model.wide(statistics)[:, 0].numpy())


class _Exported(nn.Module):
    """The decoder in plain operations: rows padded after their last token need only the causal mask."""

    def __init__(self, model: ExitModel) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.head = model.heads[-1]

    def forward(self, vectors: Tensor, last: Tensor) -> Tensor:
        """Logits (rows,) of input vectors (rows, length, hidden), read at each row's last token."""
        positions = torch.arange(vectors.shape[1])[None]
        rotation = self.backbone.rotary_emb(vectors, position_ids=positions)
        mask = (positions[0][:, None] >= positions[0])[None, None]
        hidden = vectors
        for layer in self.backbone.layers:
            hidden = layer(hidden, attention_mask=mask, position_ids=positions, position_embeddings=rotation)
        logits: Tensor = self.head(hidden[torch.arange(hidden.shape[0]), last])
        return logits


def _export_int8(model: ExitModel, folder: Path) -> Path:
    import onnx  # noqa: PLC0415
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

    exported = _Exported(copy.deepcopy(model)).eval()
    example = torch.zeros(3, 7, model.backbone.config.hidden_size), torch.full((3,), 6)
    rows, length = torch.export.Dim("rows", min=1), torch.export.Dim("length", min=2)
    program = torch.onnx.export(
        exported,
        example,
        dynamo=True,
        verbose=False,
        input_names=["vectors", "last"],
        dynamic_shapes={"vectors": {0: rows, 1: length}, "last": {0: rows}},
    )
    assert program is not None
    graph = program.model_proto
    del graph.graph.value_info[
        :
    ]  # the exporter leaves shapes of values it has merged away; the quantiser fails on them
    onnx.save(graph, folder / "float32.onnx")
    quantize_dynamic(folder / "float32.onnx", folder / "int8.onnx", weight_type=QuantType.QInt8)
    return folder / "int8.onnx"
