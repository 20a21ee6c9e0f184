"""What `exitstream score` shows of an explanation."""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from cli.score import show_explanation
from models.evidence import AttributeEvidence, CandidateEvidence, ItemFacts, PastItem, UserEvidence
from models.features import FEATURES
from schemas.messages import ImpressionRequest
from worker.explain import CandidateExplanation, Explanation, HeadAnswer


def _shown(title: str, suffix: str = "similar ⟨{}⟩ yes") -> str:
    item, past = ItemFacts("i7", impressions=10, positives=2), ItemFacts("i3")
    candidate = CandidateExplanation(
        item_id="i7",
        evidence=CandidateEvidence(
            item,
            [PastItem(past, positive=True, similarity=0.5)],
            attributes=[AttributeEvidence("author", title, 90, 40, 8, 7)],
        ),
        statistics=np.zeros(len(FEATURES), np.float32),
        suffix=suffix.replace("{}", title),
        heads=[HeadAnswer(1, 0.3, 0.5), HeadAnswer(2, 0.4, 1.0)],
        exit_at=1,
        graph_ctr=0.2,
    )
    explanation = Explanation(
        user=UserEvidence("ann", impressions=4, positives=1),
        prefix="user ⟨user⟩ history",
        candidates=[candidate],
        titles={"i7": title},
        base_threshold=0.9,
        model_version="v1",
    )
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system=None, width=200, highlight=False)
    request = ImpressionRequest(request_id="r1", user_id="ann", candidate_item_ids=["i7"], created_time_ms=1)
    show_explanation(explanation, request, console)
    return out.getvalue()


def test_items_are_named_by_their_titles_where_known():
    """The candidate has a title; its past item has none and keeps its id."""
    shown = _shown("The Iron Lighthouse")
    assert "candidate The Iron Lighthouse (i7)" in shown
    assert "own past item i3" in shown


def test_statistics_and_reasons_are_spelled_out():
    """Each statistic has a line, and the last word is one sentence."""
    shown = _shown("The Iron Lighthouse")
    assert "impressions of the user" in shown
    told = " ".join(shown.split())
    assert "0.40, because the user clicked 7 of 8 with author The Iron Lighthouse and the user clicked 1 of 1" in told
    assert "40 clicks in 90 impressions; this user 7 in 8" in shown


def test_a_prompt_of_several_lines_stands_below_its_name():
    """One of a single line stands beside it."""
    lines = [line.rstrip() for line in _shown("Iron", 'Similar:\n⟨item⟩ "{}" liked\nLiked? ⟨statistics⟩').splitlines()]
    start = lines.index("prompt, its own:")
    assert lines[start + 1 : start + 4] == ["    Similar:", '    ⟨item⟩ "Iron" liked', "    Liked? ⟨statistics⟩"]
    assert "prompt, shared: user ⟨user⟩ history" in lines


def test_a_title_is_never_interpreted():
    """Neither as markup nor by the terminal."""
    shown = _shown("[bold red]x[/] \x1b[31mred\x1b]0;title\x07")
    assert "[bold red]x[/]" in shown
    assert "\x1b[31m" not in shown
    assert "\x1b]0" not in shown
    assert r"\x1b[31mred" in shown
