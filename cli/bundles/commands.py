"""What the commands of `exitstream bundle` do."""

from __future__ import annotations

import getpass
import json
import socket
from dataclasses import asdict
from pathlib import Path

import msgspec
import typer
from rich.console import Console

from cli.bundles.difference import difference
from cli.bundles.inspection import inspected
from cli.bundles.telling import tell_bundle, tell_difference, tell_versions
from models.bundle import Bundle, read_manifest
from models.bundle_manifest import Manifest
from models.bundle_store import BundleStore, StoredVersion, resolve
from models.golden_check import check_golden
from runtime.errors import BundleError


def list_bundles(address: str, *, as_json: bool) -> None:
    """Print the versions of a store and its promotions.

    Raises:
        BundleError: there is no store, or it cannot be read.
    """
    store = _existing(address)
    versions, history = store.versions(), store.history()
    promotions = () if history is None else history.promotions
    if as_json:
        told = {"versions": [_as_json(one) for one in versions], "promotions": msgspec.to_builtins(promotions)}
        typer.echo(json.dumps(told, indent=2))
    else:
        tell_versions(versions, promotions, Console(highlight=False))


def inspect_bundle(address: str, *, as_json: bool) -> None:
    """Print everything about one bundle.

    Raises:
        BundleError: there is none, a hash is wrong, or its golden scores are not what it gives here.
    """
    facts = inspected(resolve(address))
    if as_json:
        typer.echo(json.dumps(asdict(facts), indent=2))
    else:
        tell_bundle(facts, Console(highlight=False))
    if facts.golden_trouble:
        raise BundleError(facts.golden_trouble)


def compare_bundles(before: str, after: str, *, as_json: bool) -> None:
    """Print what is different between two bundles.

    Raises:
        BundleError: one of them does not load.
    """
    found = difference(_loaded(before), _loaded(after))
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
    else:
        tell_difference(found, Console(highlight=False))


def put_bundle(folder: Path, address: str) -> None:
    """Upload a bundle.

    Raises:
        BundleError: it is damaged, or the store cannot be written.
    """
    version, is_new = BundleStore(address).put(folder)
    if is_new:
        typer.echo(
            f"version {version} is in {address}; `exitstream bundle promote {address} {version}` makes it current"
        )
    else:
        typer.echo(f"version {version} was in {address} already; nothing was changed")


def promote_bundle(address: str, version: str, by: str | None) -> None:
    """Make a version current, if it gives here the scores that it was saved with.

    Raises:
        BundleError: it is not there, damaged, or fails its golden scores; or another was promoted at the same time.
    """
    store = _existing(address)
    before = store.history()
    if before is not None and before.current == version:
        typer.echo(f"version {version} is current already; nothing was changed")
        return
    requests = check_golden(Bundle.load(store.fetch(version)))
    store.promote(version, by or _own_name())
    checked = f"{requests} golden requests checked" if requests else "it has no golden requests to check"
    typer.echo(f"version {version} is current now ({checked}); before: {before.current if before else 'none'}")


def roll_back_bundle(address: str, to: str | None, by: str | None) -> None:
    """Return to a version. Its golden scores are not computed: going back must not wait, or fail, for them.

    Raises:
        BundleError: there is none to return to; or another was promoted at the same time.
    """
    store = _existing(address)
    before = store.history()
    after = store.roll_back(by or _own_name(), to)
    typer.echo(f"version {after.current} is current again; before: {before.current if before else 'none'}")


def _existing(address: str) -> BundleStore:
    store = BundleStore(address)
    if not store.exists():
        raise BundleError(f"no bundle store at {address}; `exitstream bundle put FOLDER {address}` begins one")
    return store


def _loaded(address: str) -> tuple[Bundle, Manifest]:
    folder = resolve(address)
    return Bundle.load(folder), read_manifest(folder)


def _own_name() -> str:
    """Who runs this, for the history. A container's user may have no name."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError, ImportError):
        return f"unknown@{socket.gethostname()}"


def _as_json(one: StoredVersion) -> dict[str, object]:
    manifest = one.manifest
    told: dict[str, object] = {"version": one.version, "current": one.is_current}
    if manifest is None:
        return told | {"trouble": one.trouble}
    return told | {
        "created_time_ms": manifest.created_time_ms,
        "bytes": manifest.bytes,
        "dataset": manifest.dataset,
        "metrics": manifest.metrics,
    }
