"""A store in memory, at a file:// URL and in a folder: put, list, promote, roll back, fetch."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from bundle_forgery import edit_json

from models.bundle import MANIFEST, Bundle, read_manifest
from models.bundle_store import BundleStore
from models.bundle_store.files import Files
from models.bundle_store.store import PROMOTIONS, VERSIONS
from runtime.errors import BundleError


def write(address, name, content):
    """Put a file into a store behind its back."""
    with fsspec.open(f"{address}/{name}", "wb", auto_mkdir=True) as file:
        file.write(content)


def remove(address, name):
    """Take a file out of a store behind its back."""
    files, root = fsspec.core.url_to_fs(address)
    files.rm(f"{root}/{name}")


def names(address):
    """All files of a store."""
    files, root = fsspec.core.url_to_fs(address)
    return {str(path).removeprefix(root).lstrip("/") for path in files.find(root)}


def test_a_store_without_anything_says_how_to_begin(store):
    """It lists nothing, is none yet, and has no current version."""
    assert (store.exists(), store.versions(), store.history()) == (False, [], None)
    with pytest.raises(BundleError, match="exitstream bundle promote"):
        store.current()
    with pytest.raises(BundleError, match="nothing to roll back"):
        store.roll_back("us")


def test_what_was_put_is_fetched_whole(store, two_bundles, tiny_bundle):
    """The fetched folder loads as the same version, and is listed with what its manifest says."""
    assert store.put(two_bundles[0]) == (tiny_bundle.version, True)

    assert Bundle.load(store.fetch(tiny_bundle.version)).version == tiny_bundle.version
    [stored] = store.versions()
    assert (stored.version, stored.is_current, stored.trouble) == (tiny_bundle.version, False, "")
    assert stored.manifest == read_manifest(two_bundles[0])


def test_putting_a_bundle_makes_nothing_current(store, two_bundles):
    """Only a promotion does."""
    version, _ = store.put(two_bundles[0])
    assert store.history() is None

    store.promote(version, "us")

    assert store.current() == version


def test_versions_are_listed_by_age_with_the_current_one_marked(store, two_bundles):
    """The older one first, whatever their names."""
    second, _ = store.put(two_bundles[1])
    first, _ = store.put(two_bundles[0])
    store.promote(first, "us")

    assert [(one.version, one.is_current) for one in store.versions()] == [(first, True), (second, False)]


def test_promotions_are_told_with_time_and_name(store, two_bundles):
    """Promoting two and rolling back gives three entries; the last one holds."""
    first, second = (store.put(folder)[0] for folder in two_bundles)
    store.promote(first, "ann")
    store.promote(second, "bob")

    history = store.roll_back("eve")

    assert store.history() == history
    assert [(one.version, one.by, one.kind) for one in history.promotions] == [
        (first, "ann", "promotion"),
        (second, "bob", "promotion"),
        (first, "eve", "rollback"),
    ]
    assert all(one.time_ms > 0 for one in history.promotions)
    assert store.current() == first


def test_a_rollback_can_name_its_version(store, two_bundles):
    """Also one that was never current."""
    first, second = (store.put(folder)[0] for folder in two_bundles)
    store.promote(first, "us")
    assert store.roll_back("us", to=second).current == second


@pytest.mark.parametrize("version", ["0" * 12, "", "latest", "../versions", "A" * 12])
def test_a_version_that_is_not_there_is_told(store, two_bundles, version):
    """Promoting, rolling back to and fetching it name those that are there."""
    known, _ = store.put(two_bundles[0])
    store.promote(known, "us")
    for action in (lambda: store.promote(version, "us"), lambda: store.fetch(version)):
        with pytest.raises(BundleError, match=f"no complete version.*{known}"):
            action()
    assert store.current() == known


def test_putting_the_same_again_changes_nothing(store, address, two_bundles):
    """Nor does a bundle that differs only in what does not change a score: the first is kept."""
    store.put(two_bundles[0])
    before = names(address)

    assert store.put(two_bundles[0])[1] is False
    assert names(address) == before


def test_a_version_is_never_overwritten_with_other_content(store, address, two_bundles):
    """Of a stored manifest that says something else under this version nothing is replaced."""
    version, _ = store.put(two_bundles[0])
    name = f"{VERSIONS}/{version}/{MANIFEST}"
    forged = Files(address).read(name, 1 << 20).replace(version.encode(), b"0" * 12)
    write(address, name, forged)

    with pytest.raises(BundleError, match=version):
        store.put(two_bundles[0])

    assert Files(address).read(name, 1 << 20) == forged


def test_a_damaged_folder_is_not_put(store, two_bundles, tmp_path):
    """A changed file is named, and nothing is uploaded."""
    folder = tmp_path / "damaged"
    Bundle.load(two_bundles[0]).save(folder)
    edit_json(folder / "calibration.json", tolerance=9.0)

    with pytest.raises(BundleError, match=r"calibration\.json"):
        store.put(folder)

    assert not store.exists()


@pytest.mark.parametrize("after", [0, 1, 5, 8])
def test_a_half_uploaded_version_is_none(store, two_bundles, interrupted, after):
    """Interrupted after any number of files: it is not listed, promoted or fetched; putting it again completes it."""
    with interrupted("upload", after):
        store.put(two_bundles[0])
    version = read_manifest(two_bundles[0]).model_version
    assert store.versions() == []
    for action in (lambda: store.promote(version, "us"), lambda: store.fetch(version)):
        with pytest.raises(BundleError, match="no complete version"):
            action()

    assert store.put(two_bundles[0]) == (version, True)
    assert Bundle.load(store.fetch(version)).version == version


def test_nothing_temporary_is_left(store, address, two_bundles):
    """A store holds bundles and promotions alone."""
    version, _ = store.put(two_bundles[0])
    store.promote(version, "us")

    expected = {f"{VERSIONS}/{version}/{name}" for name in (*read_manifest(two_bundles[0]).files, MANIFEST)}
    assert names(address) == expected | {f"{PROMOTIONS}/000001.json"}


def test_of_promotions_at_once_each_is_in_the_history_or_told(store, address, two_bundles):
    """Eight promotions at a time: as many entries as those that did not fail, in one unbroken history."""
    found = [store.put(folder)[0] for folder in two_bundles]

    def promote(number):
        try:
            BundleStore(address).promote(found[number % 2], f"user {number}")
        except BundleError as error:
            assert "at the same time" in str(error)  # noqa: PT017 - either outcome is right
            return None
        return f"user {number}"

    with ThreadPoolExecutor(8) as threads:
        promoted = {by for by in threads.map(promote, range(8)) if by}

    told = [one.by for one in store.history().promotions]
    assert set(told) == promoted
    assert len(told) == len(promoted) >= 1


def test_a_promotion_that_was_overtaken_is_refused(store, address, two_bundles, monkeypatch):
    """Between its look at the history and its own entry another one was made: it fails, the other one holds."""
    first, second = (store.put(folder)[0] for folder in two_bundles)
    slow = BundleStore(address)
    overtake = slow._require

    def overtaken(version):
        overtake(version)
        store.promote(first, "quick")

    monkeypatch.setattr(slow, "_require", overtaken)
    with pytest.raises(BundleError, match="at the same time"):
        slow.promote(second, "slow")

    assert [one.by for one in store.history().promotions] == ["quick"]


def test_a_corrupt_history_is_told_and_the_one_before_can_take_over(store, address, two_bundles):
    """The error names the file; without it the former version is current."""
    first, second = (store.put(folder)[0] for folder in two_bundles)
    store.promote(first, "us")
    store.promote(second, "us")
    write(address, f"{PROMOTIONS}/000002.json", b'{"current": ')
    with pytest.raises(BundleError, match=r"000002\.json is corrupt"):
        store.current()

    remove(address, f"{PROMOTIONS}/000002.json")

    assert store.current() == first


def test_a_version_with_a_corrupt_manifest_does_not_hide_the_others(store, address, two_bundles):
    """It is listed with what is wrong."""
    first, second = (store.put(folder)[0] for folder in two_bundles)
    write(address, f"{VERSIONS}/{second}/{MANIFEST}", b"{")

    listed = {one.version: one for one in store.versions()}

    assert listed[first].manifest is not None
    assert f"{address}/{VERSIONS}/{second} is corrupt: {MANIFEST}" in listed[second].trouble
    assert "put the bundle there again" in listed[second].trouble


def test_a_version_in_anothers_place_is_not_taken_for_it(store, address, two_bundles):
    """A manifest that was copied to the folder of another version is told, and which version it is."""
    first, second = (store.put(folder)[0] for folder in two_bundles)
    write(address, f"{VERSIONS}/{second}/{MANIFEST}", (two_bundles[0] / MANIFEST).read_bytes())

    with pytest.raises(BundleError, match=f"{address}/{VERSIONS}/{second} holds version {first}"):
        store.fetch(second)


def test_other_files_in_a_store_do_no_harm(store, address, two_bundles):
    """Whatever else lies beside versions and promotions is not taken for one."""
    version, _ = store.put(two_bundles[0])
    store.promote(version, "us")
    for name in ("README.md", f"{VERSIONS}/notes.txt", f"{PROMOTIONS}/old.json", f"{PROMOTIONS}/9.json"):
        write(address, name, b"what?")

    assert [one.version for one in store.versions()] == [version]
    assert store.current() == version


def test_an_address_that_no_package_knows_is_told():
    """The line names the address and the cause."""
    with pytest.raises(BundleError, match="nonsense://bucket"):
        BundleStore("nonsense://bucket/store")


def test_a_store_that_cannot_be_written_is_told(two_bundles, tmp_path):
    """A file in place of the store's folder ends in one line."""
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot be"):
        BundleStore(tmp_path / "file").put(two_bundles[0])


def test_a_manifest_that_lists_paths_elsewhere_is_not_followed(remote, two_bundles, tmp_path):
    """Nothing is downloaded for a manifest whose names lead out of the bundle."""
    store = BundleStore(remote, tmp_path / "cache")
    version, _ = store.put(two_bundles[0])
    manifest = json.loads(Files(remote).read(f"{VERSIONS}/{version}/{MANIFEST}", 1 << 20))
    manifest["files"]["../../../escaped"] = {"bytes": 1, "sha256": "0" * 64}
    write(remote, f"{VERSIONS}/{version}/{MANIFEST}", json.dumps(manifest).encode())

    with pytest.raises(BundleError, match="no part of a bundle"):
        store.fetch(version)

    assert not list(Path(tmp_path).rglob("escaped"))


def test_two_bundles_of_one_model_are_one_version(store, two_bundles, tmp_path):
    """The data set's name and the figures do not change a score: the bundle that was first is kept."""
    store.put(two_bundles[0])
    replace(Bundle.load(two_bundles[0]), dataset="another name").save(tmp_path / "renamed")

    assert store.put(tmp_path / "renamed")[1] is False
    [stored] = store.versions()
    assert stored.manifest.dataset == "none"
