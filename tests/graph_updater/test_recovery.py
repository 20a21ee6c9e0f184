"""Where the state comes from, and the snapshots it may come from next time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from structlog.testing import capture_logs
from updater_parts import CLICKS, base, click, embeddings, engine, records, state

from graph_updater.graph.config import GraphConfig
from graph_updater.metrics import UpdaterMetrics
from graph_updater.origin import Origin
from graph_updater.recovery import SNAPSHOT_KIND, recover
from graph_updater.snapshots import Snapshots
from graph_updater.state.snapshot_checks import EARLIER_VERSIONS, SNAPSHOT_VERSION
from graph_updater.state.updater_state import UpdaterState
from runtime.clock import ManualClock
from runtime.snapshots import SnapshotStore

CONFIG = GraphConfig(epsilon=0.0, embedding_dtype="float32")
ORIGIN = Origin("model-1", "cluster-1", ("interactions", "items"))
USERS, ITEMS = ["u", "v"], [f"i{number}" for number in range(6)]


@pytest.fixture
def store(tmp_path):
    """An empty store."""
    return SnapshotStore(tmp_path, kind=SNAPSHOT_KIND, version=SNAPSHOT_VERSION, keep=3)


@pytest.fixture
def clock():
    """A clock that waits to be moved."""
    return ManualClock()


def snapshots(store, clock, origin=ORIGIN):
    """Snapshots every ten seconds."""
    return Snapshots(store, origin, 10.0, clock, UpdaterMetrics())


async def saved(store, clock, count, origin=ORIGIN):
    """Saves the state after `count` clicks; the state."""
    of = state()
    driver = engine(of)
    driver.absorb(records([click("uv"[n % 2], f"i{n % 6}", n) for n in range(count)]))
    driver.collect()
    await snapshots(store, clock, origin).write(driver.capture())
    return of


def refusals(logs):
    """Why snapshots were refused."""
    return [line["cause"] for line in logs if line["event"].startswith("snapshot refused")]


async def test_the_newest_snapshot_is_continued(store, clock):
    """State and offsets come back together."""
    await saved(store, clock, 3)
    newest = await saved(store, clock, 9)

    recovered = recover(store, CONFIG, base(), ORIGIN)

    assert recovered.offsets == {CLICKS: 9}
    assert recovered.is_published
    np.testing.assert_allclose(embeddings(recovered.state, USERS, ITEMS), embeddings(newest, USERS, ITEMS), atol=1e-6)


async def test_a_snapshot_of_the_release_before_is_continued(tmp_path, clock):
    """One without grades: offsets and state come back, and each click has the best grade."""
    former = SnapshotStore(tmp_path, kind=SNAPSHOT_KIND, version=1, keep=3)
    newest = await saved(former, clock, 9)
    arrays, metadata = former.load(1).arrays, former.load(1).metadata
    arrays = {name: array for name, array in arrays.items() if name not in ("grades", "history_grade")}
    metadata["state"]["version"] = 1
    former.save_now(arrays, metadata)
    store = SnapshotStore(tmp_path, kind=SNAPSHOT_KIND, version=SNAPSHOT_VERSION, earlier=EARLIER_VERSIONS)

    recovered = recover(store, CONFIG, base(), ORIGIN)

    assert recovered.offsets == {CLICKS: 9}
    told, before = (of.published.user_state("u", 0) for of in (recovered.state, newest))
    assert (told.grades, told.recent) == (before.grades, before.recent)
    assert told.grades == 255 * told.positives > 0


async def test_a_torn_snapshot_is_refused_and_the_one_before_used(store, clock, tmp_path):
    """A file cut off in the middle is told in the log, with its name."""
    await saved(store, clock, 3)
    await saved(store, clock, 9)
    newest = max(tmp_path.glob("*.exs"))
    newest.write_bytes(newest.read_bytes()[:-100])

    with capture_logs() as logs:
        recovered = recover(store, CONFIG, base(), ORIGIN)

    assert recovered.offsets == {CLICKS: 3}
    (why,) = refusals(logs)
    assert newest.name in why
    assert "corrupt" in why


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Origin("model-1", "cluster-2", ("interactions", "items")), "cluster cluster-2"),
        (Origin("model-1", "cluster-1", ("clicks", "items")), "topics ['clicks', 'items']"),
    ],
)
async def test_an_incompatible_snapshot_is_refused_and_the_one_before_used(store, clock, other, said):
    """Another cluster's offsets are never continued."""
    await saved(store, clock, 3)
    await saved(store, clock, 9, other)

    with capture_logs() as logs:
        recovered = recover(store, CONFIG, base(), ORIGIN)

    assert recovered.offsets == {CLICKS: 3}
    (why,) = refusals(logs)
    assert said in why


async def test_a_snapshot_of_embeddings_of_another_size_is_refused(store, clock):
    """A bundle that claims the same space must fit the arrays."""
    await saved(store, clock, 3)

    with capture_logs() as logs:
        recovered = recover(store, CONFIG, base(dim=8), ORIGIN)

    assert recovered.offsets == {}
    assert "embeddings of 4 numbers" in refusals(logs)[0]


@pytest.mark.parametrize("spaces", [("one", "two"), ("", "two")], ids=["told", "of a release that told none"])
async def test_a_snapshot_of_another_bundle_keeps_everything_but_embeddings(store, clock, spaces):
    """Interactions go on where they stood; the catalogue is read anew for the texts; nothing counts as published."""
    before, after = (replace(ORIGIN, model_version=f"model {space}", space=space) for space in spaces)
    await saved(store, clock, 9, before)
    other = base(items=8, dim=8, seed=4)
    undisturbed = UpdaterState(CONFIG, other)
    engine(undisturbed).absorb(records([click("uv"[n % 2], f"i{n % 6}", n) for n in range(9)]))

    recovered = recover(store, CONFIG, other, after)

    assert recovered.offsets == {CLICKS: 9}  # and none of the catalogue
    assert not recovered.is_published
    np.testing.assert_allclose(
        embeddings(recovered.state, USERS, ITEMS), embeddings(undisturbed, USERS, ITEMS), atol=1e-6
    )
    ours, theirs = (state.published.user_state("u", 0) for state in (recovered.state, undisturbed))
    assert (ours.recent, ours.impressions, ours.embedding) == (theirs.recent, theirs.impressions, None)


async def test_a_snapshot_of_another_model_of_the_same_graph_is_continued(store, clock):
    """A retrained language model over the same base embeddings changes nothing for the updater."""
    await saved(store, clock, 9, replace(ORIGIN, model_version="model-0", space="one"))

    recovered = recover(store, CONFIG, base(), replace(ORIGIN, space="one"))

    assert recovered.is_published
    assert recovered.offsets == {CLICKS: 9}


def test_without_a_snapshot_the_state_is_built_from_the_earliest(store):
    """The first start, and the one after everything was lost."""
    recovered = recover(store, CONFIG, base(), ORIGIN)

    assert recovered.offsets == {}
    assert not recovered.is_published


async def test_the_state_equals_an_undisturbed_one_wherever_it_was_saved(store, clock):
    """Saved after any number of records and continued with the rest, every embedding and history is the same."""
    events = [click("uv"[n % 2], f"i{(n * 7) % 6}", n, kind="click" if n % 5 else "removal") for n in range(30)]
    undisturbed = state()
    engine(undisturbed).absorb(records(events))
    for cut in (1, 7, 16, 29):
        before = engine()
        before.absorb(records(events[:cut]))
        before.collect()
        await snapshots(store, clock).write(before.capture())
        recovered = recover(store, CONFIG, base(), ORIGIN)
        after = engine(recovered.state, offsets=recovered.offsets)
        after.absorb(records(events[recovered.offsets[CLICKS] :], first=recovered.offsets[CLICKS]))

        np.testing.assert_allclose(
            embeddings(recovered.state, USERS, ITEMS), embeddings(undisturbed, USERS, ITEMS), atol=1e-5
        )
        for user in USERS:
            one, other = recovered.state.published.user_state(user, 0), undisturbed.published.user_state(user, 0)
            assert (one.recent, one.impressions, one.positives) == (other.recent, other.impressions, other.positives)
