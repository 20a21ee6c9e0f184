"""Computes the scores of golden requests, and compares them with those that were saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from models.bundle import Bundle
from models.evidence import CandidateEvidence, Evidence, ItemFacts, PastItem, SimilarUser, UserEvidence, Vector
from models.features import GRADED_FEATURES, GRAPH_FEATURES
from models.golden import GoldenItem, GoldenRequest
from models.prompt import Prompt
from models.prompt_batch import collate
from runtime.errors import BundleError

TOLERANCE: Final = 1e-2
"""Largest difference, in probability. Other CPU types and thread counts add numbers in another order (about 1e-6), and
weights in bfloat16 keep 8 bits, which moves a score by a few thousandths; a model, prompt or calibration that is not
the saved one moves some score by far more.
"""
_NEIGHBOUR_SIMILARITY: Final = 0.5

Scores = NDArray[np.float64]


class GoldenDifference(NamedTuple):
    """One score that is not the saved one."""

    where: str
    saved: float
    computed: float

    def __str__(self) -> str:
        gap = abs(self.computed - self.saved)
        return f"{self.where}: {self.computed:.4f} where {self.saved:.4f} was saved, a difference of {gap:.4f}"


def with_golden(bundle: Bundle, requests: Sequence[GoldenRequest]) -> Bundle:
    """The bundle with these golden requests, and the scores that it gives them."""
    rows = iter(golden_scores(bundle, requests).tolist())
    golden = tuple(
        msgspec.structs.replace(
            request,
            candidates=tuple(
                msgspec.structs.replace(candidate, scores=tuple(round(score, 6) for score in next(rows)))
                for candidate in request.candidates
            ),
        )
        for request in requests
    )
    return replace(bundle, golden=golden)


def check_golden(bundle: Bundle, tolerance: float = TOLERANCE) -> int:
    """Compute the scores of the bundle's golden requests, and compare them with the saved ones.

    Args:
        bundle: as loaded.
        tolerance: the largest difference, in probability, that counts as the same.

    Returns:
        The number of requests compared; 0 for a bundle of an earlier release, which has none.

    Raises:
        BundleError: a score differs by more, or cannot be computed; the largest difference is told.
    """
    if not bundle.golden:
        return 0
    try:
        computed = golden_scores(bundle, bundle.golden)
        found = list(_differences(bundle, computed))
    except Exception as error:  # the requests come with the bundle: whatever is wrong with them is told in one line
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise BundleError(
            f"the golden requests of bundle {bundle.version} cannot be scored ({cause}); retrain it"
        ) from error
    worst = max(found, key=lambda difference: abs(difference.computed - difference.saved))
    # Not `> tolerance`: a score that is not a number is no match either.
    beyond = [one for one in found if not abs(one.computed - one.saved) <= tolerance]
    if beyond:
        raise BundleError(
            f"bundle {bundle.version} does not give its golden scores here: {len(beyond)} of {len(found)} differ by "
            f"more than {tolerance:g}, most of all {worst}; this release or its libraries compute something else than "
            "what the bundle was saved with: use the release it was trained with, or retrain it"
        )
    return len(bundle.golden)


def golden_scores(bundle: Bundle, requests: Sequence[GoldenRequest]) -> Scores:
    """Scores (candidates of all requests, 1 + heads) of requests: the graph score, then each head's CTR."""
    embeddings = dict(zip(bundle.graph.item_ids, bundle.graph.item_embeddings, strict=True))
    builder = bundle.prompt_builder()
    prompts = [builder.build(_evidence(bundle, request, embeddings)) for request in requests]
    with torch.inference_mode():
        logits = bundle.model(collate(prompts)).double().numpy()
    heads = [bundle.calibration.ctr(head, logits[:, head]) for head in range(bundle.calibration.heads)]
    return np.stack([bundle.calibration.graph_ctr(_graph_features(prompts)), *heads], axis=1)


def _differences(bundle: Bundle, computed: Scores) -> Iterator[GoldenDifference]:
    layers = bundle.model.config.exit_layers
    names = ("graph score", *(f"head after layer {layer}" for layer in layers))
    rows = iter(computed.tolist())
    for number, request in enumerate(bundle.golden, start=1):
        for candidate in request.candidates:
            for name, saved, now in zip(names, candidate.scores, next(rows), strict=True):
                yield GoldenDifference(f"request {number}, item {candidate.item.item_id!r}, {name}", saved, now)


def _evidence(bundle: Bundle, request: GoldenRequest, embeddings: Mapping[str, Vector]) -> Evidence:
    """What retrieval would find if the invented user were real. Their embedding is the mean of what they clicked."""
    past = [PastItem(_facts(bundle, one.item, embeddings), one.positive) for one in request.history]
    clicked = [one.item.embedding for one in past if one.positive and one.item.embedding is not None]
    user = UserEvidence(
        user_id="golden",
        embedding=np.mean(clicked, axis=0, dtype=np.float32) if clicked else None,
        impressions=len(past),
        positives=sum(one.positive for one in past),
        recent=past,
    )
    candidates = []
    for candidate in request.candidates:
        item = _facts(bundle, candidate.item, embeddings)
        near = [msgspec.structs.replace(one, similarity=_cosine(one.item.embedding, item.embedding)) for one in past]
        near.sort(key=lambda one: -one.similarity)
        neighbours = [
            SimilarUser(f"neighbour {number}", _NEIGHBOUR_SIMILARITY, positive)
            for number, positive in enumerate(candidate.neighbours)
        ]
        shared = np.array(candidate.shared, np.float32) if candidate.shared else None
        # A bundle of an earlier release tells the features that there were, and its model reads no others.
        told = candidate.graded + (0.0,) * (len(GRADED_FEATURES) - len(candidate.graded))
        graded = np.array(told, np.float32) if candidate.graded else None
        past_items = near[: bundle.limits.past_items]
        candidates.append(CandidateEvidence(item, past_items, neighbours, shared=shared, graded=graded))
    return Evidence(user, candidates)


def _facts(bundle: Bundle, item: GoldenItem, embeddings: Mapping[str, Vector]) -> ItemFacts:
    tokens = bundle.text.encode(item.text) if item.text else []
    known = embeddings.get(item.item_id)
    embedding = bundle.graph.from_text(tokens) if known is None else known
    return ItemFacts(item.item_id, tokens, embedding, item.impressions, item.positives)


def _cosine(left: Vector | None, right: Vector | None) -> float:
    if left is None or right is None:
        return 0.0
    lengths = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / lengths if lengths else 0.0


def _graph_features(prompts: Sequence[Prompt]) -> NDArray[np.float32]:  # (candidates, len(GRAPH_FEATURES))
    return np.concatenate([prompt.statistics(len(GRAPH_FEATURES)) for prompt in prompts])
