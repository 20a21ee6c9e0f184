"""The snapshot store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from runtime.errors import SnapshotError
from runtime.snapshots import SnapshotStore


@pytest.fixture(params=["folder", "fsspec address"])
def address(request, tmp_path):
    """A folder, or an address that only fsspec understands."""
    return tmp_path / "snapshots" if request.param == "folder" else f"memory://{tmp_path}"


def store(address, **changes):
    """A store of this test's kind."""
    return SnapshotStore(address, **{"kind": "graph", "version": 1, "keep": 3, **changes})


async def test_the_newest_snapshot_comes_back(address):
    """Arrays and metadata, offsets among it, are what was saved last."""
    snapshots = store(address)
    for number in range(2):
        await snapshots.save({"x": np.full(5, number)}, {"offsets": {"items": [number, 7]}})
    latest = await store(address).load_latest()
    assert (latest.sequence, latest.metadata) == (2, {"offsets": {"items": [1, 7]}})
    np.testing.assert_array_equal(latest.arrays["x"], np.ones(5))


def test_only_the_newest_few_are_kept(address):
    """Older ones are removed after the new one is whole."""
    snapshots = store(address, keep=2)
    assert [snapshots.save_now({}, {}) for _ in range(4)] == [1, 2, 3, 4]
    assert sorted(snapshots.sequences()) == [3, 4]


def test_an_empty_store_has_no_latest(address):
    """Nothing there is not an error."""
    assert store(address).load_latest_now() is None


def test_a_corrupt_snapshot_is_refused_and_the_one_before_used(tmp_path, capsys):
    """The line says which file is corrupt; loading it by number raises."""
    snapshots = store(tmp_path)
    for number in range(2):
        snapshots.save_now({"x": np.full(1_000, number)}, {})
    newest = tmp_path / "snapshot-000000000002.exs"
    newest.write_bytes(newest.read_bytes()[:-100])
    assert snapshots.load_latest_now().arrays["x"][0] == 0
    assert "snapshot-000000000002.exs is corrupt" in capsys.readouterr().out
    with pytest.raises(SnapshotError, match="is corrupt"):
        snapshots.load(2)


@pytest.mark.parametrize("other", [{"kind": "tables"}, {"version": 2}])
def test_a_snapshot_of_another_kind_or_version_is_refused(tmp_path, other):
    """What this program cannot read is left alone and not taken for its state."""
    store(tmp_path, **other).save_now({}, {})
    assert store(tmp_path).load_latest_now() is None
    with pytest.raises(SnapshotError, match="is incompatible"):
        store(tmp_path).load(1)


def test_a_snapshot_of_an_earlier_release_is_refused_in_words(tmp_path, capsys):
    """Its layout is not read any more; the next snapshot follows it, and it goes when its turn comes."""
    (tmp_path / "snapshot-000000000007.exs").write_bytes(b"EXSNAP01" + b"\0" * 100)
    snapshots = store(tmp_path, keep=1)
    assert snapshots.load_latest_now() is None
    assert (
        "snapshot-000000000007.exs is incompatible (it has the layout of an earlier release)" in capsys.readouterr().out
    )
    assert snapshots.save_now({"x": np.ones(3)}, {}) == 8
    assert snapshots.sequences() == [8]


def test_other_files_in_the_folder_do_not_matter(tmp_path):
    """What a killed writer left, or anybody's notes, is no snapshot."""
    (tmp_path / "snapshot-000000000009.tmp").write_bytes(b"half")
    (tmp_path / "README").write_text("hello")
    snapshots = store(tmp_path)
    assert snapshots.save_now({}, {}) == 1
    assert snapshots.sequences() == [1]


def test_a_failed_write_leaves_those_before_untouched(tmp_path):
    """What cannot be written leaves neither a snapshot nor a half one."""
    snapshots = store(tmp_path)
    snapshots.save_now({"x": np.ones(3)}, {})
    with pytest.raises(TypeError):
        snapshots.save_now({"x": np.array([object()])}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot-000000000001.exs"]


def test_an_address_that_cannot_be_used_is_named(tmp_path):
    """A file where the folder should be, or an unknown protocol, ends in one line."""
    (tmp_path / "file").write_text("")
    for address in (tmp_path / "file", "nosuch://bucket/x"):
        with pytest.raises(SnapshotError, match=r"snapshots cannot be kept at .*(file|nosuch)"):
            store(address)


def test_versions_that_are_said_to_be_readable_are_read(tmp_path):
    """And written is only the present one."""
    store(tmp_path, version=1).save_now({}, {})
    present = store(tmp_path, version=3, earlier=[1, 2])
    assert present.load(1).sequence == 1
    present.save_now({}, {})
    with pytest.raises(SnapshotError, match="version is 3 where 1 was expected"):
        store(tmp_path, version=1).load(2)


def test_several_may_save_into_one_folder_at_once(tmp_path):
    """None fails for another's sake, what is there is whole, and nothing unfinished is left."""
    stores = [SnapshotStore(tmp_path, kind="state", version=1, keep=2) for _ in range(3)]
    for round_ in range(8):
        arrays = {"numbers": np.full(50_000, round_)}
        with ThreadPoolExecutor(len(stores)) as threads:
            list(threads.map(lambda store: store.save_now(arrays, {}), stores))  # noqa: B023 - done within the round
        latest = stores[0].load_latest_now()
        np.testing.assert_array_equal(latest.arrays["numbers"], arrays["numbers"])

    assert not list(tmp_path.glob("*.tmp"))
