"""What is kept of earlier prefixes, and what is dropped."""

import numpy as np
import pytest
import torch

from models.token_sequence import TokenSequence
from worker.engine.prefix import SHARED_TOKENS, KnownPrefix, Stretch, content_key, stretches_of
from worker.engine.transformer.prefix_cache import PrefixCache


def words(*token_ids: int, number: float = 0.0) -> TokenSequence:
    """A sequence that starts with a soft token."""
    return TokenSequence(
        np.array(token_ids, np.int32),
        np.zeros(1, np.int32),
        np.zeros(1, np.int8),
        np.full((1, 2), number, np.float32),
    )


def key(*token_ids: int) -> bytes:
    """What names such a sequence."""
    return content_key(words(*token_ids))


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
            "added_ids": np.array([5, 6], np.int32),
            "added_positions": np.array([0, 2], np.int32),
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
        {"added_ids": np.array([6, 5], np.int32)},
        {"added_positions": np.array([0, 0], np.int32)},
    ],
)
def test_each_part_of_the_content_makes_another_key(changes):
    """Another token, another place, kind or number of a soft token, another added word or another place of it: nothing
    that was kept for one serves the other.
    """
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


def test_prefixes_are_counted_by_how_much_of_them_is_known():
    """Each counts once: all of it, a part of it (mostly the shared words), or nothing."""
    cache = PrefixCache(1000)
    assert (cache.hits, cache.partial_hits, cache.misses, cache.bytes) == (0, 0, 0, 0)
    cache.keep(key(1), state())
    cache.keep(key(2), state())
    for wanted in ([1, 2], [2], [1, 3], [3, 1], [1, 4], [3], [3, 4], [4], [5]):
        stretches = [Stretch(words(one), key(one)) for one in wanted]
        cache.look_up(stretches)
        cache.count(stretches)
    assert (cache.hits, cache.partial_hits, cache.misses) == (2, 3, 4)


def test_what_is_looked_up_never_gets_shallower():
    """A part goes on with the deeper of what it has and what the cache has; what nobody knows is an empty state."""
    cache = PrefixCache(1000)
    shallow, deep = state(1), state(2)
    cache.keep(key(1), shallow)
    stretch = Stretch(words(1), key(1), known=deep)
    cache.look_up([stretch])
    assert stretch.known is deep
    stretch.known = state(0)
    cache.look_up([stretch])
    assert stretch.known is shallow
    unknown = Stretch(words(2), key(2))
    cache.look_up([unknown])
    assert unknown.known is not None
    assert unknown.known.stages == 0
    assert len(cache) == 1


def test_shared_words_outlive_what_builds_on_them():
    """Of a prefix that is looked up, the rest is evicted before the words that all users share."""
    cache = PrefixCache(2 * state().bytes)
    for token in (1, 2):
        cache.keep(key(token), state())
    cache.look_up([Stretch(words(1), key(1)), Stretch(words(2), key(2))])
    cache.keep(key(3), state())
    assert cache.find(key(1)) is not None
    assert cache.find(key(2)) is None


def prefix_of(leading: int, *, soft: int = 2) -> TokenSequence:
    """So many words, then two soft tokens (or none) with a word behind each."""
    positions = np.arange(soft, dtype=np.int32) * 2 + leading
    token_ids = np.arange(1, leading + 2 * soft + 1, dtype=np.int32)
    return TokenSequence(token_ids, positions, np.arange(soft, dtype=np.int8), np.ones((soft, 2), np.float32))


def test_the_words_before_the_first_soft_token_are_a_stretch_of_their_own():
    """They are the same for everyone; the rest keeps its tokens, and its soft tokens their places."""
    shared, rest = stretches_of(prefix_of(SHARED_TOKENS))
    whole = prefix_of(SHARED_TOKENS)
    assert (len(shared), len(rest)) == (SHARED_TOKENS, 4)
    assert shared.sequence.soft_values.shape == (0, 2)
    assert shared.sequence.soft_kinds.tolist() == shared.sequence.soft_positions.tolist() == []
    assert [*shared.sequence.token_ids, *rest.sequence.token_ids] == whole.token_ids.tolist()
    assert rest.sequence.soft_positions.tolist() == [0, 2]
    assert rest.sequence.soft_kinds.tolist() == [0, 1]


@pytest.mark.parametrize("prefix", [prefix_of(SHARED_TOKENS - 1), prefix_of(20, soft=0)])
def test_few_leading_words_or_words_alone_are_one_stretch(prefix):
    """Nothing is cut where there is little to share, or nothing behind it."""
    [only] = stretches_of(prefix)
    assert only.sequence is prefix
    assert only.key == content_key(prefix)


def test_the_rest_is_named_by_the_whole_prefix():
    """What it holds depends on the words before it: behind other words it is another stretch."""
    one, other = prefix_of(SHARED_TOKENS), prefix_of(SHARED_TOKENS)
    other.token_ids[0] = 40
    (shared, rest), (other_shared, other_rest) = stretches_of(one), stretches_of(other)
    assert (rest.sequence.token_ids == other_rest.sequence.token_ids).all()
    assert len({shared.key, rest.key, other_shared.key, other_rest.key}) == 4
    assert rest.key != content_key(one)
    assert [stretch.key for stretch in stretches_of(prefix_of(SHARED_TOKENS))] == [shared.key, rest.key]


def test_of_two_states_equally_deep_the_newer_is_kept():
    """The one that the caller goes on with is the one in the cache."""
    cache = PrefixCache(1000)
    newer = state()
    cache.keep(key(1), state())
    cache.keep(key(1), newer)
    assert cache.find(key(1)) is newer
    assert cache.bytes == newer.bytes == 80


def test_a_cache_may_be_filled_to_the_last_byte():
    """Nothing is evicted before the bound is passed, and then no more than is needed."""
    cache = PrefixCache(3 * state().bytes)
    for first in (1, 2, 3):
        cache.keep(key(first), state())
    assert (len(cache), cache.bytes) == (3, 240)
    cache.keep(key(4), state())
    assert (len(cache), cache.bytes) == (3, 240)
    assert cache.find(key(1)) is None


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
    """A prefix is found again by content, any other is not; what is forgotten is gone, with its bytes."""
    cache = PrefixCache(1000)
    kept = state()
    cache.keep(key(1, 2), kept)
    assert cache.find(key(1, 2)) is kept
    assert cache.find(key(1, 3)) is None
    cache.forget(key(1, 3))
    assert len(cache) == 1
    cache.forget(key(1, 2))
    assert (len(cache), cache.bytes) == (0, 0)


def test_the_least_recently_used_goes_first():
    """When the bytes run out, the prefix that was not asked for goes."""
    cache = PrefixCache(2 * state().bytes)
    for first in (1, 2):
        cache.keep(key(first), state())
    cache.find(key(1))
    cache.keep(key(3), state())
    assert cache.find(key(2)) is None
    assert cache.find(key(1)) is not None
    assert cache.bytes <= 2 * state().bytes


def test_bytes_are_counted_as_prefixes_go_deeper():
    """Keeping a prefix again after another stage counts it once, at its new size."""
    cache = PrefixCache(1000)
    kept = state()
    cache.keep(key(1), kept)
    one_layer = torch.zeros(2, 2, 2), torch.zeros(2, 2, 2)
    kept.extend([one_layer, one_layer], torch.zeros(2, 2))
    cache.keep(key(1), kept)
    assert len(cache) == 1
    assert cache.bytes == kept.bytes == 144


def test_a_shallower_state_does_not_replace_a_deeper():
    """Of two computations of the same prefix the deeper one stays."""
    cache = PrefixCache(1000)
    deep = state(stages=2)
    cache.keep(key(1), deep)
    cache.keep(key(1), state(stages=1))
    assert cache.find(key(1)) is deep


def large() -> KnownPrefix:
    """A prefix of 160 bytes."""
    kept = KnownPrefix()
    kept.extend([(torch.zeros(4, 2, 2), torch.zeros(4, 2, 2))], torch.zeros(4, 2))
    return kept


def test_too_large_for_the_cache_is_not_kept():
    """A prefix beyond the bound takes nobody's place; one that grows beyond it goes."""
    cache = PrefixCache(100)
    cache.keep(key(1), state())
    cache.keep(key(2), large())
    assert cache.find(key(2)) is None
    assert cache.find(key(1)) is not None
    cache.keep(key(1), large())
    assert (len(cache), cache.bytes) == (0, 0)
