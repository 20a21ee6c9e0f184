"""What an address leads to: a bundle's own folder, a store's current version, or the one it names."""

from pathlib import Path

import fsspec
import pytest

from models.bundle import MANIFEST, Bundle, read_manifest
from models.bundle_manifest import MAX_MANIFEST_BYTES
from models.bundle_store import BundleStore, current_version, resolve
from runtime.errors import BundleError


def test_a_bundles_own_folder_is_taken_as_it_is(two_bundles, monkeypatch):
    """By its path, absolute or not, or by a file:// URL; nothing is copied."""
    folder = two_bundles[0]
    monkeypatch.chdir(folder.parent)
    assert resolve(folder) == resolve(str(folder)) == resolve(f"file://{folder}") == folder
    assert resolve("first") == Path("first")
    assert current_version("first") == read_manifest(folder).model_version


def test_a_link_to_a_bundle_is_followed(two_bundles, tmp_path):
    """`current -> v3` is another way to switch."""
    (tmp_path / "current").symlink_to(two_bundles[1])
    assert current_version(tmp_path / "current") == read_manifest(two_bundles[1]).model_version
    assert resolve(tmp_path / "current") == tmp_path / "current"


def test_a_store_leads_to_its_current_version(store, address, two_bundles, tmp_path):
    """After each promotion to the new one."""
    for folder in two_bundles:
        version, _ = store.put(folder)
        store.promote(version, "us")
        assert current_version(address) == version
        assert Bundle.load(resolve(address, tmp_path / "cache")).version == version


def test_an_address_with_a_version_leads_to_it(store, address, two_bundles, tmp_path):
    """Whatever is current, and also before anything is."""
    first, second = (store.put(folder)[0] for folder in two_bundles)
    assert current_version(f"{address}@{first}") == first
    store.promote(first, "us")
    assert Bundle.load(resolve(f"{address}@{second}", tmp_path / "cache")).version == second


def test_a_folder_whose_name_looks_like_a_version_is_a_folder(two_bundles, tmp_path):
    """A bundle that lies there is what is meant."""
    folder = tmp_path / "bundle@0123456789ab"
    Bundle.load(two_bundles[0]).save(folder)
    assert resolve(folder) == folder


def test_a_bundle_at_a_url_is_fetched(remote, two_bundles, tmp_path):
    """Without a store around it: its manifest tells the version."""
    files, root = fsspec.core.url_to_fs(remote)
    files.put(f"{two_bundles[0]}/", f"{root}/", recursive=True)

    folder = resolve(remote, tmp_path / "cache")

    assert Bundle.load(folder).version == current_version(remote) == read_manifest(two_bundles[0]).model_version
    assert folder.is_relative_to(tmp_path / "cache")


def test_a_store_without_a_promotion_says_what_to_do(store, address, two_bundles):
    """No version is guessed."""
    store.put(two_bundles[0])
    for lookup in (resolve, current_version):
        with pytest.raises(BundleError, match="exitstream bundle promote"):
            lookup(address)


def test_a_missing_version_is_told(store, address, two_bundles):
    """With those that are there."""
    version, _ = store.put(two_bundles[0])
    with pytest.raises(BundleError, match=version):
        resolve(f"{address}@{'0' * 12}")


def test_an_empty_local_folder_is_left_to_the_loading(tmp_path):
    """Loading it says, as ever, how to train a bundle."""
    assert resolve(tmp_path / "nowhere") == tmp_path / "nowhere"
    with pytest.raises(BundleError, match="exitstream train"):
        current_version(tmp_path / "nowhere")


def test_nothing_at_a_url_is_told(remote):
    """The line says how to begin a store there."""
    with pytest.raises(BundleError, match="exitstream bundle put"):
        resolve(remote)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda content: content[:20], f"corrupt: {MANIFEST}"),
        (lambda content: content.replace(b"items.json", b"../../etc/passwd"), "does not list items.json"),
        (lambda content: content.replace(b'"dataset": "none"', b'"dataset": 7'), "corrupt.*dataset"),
        (lambda content: content.replace(b'"recent_items": 16', b'"recent_items": 17'), "model_version"),
        (lambda content: content + b" " * MAX_MANIFEST_BYTES, "more than"),
    ],
    ids=["cut off", "other file", "other type", "other limits", "too large"],
)
def test_a_corrupt_bundle_at_a_url_is_told(remote, two_bundles, tmp_path, change, finding):
    """Whatever is wrong with its manifest ends in one line with the address; nothing of it is kept."""
    with fsspec.open(f"{remote}/{MANIFEST}", "wb") as file:
        file.write(change((two_bundles[0] / MANIFEST).read_bytes()))
    for lookup in (lambda: resolve(remote, tmp_path), lambda: current_version(remote)):
        with pytest.raises(BundleError, match=finding) as raised:
            lookup()
        assert remote.removeprefix("memory://") in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_store_that_vanished_is_told(tmp_path, two_bundles):
    """A program that asks again later hears of it in one line."""
    store = BundleStore(tmp_path / "store")
    version, _ = store.put(two_bundles[0])
    with pytest.raises(BundleError, match="no complete version"):
        resolve(f"{tmp_path}/elsewhere@{version}")
