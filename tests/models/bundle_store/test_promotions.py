"""What rolling back leads to, for any history."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.bundle_store.promotions import KEPT, History, Promotion, continued, in_force, version_before
from runtime.errors import BundleError

A, B, C, D = ("a" * 12, "b" * 12, "c" * 12, "d" * 12)
versions = st.sampled_from([A, B, C])
entries = st.builds(Promotion, versions, st.just(0), st.just("us"), st.sampled_from(["promotion", "rollback"]))


def history(*steps):
    """Promotions of versions; `-version` is a rollback to it."""
    told = None
    for step in steps:
        kind = "rollback" if step.startswith("-") else "promotion"
        told = continued(told, Promotion(step.lstrip("-"), 0, "us", kind))
    return told


def test_rolling_back_goes_further_back_each_time():
    """After A, B, C it leads to B, then to A, never to C again."""
    assert version_before(history(A, B, C)) == B
    assert version_before(history(A, B, C, f"-{B}")) == A
    assert version_before(history(A, B, C, f"-{A}", B)) == A


def test_a_rollback_to_any_version_forgets_what_came_after_it():
    """To one that was in force: what followed it is gone. To another: it replaces the current one."""
    assert in_force(history(A, B, C, f"-{A}").promotions) == [A]
    assert in_force(history(A, B, C, f"-{D}").promotions) == [A, B, D]
    assert in_force(history(A, B, A, C, f"-{A}").promotions) == [A, B, A]


def test_promoting_the_current_version_again_changes_nothing():
    """A rollback leads to the version before it, not to itself."""
    assert version_before(history(A, B, B)) == A


@pytest.mark.parametrize("steps", [(A,), (A, A), (A, B, f"-{A}")])
def test_without_a_version_before_there_is_nothing_to_return_to(steps):
    """The error says how to name one."""
    with pytest.raises(BundleError, match="--to"):
        version_before(history(*steps))


@given(st.lists(entries, min_size=1))
def test_the_last_in_force_is_always_the_current_version(promotions):
    """Whatever was promoted and rolled back in which order; and no rollback leads to the version in force."""
    told = None
    for promotion in promotions:
        told = continued(told, promotion)

    in_order = in_force(told.promotions)

    assert in_order[-1] == told.current == promotions[-1].version
    if len(in_order) > 1:
        assert version_before(told) == in_order[-2]


@given(st.lists(versions, min_size=1, unique=True))
def test_rolling_back_undoes_promotions_one_by_one(promoted):
    """As many rollbacks as promotions, less one, lead through all versions to the first."""
    told = history(*promoted)
    for expected in promoted[-2::-1]:
        assert version_before(told) == expected
        told = continued(told, Promotion(expected, 0, "us", "rollback"))
    with pytest.raises(BundleError):
        version_before(told)


def test_the_history_is_bounded():
    """The oldest entries go; the current version stays."""
    told = None
    for number in range(KEPT + 5):
        told = continued(told, Promotion(f"{number:012x}", number, "us"))

    assert len(told.promotions) == KEPT
    assert told.current == f"{KEPT + 4:012x}"


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        '{"current": "aaaaaaaaaaaa", "promotions": []}',
        '{"current": "aaaaaaaaaaaa", "promotions": [{"version": "bbbbbbbbbbbb", "time_ms": 0, "by": "us"}]}',
        '{"current": "../../etc", "promotions": [{"version": "../../etc", "time_ms": 0, "by": "us"}]}',
        '{"current": "../aaaaaaaaaaaa", "promotions": [{"version": "../aaaaaaaaaaaa", "time_ms": 0, "by": "us"}]}',
        '{"current": "aaaa", "promotions": [{"version": "aaaa", "time_ms": 0, "by": "us"}]}',
    ],
)
def test_a_history_that_contradicts_itself_is_malformed(content):
    """No promotions, another current version than the last promoted, or a version that is none: a path, too short."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(content, type=History)
