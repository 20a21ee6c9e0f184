"""`exitstream bundle` from the command line, on a store in a folder."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bundle_forgery import sign
from typer.testing import CliRunner

from cli.main import app, run
from models.bundle import Bundle
from models.bundle_manifest import GOLDEN
from models.bundle_store import current_version
from models.bundle_store.store import PROMOTIONS, VERSIONS
from models.graph_base import GraphBase
from models.prompt_template import WORDS
from models.text import Text
from runtime.errors import BundleError


@pytest.fixture
def store(tmp_path):
    """Where a store will be."""
    return str(tmp_path / "store")


@pytest.fixture(scope="module")
def other_folder(tiny_bundle, tmp_path_factory):
    """Another bundle: other calibration, a shorter prompt, one item less and one more, with figures."""
    graph = tiny_bundle.graph
    renamed = GraphBase(
        graph.alphas, [*graph.item_ids[:-1], "new"], graph.item_embeddings, graph.word_vectors, graph.word_bias
    )
    other = replace(
        tiny_bundle,
        graph=renamed,
        calibration=replace(tiny_bundle.calibration, slopes=tiny_bundle.calibration.slopes * 1.5),
        limits=replace(tiny_bundle.limits, recent_items=3),
        dataset="a [bold]shop[/]\x1b[31m",
        metrics={"auc": 0.71234, "log_loss": 0.4321, "auc_layer_1": 0.65},
    )
    folder = tmp_path_factory.mktemp("other") / "bundle"
    other.save(folder)
    return folder


def exitstream(*arguments):
    """What a command prints.

    Raises:
        BundleError: what `exitstream` would print as its one line.
    """
    result = CliRunner().invoke(app, ["bundle", *map(str, arguments)], env={"COLUMNS": "200"})
    if result.exception is not None:
        if isinstance(result.exception, BundleError):
            result.exception.printed = result.output
        raise result.exception
    return result.output


def put(folder, store):
    """Put a bundle; its version."""
    return re.search(r"version ([0-9a-f]{12}) is in", exitstream("put", folder, store))[1]


def test_from_the_first_put_to_a_rollback(store, tiny_bundle_folder, other_folder):
    """Each command says what it did, and the list shows which version is current and how it came to be."""
    first, second = put(tiny_bundle_folder, store), put(other_folder, store)
    assert "nothing was changed" in exitstream("put", other_folder, store)
    assert "before: none" in exitstream("promote", store, first, "--by", "ann")

    with pytest.raises(BundleError, match="golden scores"):  # its calibration was changed behind its golden scores
        exitstream("promote", store, second)
    assert current_version(store) == first
    assert f"{second} is current again; before: {first}" in exitstream("rollback", store, "--to", second, "--by", "bob")

    lines = exitstream("list", store).splitlines()
    [row] = [line for line in lines if second in line and "MB" in line]
    assert re.search(rf"\* *│ *{second}", row)
    assert "0.7123" in row
    assert "0.4321" in row
    assert re.search(rf"promotion of {first} by ann", "\n".join(lines))
    assert re.search(rf"rollback of {second} by bob", "\n".join(lines))


def test_the_list_as_json_holds_all_of_it(store, tiny_bundle_folder, other_folder):
    """Versions with figures, and every promotion."""
    first = put(tiny_bundle_folder, store)
    second = put(other_folder, store)
    exitstream("promote", store, first)

    told = json.loads(exitstream("list", store, "--json"))

    versions = {one["version"]: one for one in told["versions"]}
    assert (versions[first]["current"], versions[second]["current"]) == (True, False)
    assert versions[second]["metrics"]["auc"] == 0.71234
    assert [one["version"] for one in told["promotions"]] == [first]
    assert "@" in told["promotions"][0]["by"]


def test_rolling_back_returns_to_the_version_before(store, tiny_bundle, tiny_bundle_folder, tmp_path):
    """Without a name for it."""
    replace(tiny_bundle, calibration=replace(tiny_bundle.calibration, tolerance=0.3)).save(tmp_path / "next")
    first, second = put(tiny_bundle_folder, store), put(tmp_path / "next", store)
    exitstream("promote", store, first)
    exitstream("promote", store, second)
    assert current_version(store) == second

    exitstream("rollback", store)

    assert current_version(store) == first
    with pytest.raises(BundleError, match="--to"):
        exitstream("rollback", store)


def test_promoting_the_current_version_changes_nothing(store, tiny_bundle_folder):
    """The history gets no second entry."""
    version = put(tiny_bundle_folder, store)
    exitstream("promote", store, version)

    assert "current already" in exitstream("promote", store, version)
    assert len(json.loads(exitstream("list", store, "--json"))["promotions"]) == 1


def test_inspect_tells_everything_and_that_it_is_sound(tiny_bundle, tiny_bundle_folder):
    """Base, heads, calibration, graph, files; hashes and golden scores are right."""
    told = exitstream("inspect", tiny_bundle_folder)

    for expected in (
        tiny_bundle.version,
        "llama, 4 layers of 32",
        "20 items with trained embeddings of 8",
        "threshold 0.900 without load",
        "recent_items 16",
        "backbone/model.safetensors",
        "hash ok",
        f"golden scores: ok, {len(tiny_bundle.golden)} requests",
    ):
        assert expected in told


def test_inspect_takes_a_store_and_a_version_of_it(store, tiny_bundle_folder, other_folder):
    """The current one, or the one that is named."""
    first, second = put(tiny_bundle_folder, store), put(other_folder, store)
    exitstream("promote", store, first)
    assert json.loads(exitstream("inspect", store, "--json"))["version"] == first

    with pytest.raises(BundleError, match="golden scores") as raised:
        exitstream("inspect", f"{store}@{second}", "--json")

    facts = json.loads(raised.value.printed)
    assert facts["version"] == second
    assert "golden scores" in facts["golden_trouble"]
    assert [head["auc"] for head in facts["heads"]] == [0.65, None, None]


def test_names_from_outside_are_not_obeyed(other_folder):
    """A data set's name may hold markup and control characters; they are shown as what they are."""
    with pytest.raises(BundleError) as raised:
        exitstream("inspect", other_folder)
    assert "a [bold]shop[/]\\x1b[31m" in raised.value.printed
    assert "\x1b" not in raised.value.printed


def test_a_bundle_without_golden_requests_is_told_as_such(tiny_bundle_folder, store, tmp_path):
    """Of an earlier release: inspected and promoted, with a word about it."""
    folder = shutil.copytree(tiny_bundle_folder, tmp_path / "old")
    (folder / GOLDEN).unlink()
    sign(folder)
    assert "golden scores: none" in exitstream("inspect", folder)
    assert "no golden requests" in exitstream("promote", store, put(folder, store))


def test_diff_tells_what_changed(tiny_bundle_folder, other_folder):
    """Settings, calibration, items, the graph part, and by how much scores move."""
    told = exitstream("diff", tiny_bundle_folder, other_folder)

    assert re.search(r"prompt: recent_items *│ *16 *│ *3 ", told)
    assert "calibration after layer 1" in told
    assert "graph part: not the same" in told
    assert "items added: 1 (new)" in told
    assert "items gone: 1 (i19)" in told
    assert "full depth" in told
    assert "prompt: past_items" not in told


def test_diff_tells_other_words(tiny_bundle, tiny_bundle_folder, tmp_path):
    """Text by text; line breaks do not break the table."""
    replace(tiny_bundle, template=WORDS).save(tmp_path / "words")
    told = exitstream("diff", tiny_bundle_folder, tmp_path / "words")
    assert re.search(r"prompt words: positive *│ *yes *│ *liked ", told)
    assert re.search(r"prompt words: history *│ *history *│ *History:\\n ", told)
    assert "prompt: words, " in exitstream("inspect", tmp_path / "words")


def test_diff_measures_how_far_scores_are_apart(tiny_bundle, tiny_bundle_folder, tmp_path):
    """Only the last head was changed: the other scores are the same, and so is the graph part."""
    folder = tmp_path / "changed"
    bundle = Bundle.load(tiny_bundle_folder)
    with torch.no_grad():
        bundle.model.heads[-1].linear.bias += 1.0
    bundle.save(folder)

    found = json.loads(exitstream("diff", tiny_bundle_folder, folder, "--json"))

    assert found["same_graph_part"] is True
    assert (found["items_added"], found["items_gone"]) == ([], [])
    largest = {one["scored_by"]: one["largest"] for one in found["golden"]}
    assert largest.pop("full depth") > 0.1
    assert set(largest.values()) == {0.0}
    assert len(largest) == tiny_bundle.calibration.heads


def test_diff_sees_a_tokenizer_alone(tiny_bundle, tiny_bundle_folder, tmp_path):
    """The same arrays with other tokens give the texts of new items other embeddings."""
    text = Text.train(["shoes and trousers"], tiny_bundle.text.vocabulary_size)
    replace(tiny_bundle, text=text, golden=()).save(tmp_path / "other")
    assert json.loads(exitstream("diff", tiny_bundle_folder, tmp_path / "other", "--json"))["same_graph_part"] is False


def test_diff_of_a_bundle_with_itself_finds_nothing(tiny_bundle_folder):
    """It says that both are the same."""
    told = exitstream("diff", tiny_bundle_folder, tiny_bundle_folder)
    assert "the same scores" in told
    assert "graph part: the same" in told


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("list",), "no bundle store at"),
        (("promote", "0" * 12), "no bundle store at"),
        (("rollback",), "no bundle store at"),
        (("inspect",), "exitstream train"),
    ],
)
def test_a_store_that_is_not_there_is_told(store, command, expected):
    """With what to do, and nothing is made."""
    name, *rest = command
    with pytest.raises(BundleError, match=expected):
        exitstream(name, store, *rest)


def test_damage_in_the_store_stops_a_promotion(store, tiny_bundle_folder):
    """A changed file is named; nothing becomes current."""
    version = put(tiny_bundle_folder, store)
    path = Path(store, VERSIONS, version, "items.json")
    path.write_bytes(path.read_bytes() + b" ")

    with pytest.raises(BundleError, match=r"items\.json"):
        exitstream("promote", store, version)


def test_a_damaged_version_is_listed_with_what_is_wrong(store, tiny_bundle_folder):
    """And the rest of the list is there."""
    version = put(tiny_bundle_folder, store)
    Path(store, VERSIONS, version, "bundle.json").write_text("{")
    told = exitstream("list", store)
    assert "damaged" in told
    assert "is corrupt" in told


def test_a_mistake_is_one_line_and_status_1(store, tiny_bundle_folder, monkeypatch, capsys):
    """As with every command."""
    put(tiny_bundle_folder, store)
    monkeypatch.setattr(sys, "argv", ["exitstream", "bundle", "promote", store, "latest"])
    with pytest.raises(SystemExit) as status:
        run()
    assert status.value.code == 1
    line = capsys.readouterr().err
    assert line.startswith("exitstream: ")
    assert "no complete version 'latest'" in line
    assert line.count("\n") == 1
    assert not Path(store, PROMOTIONS).exists()
