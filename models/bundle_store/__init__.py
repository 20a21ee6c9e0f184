"""Where bundles are kept, with versions: a folder or any fsspec address.

    STORE/versions/<model version>/…    a bundle as it was trained; never changed
    STORE/promotions/<number>.json      the current version and the history up to then; the highest number holds

A version exists once its `bundle.json` is there, which is uploaded last. A promotion creates the next number and never
overwrites one, so that of two at once one fails and says so.

    address.py        what an address names: a bundle, a store's current version, or STORE@VERSION
    files.py          reading and writing at an address
    stored_bundle.py  a bundle there, by its manifest
    promotions.py     the history, and what rolling back means; pure
    store.py          put, list, promote, roll back, fetch
    cache.py          versions that were fetched
    watch.py          tells a running program of new versions
"""

from models.bundle_store.address import current_version, resolve
from models.bundle_store.store import BundleStore, StoredVersion
from models.bundle_store.watch import BundleWatch, Superseded

__all__ = ["BundleStore", "BundleWatch", "StoredVersion", "Superseded", "current_version", "resolve"]
