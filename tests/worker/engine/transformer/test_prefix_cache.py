"""What is kept of earlier prefixes, and what is dropped."""

import numpy as np
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
