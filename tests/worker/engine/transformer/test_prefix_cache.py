"""What is kept of earlier prefixes, and what is dropped."""

import numpy as np
import pytest
import torch

from models.prompt import TokenSequence
from worker.engine.transformer.prefix_cache import KnownPrefix, PrefixCache, content_key


def words(*token_ids: int, number: float = 0.0) -> TokenSequence:
    """A sequence that starts with a soft token."""
    return TokenSequence(
        np.array(token_ids, np.int32),
        np.zeros(1, np.int32),
        np.zeros(1, np.int8),
        np.full((1, 2), number, np.float32),
    )


def state(stages: int = 1) -> KnownPrefix:
    """A prefix of two tokens: 64 bytes of keys and values a stage, 16 of hidden rows."""
    kept = KnownPrefix()
    for _ in range(stages):
        kept.extend([(torch.zeros(2, 2, 2), torch.zeros(2, 2, 2))], torch.zeros(2, 2))
    return kept


def test_content_is_the_key():
    """Equal contents have equal keys; another word or another number makes another key."""
    assert content_key(words(1, 2)) == content_key(words(1, 2))
    assert len({content_key(each) for each in (words(1, 2), words(2, 1), words(1, 2, number=0.5))}) == 3


def content(**changes) -> TokenSequence:
    """Three tokens, two of them soft, with some contents replaced."""
    return TokenSequence(
        **{
            "token_ids": np.array([0, 7, 0], np.int32),
            "soft_positions": np.array([0, 2], np.int32),
            "soft_kinds": np.array([0, 1], np.int8),
            "soft_values": np.array([[1, 2], [3, 4]], np.float32),
        }
        | changes
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"token_ids": np.array([0, 8, 0], np.int32)},
        {"token_ids": np.array([0, 7, 0, 0], np.int32)},
        {"soft_positions": np.array([0, 1], np.int32)},
        {"soft_kinds": np.array([0, 2], np.int8)},
        {"soft_values": np.array([[1, 2], [3, 5]], np.float32)},
        {"soft_values": np.array([[2, 1], [3, 4]], np.float32)},
    ],
)
def test_each_part_of_the_content_makes_another_key(changes):
    """Another token, another place, kind or number of a soft token: nothing that was kept for one serves the other."""
    assert content_key(content()) == content_key(content())
    assert content_key(content(**changes)) != content_key(content())


def test_the_same_bytes_divided_otherwise_make_another_key():
    """Where tokens end and soft positions begin is part of the key."""
    one = content(token_ids=np.array([5, 6], np.int32), soft_positions=np.array([7], np.int32))
    other = content(token_ids=np.array([5], np.int32), soft_positions=np.array([6, 7], np.int32))
    assert content_key(one) != content_key(other)


def test_a_cache_of_no_bytes_is_disabled():
    """A single byte enables it."""
    assert not PrefixCache(0).enabled
    assert PrefixCache(1).enabled


def test_hits_and_misses_are_counted():
    """Each time that a prefix is asked for counts."""
    cache = PrefixCache(1000)
    assert (cache.hits, cache.misses, cache.bytes) == (0, 0, 0)
    cache.keep(words(1), state())
    for wanted in (1, 1, 1, 2, 2):
        cache.find(words(wanted))
    assert (cache.hits, cache.misses) == (3, 2)


def test_of_two_states_equally_deep_the_newer_is_kept():
    """The one that the caller goes on with is the one in the cache."""
    cache = PrefixCache(1000)
    newer = state()
    cache.keep(words(1), state())
    cache.keep(words(1), newer)
    assert cache.find(words(1)) is newer
    assert cache.bytes == newer.bytes == 80


def test_a_cache_may_be_filled_to_the_last_byte():
    """Nothing is evicted before the bound is passed, and then no more than is needed."""
    cache = PrefixCache(3 * state().bytes)
    for first in (1, 2, 3):
        cache.keep(words(first), state())
    assert (len(cache), cache.bytes) == (3, 240)
    cache.keep(words(4), state())
    assert (len(cache), cache.bytes) == (3, 240)
    assert cache.find(words(1)) is None


def test_a_state_grows_by_the_layers_behind_the_one_it_ended_with():
    """A stage begins with the layer that the one before ended with, whose keys and values it replaces."""
    pairs = [(torch.full((1,), float(number)), torch.zeros(1)) for number in range(4)]
    kept, hidden = KnownPrefix(), torch.zeros(3)
    kept.extend(pairs[:2], torch.ones(2))
    kept.extend(pairs[2:], hidden)
    assert [float(key) for key, _ in kept.layers] == [0.0, 2.0, 3.0]
    assert kept.hidden is hidden
    assert kept.stages == 2
    assert kept.bytes == 3 * 8 + 12
    assert KnownPrefix().bytes == 0


def test_what_was_kept_is_found():
    """A prefix is found again by content and counted as a hit; any other is a miss."""
    cache = PrefixCache(1000)
    kept = state()
    cache.keep(words(1, 2), kept)
    assert cache.find(words(1, 2)) is kept
    assert cache.find(words(1, 3)) is None
    assert (cache.hits, cache.misses) == (1, 1)


def test_the_least_recently_used_goes_first():
    """When the bytes run out, the prefix that was not asked for goes."""
    cache = PrefixCache(2 * state().bytes)
    for first in (1, 2):
        cache.keep(words(first), state())
    cache.find(words(1))
    cache.keep(words(3), state())
    assert cache.find(words(2)) is None
    assert cache.find(words(1)) is not None
    assert cache.bytes <= 2 * state().bytes


def test_bytes_are_counted_as_prefixes_go_deeper():
    """Keeping a prefix again after another stage counts it once, at its new size."""
    cache = PrefixCache(1000)
    kept = state()
    cache.keep(words(1), kept)
    one_layer = torch.zeros(2, 2, 2), torch.zeros(2, 2, 2)
    kept.extend([one_layer, one_layer], torch.zeros(2, 2))
    cache.keep(words(1), kept)
    assert len(cache) == 1
    assert cache.bytes == kept.bytes == 144


def test_a_shallower_state_does_not_replace_a_deeper():
    """Of two computations of the same prefix the deeper one stays."""
    cache = PrefixCache(1000)
    deep = state(stages=2)
    cache.keep(words(1), deep)
    cache.keep(words(1), state(stages=1))
    assert cache.find(words(1)) is deep


def test_too_large_for_the_cache_is_not_kept():
    """A prefix beyond the bound leaves the cache empty rather than over its bound."""
    cache = PrefixCache(10)
    cache.keep(words(1), state())
    assert len(cache) == 0
    assert cache.bytes == 0
