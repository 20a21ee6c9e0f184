"""The golden requests that training invents."""

from schemas.messages import Item
from training.golden import REQUESTS, invented_requests

ITEMS = [Item(item_id=f"i{number}", title=f"title {number}") for number in range(9)]


def test_the_same_catalogue_and_seed_give_the_same_requests():
    """So training twice gives the same bundle; another seed gives others."""
    assert invented_requests(ITEMS, 1) == invented_requests(ITEMS, 1)
    assert invented_requests(ITEMS, 1) != invented_requests(ITEMS, 2)


def test_they_are_of_the_catalogue_and_of_a_newcomer():
    """Histories and candidates are drawn from the items, with possible counts; of the last user nothing is known."""
    *usual, newcomer = invented_requests(ITEMS, 1)

    assert len(usual) == REQUESTS
    assert newcomer.history == ()
    for request in usual:
        for item in (*(past.item for past in request.history), *(one.item for one in request.candidates)):
            assert Item(item_id=item.item_id, title=item.text) in ITEMS
            assert 0 <= item.positives <= item.impressions


def test_an_empty_catalogue_leaves_the_newcomer():
    """Nothing is drawn from nothing."""
    assert len(invented_requests([], 1)) == 1
