"""Snapshots that a stranger, or a bug, has written with a right checksum: recovery never raises, nor does the state."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from updater_parts import CLICKS, base, click, engine, record, records

from graph_updater.graph.config import GraphConfig
from graph_updater.graph.shard import Shard
from graph_updater.origin import Origin
from graph_updater.recovery import SNAPSHOT_KIND, recover
from graph_updater.state.shared_items import PartRecord
from graph_updater.state.snapshot_checks import SNAPSHOT_VERSION
from graph_updater.state.updater_state import UpdaterState
from runtime.snapshots import SnapshotStore

CONFIG = GraphConfig(epsilon=0.0, embedding_dtype="float32", window_ms=1_000_000, half_life_ms=1_000)
SHARD = Shard(0, 2)
"""One of several has all that an only updater has, and what the others have told."""
ORIGIN = Origin("model-1", "cluster-1", ("interactions", "items"), {"interactions": "id-1"}, shard=SHARD)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(-3, 3), max_size=3),
    st.just({}),
)


def good():
    """Arrays and metadata of a small state, as they are saved."""
    driver = engine(UpdaterState(CONFIG, base(), SHARD))
    driver.absorb(
        records([click("uvw"[n % 3], f"i{n % 6}", n, kind="removal" if n == 7 else "click") for n in range(12)])
    )
    driver.absorb([record(click("u", "i0", 50_000), 13)])  # an edge that waits for its time
    theirs = UpdaterState(CONFIG, base(), Shard(1, 2))
    theirs.apply([click("xyz"[n % 3], f"i{n % 7}", n) for n in range(12)])
    told = theirs.shared.parts(theirs.shared.take_owed())
    driver._state.receive_parts([PartRecord(1, name, part) for name, part in told.items()])
    driver.collect(term=object())
    captured = driver.capture()
    arrays, state = captured.copy.merge()
    said = {"state": state, "origin": ORIGIN.to_json(), "offsets": [["interactions", 0, 12]]}
    return arrays, {**said, "saved_ms": 2**52}


ARRAYS, METADATA = good()


def store_in(folder):
    """A store of the updater's."""
    return SnapshotStore(folder, kind=SNAPSHOT_KIND, version=SNAPSHOT_VERSION)


def recovered_from(arrays, metadata, folder):
    """What is recovered where a good snapshot lies before this one; and whether this one was used."""
    store = store_in(folder)
    store.save_now(ARRAYS, METADATA)
    try:
        store.save_now(arrays, metadata)
    except (TypeError, ValueError):  # numbers that JSON or safetensors cannot hold
        return None, False
    with capture_logs() as logs:
        recovered = recover(store, CONFIG, base(), ORIGIN)
    refused = [line for line in logs if line["event"].startswith("snapshot refused")]
    assert recovered.offsets == {CLICKS: 12} or not refused
    return recovered, not refused


def goes_on(recovered):
    """Lets a state do everything that it may be asked to do."""
    driver = engine(recovered.state, offsets=recovered.offsets)
    more = [click("uvwxy"[n % 5], f"i{n % 8}", n, kind="removal" if n % 5 == 4 else "click") for n in range(30)]
    driver.absorb(records(more, first=50))
    driver.encode(driver.collect().batch)
    state = recovered.state
    state.shared.parts(state.shared.take_owed())
    changes = state.published.take_changes(force=True)
    for user in changes.users:
        assert state.published.user_state(user, 0).user_id == user
    for item in changes.items:
        assert state.published.item_state(item, 0).item_id == item
    later = [click("w", "i0", 10_000_000 + n) for n in range(20)]
    driver.absorb(records(later, first=100))
    driver.encode(driver.collect().batch)
    state.snapshot_arrays()


@st.composite
def mutated_arrays(draw):
    """The good arrays, with one changed in type, shape, length or content, or left out."""
    arrays = {name: array.copy() for name, array in ARRAYS.items()}
    name = draw(st.sampled_from(sorted(arrays)))
    array = arrays[name]
    how = draw(st.sampled_from(["drop", "dtype", "shape", "cut", "double", "set", "set", "set", "shuffle"]))
    if how == "drop":
        del arrays[name]
    elif how == "dtype":
        arrays[name] = array.astype(draw(st.sampled_from(["u1", "i4", "i8", "u8", "f2", "f4", "f8", "?"])))
    elif how == "shape":
        arrays[name] = array[..., None] if draw(st.booleans()) else array.reshape(-1)[None]
    elif how == "cut":
        arrays[name] = array[: draw(st.integers(0, max(0, len(array) - 1)))]
    elif how == "double":
        arrays[name] = np.concatenate([array, array])
    elif how == "shuffle":
        arrays[name] = array[::-1].copy()
    elif array.size:
        place = draw(st.integers(0, array.size - 1))
        flat = array.reshape(-1)
        if array.dtype.kind == "f":
            flat[place] = draw(st.floats(width=16))
        elif array.dtype.kind == "b":
            flat[place] = not flat[place]
        else:
            bounds = np.iinfo(array.dtype)
            flat[place] = draw(st.integers(int(bounds.min), int(bounds.max)) | st.integers(0, 5))
    return arrays


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(arrays=mutated_arrays())
def test_whatever_the_arrays_hold_recovery_falls_back_or_the_state_goes_on(arrays):
    """No exception at the start, and none afterwards from a state that was accepted."""
    with tempfile.TemporaryDirectory() as folder:
        recovered, _ = recovered_from(arrays, METADATA, folder)
    if recovered is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            goes_on(recovered)


@settings(max_examples=100, deadline=None)
@given(
    path=st.sampled_from(
        [
            ["state"],
            ["origin"],
            ["offsets"],
            ["offsets", 0],
            ["offsets", 0, 0],
            ["offsets", 0, 1],
            ["offsets", 0, 2],
            *(["origin", name] for name in METADATA["origin"]),
            *(["state", name] for name in METADATA["state"]),
            *(["state", "waiting", 0, place] for place in range(5)),
            *(["state", "stream_time", place] for place in (0, 1, 2, 3, 66)),
        ]
    ),
    value=VALUES,
    drop=st.booleans(),
)
def test_whatever_the_metadata_hold_recovery_falls_back_or_the_state_goes_on(path, value, drop):
    """Wrong types, missing keys, numbers out of every range."""
    metadata = json.loads(json.dumps(METADATA))
    within = metadata
    for step in path[:-1]:
        within = within[step]
    if drop:
        del within[path[-1]]
    else:
        within[path[-1]] = value
    with tempfile.TemporaryDirectory() as folder:
        recovered, _ = recovered_from(ARRAYS, metadata, folder)
    if recovered is not None:
        goes_on(recovered)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("edge_neighbour", lambda array: np.full_like(array, -1), "out of range"),
        ("edge_neighbour", lambda array: np.full_like(array, 10_000), "out of range"),
        ("edge_weight", lambda array: np.full_like(array, np.nan), "not finite"),
        ("edge_count", lambda array: array + 2**40, "out of range"),
        ("published", lambda array: array.astype(np.int64), "holds int64"),
        ("base", lambda array: array[:, :2], "has the shape"),
        ("history_event", lambda array: np.full_like(array, 2**64 - 1), "no text"),
        ("names", lambda array: array[:-1], "names are malformed"),
        ("part_shard", np.zeros_like, "two parts of one shard"),
        ("part_count", lambda array: array[::-1].copy(), "no item's"),
        ("part_edges", lambda array: array * 0, "edges without weight"),
        ("part_sums", lambda array: array * np.float32(1e30), "out of range"),
    ],
)
def test_each_kind_of_fault_is_told_and_the_snapshot_before_used(name, change, said, tmp_path):
    """The log names the array and what is wrong with it."""
    store = store_in(tmp_path)
    store.save_now(ARRAYS, METADATA)
    store.save_now({**ARRAYS, name: change(ARRAYS[name])}, {**METADATA, "offsets": [["interactions", 0, 99]]})

    with capture_logs() as logs:
        recovered = recover(store, CONFIG, base(), ORIGIN)

    assert recovered.offsets == {CLICKS: 12}
    (why,) = [line["cause"] for line in logs if line["event"].startswith("snapshot refused")]
    assert said in why


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(ARRAYS)),
    field=st.sampled_from(["dtype", "shape", "data_offsets"]),
    value=st.one_of(
        VALUES,
        st.sampled_from(["BF16", "F8_E4M3", "O", "F64", "BOOL"]),
        st.lists(st.integers(-1, 2**62), min_size=1, max_size=3),
        st.just([10**13, 10**13]),
        st.just([10**13, 0]),
    ),
)
def test_a_layout_is_checked_before_anything_is_allocated(name, field, value):
    """Shapes of terabytes, types that are no numbers, offsets anywhere: refused, and the snapshot before is used."""
    with tempfile.TemporaryDirectory() as folder:
        store = store_in(folder)
        store.save_now(ARRAYS, METADATA)
        store.save_now(ARRAYS, {**METADATA, "offsets": [["interactions", 0, 99]]})
        newest = max(Path(folder).iterdir())
        content = newest.read_bytes()
        length = int.from_bytes(content[:8], "little")
        layout = json.loads(content[8 : 8 + length])
        unchanged = layout[name].get(field) == value
        layout[name][field] = value
        text = json.dumps(layout).encode()
        newest.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])

        with capture_logs():
            recovered = recover(store, CONFIG, base(), ORIGIN)

    assert recovered.offsets == {CLICKS: 99 if unchanged else 12}


def test_a_snapshot_of_longer_histories_is_cut_to_the_bundles_length(tmp_path):
    """With a smaller `history_length` than the bundle before, each user's newest interactions stay."""
    store = store_in(tmp_path)
    store.save_now(ARRAYS, METADATA)

    recovered = recover(store, CONFIG, replace(base(), history_length=2), ORIGIN)

    whole = recover(store, CONFIG, base(), ORIGIN).state.published.user_state("u", 0).recent
    assert len(whole) > 2
    assert recovered.state.published.user_state("u", 0).recent == whole[-2:]
    goes_on(recovered)
