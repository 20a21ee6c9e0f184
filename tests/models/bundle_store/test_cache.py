"""Fetched versions: whole or not there, kept, few."""

import os
import time
from dataclasses import replace

import fsspec
import pytest

from models.bundle import Bundle
from models.bundle_store import BundleStore
from models.bundle_store.cache import KEPT, UNFINISHED, default_cache
from models.bundle_store.files import Files
from models.bundle_store.store import VERSIONS
from runtime.errors import BundleError


@pytest.fixture
def cache(tmp_path):
    """The cache's folder."""
    return tmp_path / "cache"


@pytest.fixture
def store(remote, cache):
    """A store that is not on a disk."""
    return BundleStore(remote, cache)


def folders(cache):
    """Names of everything in the caches of all stores."""
    return sorted(path.name for path in cache.glob("*/*"))


def test_a_version_is_downloaded_once(store, two_bundles, monkeypatch):
    """The second time it is taken from the cache."""
    version, _ = store.put(two_bundles[0])
    folder = store.fetch(version)
    monkeypatch.setattr(Files, "download", lambda *_: pytest.fail("downloaded again"))

    assert store.fetch(version) == folder


@pytest.mark.parametrize("after", [0, 3, 8])
def test_a_half_downloaded_version_is_none(store, cache, two_bundles, interrupted, after):
    """Interrupted after any number of files: nothing of that name is in the cache, and the next fetch gets all."""
    version, _ = store.put(two_bundles[0])
    with interrupted("download", after):
        store.fetch(version)
    assert folders(cache) == []

    assert Bundle.load(store.fetch(version)).version == version


def test_a_damaged_copy_is_fetched_again(store, two_bundles):
    """A byte that changed on this machine's disk is found and mended."""
    version, _ = store.put(two_bundles[0])
    damaged = store.fetch(version) / "items.json"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")

    assert Bundle.load(store.fetch(version)).version == version


def change(remote, name, content):
    """Overwrite a file of the store."""
    with fsspec.open(f"{remote}/{name}", "wb") as file:
        file.write(content)


@pytest.mark.parametrize("changed", [lambda content: content[:-1], lambda content: content[:-1] + b"x"])
def test_damage_in_the_store_is_told_and_nothing_kept(store, remote, cache, two_bundles, changed):
    """A file that is shorter, or of other content, is named; no such version is in the cache."""
    version, _ = store.put(two_bundles[0])
    name = f"{VERSIONS}/{version}/items.json"
    change(remote, name, changed(Files(remote).read(name, 1 << 20)))

    with pytest.raises(BundleError, match=r"items\.json") as raised:
        store.fetch(version)

    assert remote in str(raised.value)
    assert folders(cache) == []


def test_a_missing_file_in_the_store_is_told(store, remote, two_bundles):
    """It is named before anything large is downloaded."""
    version, _ = store.put(two_bundles[0])
    files, root = fsspec.core.url_to_fs(remote)
    files.rm(f"{root}/{VERSIONS}/{version}/items.json")

    with pytest.raises(BundleError, match=r"items\.json is missing"):
        store.fetch(version)


def test_a_few_versions_are_kept_those_used_last(store, cache, two_bundles, tmp_path):
    """One more than is kept: the one that was not used for longest goes."""
    bundle, found = Bundle.load(two_bundles[0]), []
    for number in range(KEPT + 1):
        calibration = replace(bundle.calibration, tolerance=0.3 + number)
        replace(bundle, calibration=calibration).save(tmp_path / "bundle")
        found.append(store.put(tmp_path / "bundle")[0])
    for version in (*found[:KEPT], found[0], found[KEPT]):
        store.fetch(version)

    assert folders(cache) == sorted({*found} - {found[1]})


def test_a_store_cannot_pass_its_files_off_as_anothers(store, remote, cache, two_bundles):
    """Two stores with the same version have a copy each."""
    version, _ = store.put(two_bundles[0])
    other = BundleStore(f"{remote}-other", cache)
    other.put(two_bundles[0])

    assert store.fetch(version) != other.fetch(version)


def test_a_cache_that_cannot_be_written_says_what_to_do(remote, two_bundles, tmp_path):
    """The line names the variable that moves it."""
    (tmp_path / "file").write_text("")
    store = BundleStore(remote, tmp_path / "file")
    version, _ = store.put(two_bundles[0])
    with pytest.raises(BundleError, match="XDG_CACHE_HOME"):
        store.fetch(version)


def test_the_cache_is_the_users_own_by_default(monkeypatch, tmp_path):
    """Where XDG_CACHE_HOME says, or else in the home folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "exitstream" / "bundles"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache() == tmp_path / "home" / ".cache" / "exitstream" / "bundles"


def test_a_version_of_a_local_store_is_used_in_place(two_bundles, cache, tmp_path):
    """Nothing is copied from one folder of this machine to another."""
    store = BundleStore(tmp_path / "store", cache)
    version, _ = store.put(two_bundles[0])

    assert store.fetch(version) == tmp_path / "store" / VERSIONS / version
    assert not cache.exists()


def test_what_a_program_that_died_left_unfinished_is_removed_after_a_day(store, two_bundles):
    """A download that is still going on is left alone."""
    version, _ = store.put(two_bundles[0])
    others = store.fetch(version).parent
    old, new = others / f"{UNFINISHED}old", others / f"{UNFINISHED}new"
    for folder in (old, new):
        folder.mkdir()
    long_ago = time.time() - 2 * 86_400
    os.utime(old, (long_ago, long_ago))
    store.fetch(version)

    assert (old.exists(), new.exists()) == (False, True)
