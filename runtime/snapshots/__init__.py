"""Snapshots of state: a store of the newest few, and the layout of each file."""

from runtime.snapshots.store import Snapshot, SnapshotStore

__all__ = ["Snapshot", "SnapshotStore"]
