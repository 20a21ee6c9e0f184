"""The benchmark of the graph's training reads LightGCN's files and measures on the part it did not train on."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from benchmarks import graph_quality
from benchmarks.graph_quality import UnreadableSplit, held_out, read_split


@pytest.fixture
def folder(tmp_path):
    """Two circles of users and items; each user misses two items of their circle in the training part."""
    for name, part in (("train.txt", slice(2, None)), ("test.txt", slice(0, 2))):
        lines = []
        for user in range(40):
            circle = np.random.default_rng(user).permutation(np.arange(user % 2, 60, 2))
            lines.append(" ".join(map(str, [user, *circle[part]])))
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_split_is_read_as_two_matrices_of_one_shape(tmp_path):
    """Users without items are lines too, and an item that occurs twice counts once."""
    (tmp_path / "train.txt").write_text("0 3 1 3\n1\n2 0\n")
    (tmp_path / "test.txt").write_text("0 4\n1 \n")
    train, test = read_split(tmp_path)
    np.testing.assert_array_equal(train.toarray(), [[0, 1, 0, 1, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(test.toarray(), [[0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]])


def test_a_bad_line_is_named(tmp_path):
    """The file and the line, so that it can be looked at."""
    (tmp_path / "train.txt").write_text("0 3 1\n1 x\n")
    with pytest.raises(UnreadableSplit, match=r"train\.txt, line 2"):
        read_split(tmp_path)


def test_a_missing_split_ends_with_a_sentence(tmp_path, monkeypatch, capsys):
    """No traceback: what is missing, and what --data takes."""
    monkeypatch.setattr(sys, "argv", ["graph_quality", "--data", str(tmp_path), "--out", str(tmp_path / "o.json")])
    with pytest.raises(SystemExit):
        graph_quality.main()
    assert "train.txt does not exist; --data takes" in capsys.readouterr().err


def test_what_is_held_out_is_not_trained_on(folder):
    """The two parts are the training part, cut in two, about one to three."""
    train, _ = read_split(folder)
    kept, out = held_out(train, seed=0)
    np.testing.assert_array_equal((kept + out).toarray(), train.toarray())
    assert 0.2 < out.nnz / train.nnz < 0.3


@pytest.mark.parametrize("validate", [False, True])
def test_figures_are_written(folder, validate, monkeypatch):
    """Items of a user's own circle are found, in the test part and in one held out; the settings are told."""
    out = folder / "figures.json"
    asked = ["--data", str(folder), "--out", str(out), "--steps", "30", "--learning-rate", "0.01"]
    monkeypatch.setattr(sys, "argv", ["graph_quality", *asked, *(["--validate"] if validate else [])])
    graph_quality.main()
    figures = json.loads(out.read_text())
    assert figures["gowalla_recall_at_20"] > 0.95
    assert figures["gowalla_ndcg_at_20"] > 0.5
    assert figures["steps"] == figures["settings"]["steps"] == 30
    assert figures["settings"]["learning_rate"] == 0.01
    assert figures["validate"] is validate
    assert figures["train_interactions"] == 40 * 28 if not validate else figures["train_interactions"] < 40 * 28
