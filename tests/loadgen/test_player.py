"""Pages are opened in the plan's order, but never two of one user in quick succession."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from loadgen.plan import Impression
from loadgen.player import PageOrder

GAP_S = 1.0


@given(st.lists(st.integers(0, 3), max_size=30))
def test_everybody_gets_all_pages_in_order_and_with_a_gap(users):
    """Every page is opened once, each user's in order and at least the gap apart."""
    pages = [Impression(request_id=str(number), user_id=f"u{user}", events=[]) for number, user in enumerate(users)]
    order, now_s, opened = PageOrder(pages, GAP_S), 0.0, []
    while order:
        page = order.next(now_s)
        if page is not None:
            opened.append((now_s, page))
        now_s += 0.1
    assert sorted(page.request_id for _, page in opened) == sorted(page.request_id for page in pages)
    for user in {page.user_id for page in pages}:
        own = [(time, int(page.request_id)) for time, page in opened if page.user_id == user]
        assert own == sorted(own, key=lambda entry: entry[1])
        assert all(later[0] - earlier[0] >= GAP_S - 1e-9 for earlier, later in pairwise(own))


def test_who_has_to_wait_is_passed_over():
    """While one user waits, the next one's page is opened."""
    pages = [Impression(request_id=name, user_id=name[0], events=[]) for name in ("a1", "a2", "b1")]
    order = PageOrder(pages, GAP_S)
    assert [order.next(0.0).request_id, order.next(0.1).request_id, order.next(0.2)] == ["a1", "b1", None]
