"""The contestants of `benchmarks.engine`: what a user would write with transformers, ONNX Runtime, and this engine.

Each takes the model over that it is given; llama.cpp is in `benchmarks.engine_llama`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.engine_inputs import Floats, padded_rows, wide, without_layers
from models.backbone import as_transformers
from models.calibration import ExitCalibration
from models.exit_model import ExitModel
from models.prompt import Prompt
from worker.budget.controller import FixedThreshold
from worker.engine.engine import ScoringEngine
from worker.engine.scoring_job import ScoringJob
from worker.engine.settings import EngineSettings

FULL_DEPTH: Final = 2.0
"""An exit threshold that no confidence reaches."""


class Contestant(Protocol):
    """Scores requests; construction and preparation are not timed."""

    def score(self, prompts: Sequence[Prompt]) -> Floats:
        """CTRs of all candidates, in order of prompts, then candidates."""


class Naive:
    """transformers at full depth: a request is a batch, every candidate a padded row of its own.

    Args:
        model: a bundle's.
        calibration: what its logits mean.
        dtype: format of the layers' weights and of what passes them.
    """

    def __init__(self, model: ExitModel, calibration: ExitCalibration, dtype: torch.dtype = torch.float32) -> None:
        self._backbone = as_transformers(model.backbone)
        self._backbone.norm = nn.Identity()  # the final head has its own
        for parameter in self._backbone.parameters():
            parameter.data = parameter.data.to(dtype)  # the angles of positions, which are none, keep their digits
        self._model = without_layers(model)
        self._dtype = dtype
        self._calibration = calibration

    @torch.inference_mode()
    def score(self, prompts: Sequence[Prompt]) -> Floats:
        """See `Contestant`."""
        logits = np.concatenate([self._request(prompt).numpy() + wide(self._model, prompt) for prompt in prompts])
        return self._calibration.ctr(self._calibration.heads - 1, logits)

    def _request(self, prompt: Prompt) -> Tensor:  # (candidates,)
        vectors, visible = padded_rows(self._model, prompt)
        hidden = self._backbone(
            inputs_embeds=vectors.to(self._dtype), attention_mask=visible, use_cache=False
        ).last_hidden_state
        answers = hidden[torch.arange(len(hidden)), visible.sum(dim=1) - 1]
        logits: Tensor = self._model.heads[-1](answers)
        return logits


class OnnxInt8:
    """The same rows through ONNX Runtime, dynamically quantised to int8.

    Args:
        model: embeds prompts; its layers are not used.
        calibration: what its logits mean.
        file: its layers and its final head, as `export_int8` writes them.
        threads: of the computation.
    """

    def __init__(self, model: ExitModel, calibration: ExitCalibration, file: Path, threads: int) -> None:
        import onnxruntime  # noqa: PLC0415 - an optional extra, as its exporter below

        self._model = without_layers(model)
        self._calibration = calibration
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Its threads may spin while it runs, but not on into another contestant's turn.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session: Any = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

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

    def __init__(
        self, model: ExitModel, calibration: ExitCalibration, settings: EngineSettings, threshold: float
    ) -> None:
        # Some requests are scored in several rounds: cached prefixes would flatter.
        settings = settings.model_copy(update={"prefix_cache_bytes": 0})
        self.engine: ScoringEngine[ScoringJob] = ScoringEngine(
            model, calibration, settings, FixedThreshold(threshold), owns_model=True
        )
        self.engine.warm_up()

    def score(self, prompts: Sequence[Prompt]) -> Floats:
        """See `Contestant`."""
        return np.concatenate([job.ctr for job in self.results(prompts)])

    def results(self, prompts: Sequence[Prompt]) -> list[ScoringJob]:
        """The engine's answers, in the order of the prompts."""
        return self.engine.score(prompts)


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


def export_int8(model: ExitModel, folder: Path) -> Path:
    """Writes layers and final head into the folder, for `OnnxInt8`."""
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
