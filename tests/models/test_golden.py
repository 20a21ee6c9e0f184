"""Golden requests tell whether a bundle gives, here, the scores that it gave when it was saved."""

import copy
import json
import re
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from bundle_forgery import edit_json, sign

from models.bundle import MANIFEST, Bundle
from models.bundle_manifest import GOLDEN, PROMPT
from models.exit_model import ExitModel
from models.features import FIRST_FEATURES
from models.golden_check import check_golden, golden_scores, with_golden
from runtime.errors import BundleError


@pytest.fixture
def folder(tiny_bundle, tmp_path):
    """A bundle of the test's own."""
    tiny_bundle.save(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_loaded_bundle_gives_its_golden_scores(folder):
    """Every request is compared, in float32 to a hundred-thousandth."""
    bundle = Bundle.load(folder)

    assert check_golden(bundle, tolerance=1e-5) == len(bundle.golden) > 1


def test_bfloat16_is_within_the_tolerance(folder):
    """Half the digits of the weights move no score so far that it counts as another."""
    assert check_golden(Bundle.load(folder, torch.bfloat16)) > 0


def test_the_scores_are_one_of_the_graph_and_one_of_each_head(tiny_bundle):
    """Each candidate has them, and they are not all the same: another model would not give them by chance."""
    scores = np.array([candidate.scores for request in tiny_bundle.golden for candidate in request.candidates])

    assert scores.shape[1] == 1 + tiny_bundle.calibration.heads
    assert (scores.std(axis=0) > 0.01).all()


def changed_parts(bundle):
    """The bundle with one part after the other replaced."""
    calibration, graph = bundle.calibration, bundle.graph
    yield replace(bundle, calibration=replace(calibration, slopes=calibration.slopes * 1.5))
    yield replace(bundle, calibration=replace(calibration, graph_bias=calibration.graph_bias + 0.3))
    yield replace(bundle, graph=replace(graph, item_embeddings=graph.item_embeddings[::-1].copy()))
    yield replace(bundle, limits=replace(bundle.limits, past_items_shown=0, past_items=0))
    blind = copy.deepcopy(bundle.model)
    with torch.no_grad():
        blind.soft.statistics[0].weight[:, FIRST_FEATURES:] = 0
    yield replace(bundle, model=blind)


def test_a_change_of_any_part_is_found(tiny_bundle):
    """Calibration, graph score, base embeddings and prompt: each alone moves a score beyond the tolerance."""
    for changed in changed_parts(tiny_bundle):
        with pytest.raises(BundleError, match="golden scores"):
            check_golden(changed)


def test_changed_weights_are_found(folder):
    """A model whose last head has another weight is told by that head's layer."""
    bundle = Bundle.load(folder)
    with torch.no_grad():
        bundle.model.heads[-1].linear.bias += 1.0

    with pytest.raises(BundleError, match="head after layer 4"):
        check_golden(bundle)


def test_the_error_tells_the_largest_difference(tiny_bundle):
    """It names request, item and head, both scores and how far they are apart."""
    first, *rest = tiny_bundle.golden
    candidate, *others = first.candidates
    wrong = (*candidate.scores[:-1], 1 - round(candidate.scores[-1]))
    forged = msgspec.structs.replace(candidate, scores=wrong)
    golden = (msgspec.structs.replace(first, candidates=(forged, *others)), *rest)

    with pytest.raises(BundleError) as raised:
        check_golden(replace(tiny_bundle, golden=golden))

    line = str(raised.value)
    gap = abs(candidate.scores[-1] - wrong[-1])
    assert f"request 1, item {candidate.item.item_id!r}, head after layer 4" in line
    assert abs(float(re.search(r"difference of (\d\.\d+)", line)[1]) - gap) < 1e-3
    assert "1 of " in line


def test_a_bundle_of_an_earlier_release_has_none_and_loads(folder):
    """Format 1, without golden requests and template: it loads with the same scores, and nothing is compared."""
    requests = Bundle.load(folder).golden
    (folder / GOLDEN).unlink()
    (folder / PROMPT).unlink()
    edit_json(folder / MANIFEST, format_version=1)
    sign(folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["created_time_ms"]
    (folder / MANIFEST).write_text(json.dumps(manifest))

    bundle = Bundle.load(folder)

    assert check_golden(bundle) == 0
    saved = [candidate.scores for request in requests for candidate in request.candidates]
    np.testing.assert_allclose(golden_scores(bundle, requests), saved, atol=1e-5)


@pytest.mark.parametrize("scores", [[], [0.5], [0.5] * 9])
def test_scores_of_another_number_of_heads_are_refused(folder, scores):
    """They end in one line, as does anything else that cannot be compared."""
    golden = json.loads((folder / GOLDEN).read_text())
    golden[0]["candidates"][0]["scores"] = scores
    (folder / GOLDEN).write_text(json.dumps(golden))
    sign(folder)

    with pytest.raises(BundleError, match="cannot be scored") as raised:
        check_golden(Bundle.load(folder))

    assert "\n" not in str(raised.value)


def test_a_bundle_from_before_the_statistics_of_attributes_gives_its_scores(tiny_bundle, tmp_path):
    """It is of format 2, reads fewer statistics, and does not say how many; it serves as it did."""
    config = replace(tiny_bundle.model.config, statistics=FIRST_FEATURES, soft_width=FIRST_FEATURES, wide=False)
    torch.manual_seed(3)
    model = ExitModel(tiny_bundle.model.backbone, config).eval()
    folder = tmp_path / "earlier"
    with_golden(replace(tiny_bundle, model=model), tiny_bundle.golden).save(folder)
    exits = json.loads((folder / "exits.json").read_text())
    assert exits.pop("statistics") == FIRST_FEATURES
    assert exits.pop("wide") is False
    (folder / "exits.json").write_text(json.dumps(exits))
    sign(folder)
    edit_json(folder / MANIFEST, format_version=2)

    earlier = Bundle.load(folder)

    assert check_golden(earlier, tolerance=1e-5) > 1
    assert earlier.prompt_builder().statistics == FIRST_FEATURES
