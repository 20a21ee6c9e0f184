"""Words that train stand in the table's place while it is frozen."""

import numpy as np
import pytest
import torch
from torch import nn

from models.prompt import Prompt
from models.token_sequence import TokenSequence
from training.replay import Example
from training.words_in_use import WordsInUse, words_in_use

VOCABULARY, HIDDEN = 12, 3
TRAINED = np.array([2, 5, 7])


@pytest.fixture
def table():
    """Embeddings at random."""
    torch.manual_seed(0)
    return nn.Embedding(VOCABULARY, HIDDEN)


def test_all_words_have_the_embeddings_of_the_table(table):
    """Those that train and those that don't, in any shape."""
    ids = torch.arange(VOCABULARY).view(3, 4)
    assert torch.equal(WordsInUse(table, TRAINED)(ids), table(ids))


def test_a_step_changes_the_words_that_train_and_merging_puts_them_into_the_table(table):
    """By as much as a step on the whole table would; a word that is there but does not train stays."""
    before, ids = table.weight.detach().clone(), torch.tensor([5, 7, 7, 3])
    table(ids).square().sum().backward()
    expected, table.weight.grad = table.weight.grad.clone(), None
    words = WordsInUse(table, TRAINED)
    words(ids).square().sum().backward()
    assert [name for name, part in words.named_parameters() if part.requires_grad] == ["weight"]
    with torch.no_grad():
        words.weight -= words.weight.grad
    merged = words.merged()
    assert merged is table
    assert torch.equal(merged.weight[[5, 7]], (before - expected)[[5, 7]])
    others = [word for word in range(VOCABULARY) if word not in (5, 7)]
    assert torch.equal(merged.weight[others], before[others])


def test_words_of_examples_are_those_of_prefix_and_suffixes():
    """Summed ones too, each once."""
    prompt = Prompt(tokens([3, 9]), [tokens([4, 9]), tokens([0], added=[11, 3])])
    example = Example(prompt, np.zeros(2, np.float32), np.arange(2))
    assert words_in_use([example, example]).tolist() == [0, 3, 4, 9, 11]


def tokens(words, added=()):
    """Words, and those that are summed into the first token."""
    soft = np.zeros(0, np.int32), np.zeros(0, np.int8), np.zeros((0, 1), np.float32)
    summed = np.array(added, np.int32), np.zeros(len(added), np.int32)
    return TokenSequence(np.array(words, np.int32), *soft, *summed)
