"""The commands of `exitstream bundle` and their options. Each imports what it needs when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Model bundles: keep versions in a store, look at them, make one current, go back.", no_args_is_help=True
)

Store = Annotated[str, typer.Argument(help="Address of the store: a folder or a URL such as s3://bucket/bundles.")]
ADDRESS = "A bundle's folder, a store (its current version), or STORE@VERSION."
By = Annotated[str | None, typer.Option("--by", help="Who does it, for the history; default: user@machine.")]


@app.command("list")
def list_versions(
    store: Store,
    as_json: Annotated[bool, typer.Option("--json", help="Versions and promotions as JSON.")] = False,
) -> None:
    """List a store's versions, oldest first: time, size, training data, quality, which is current."""
    from cli.bundles.commands import list_bundles

    list_bundles(store, as_json=as_json)


@app.command("inspect")
def inspect(
    address: Annotated[str, typer.Argument(help=ADDRESS)],
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """Check a bundle's hashes and golden scores, and say what is in it; status 1 if it is not as it was saved."""
    from cli.bundles.commands import inspect_bundle

    inspect_bundle(address, as_json=as_json)


@app.command("diff")
def diff(
    before: Annotated[str, typer.Argument(help=ADDRESS)],
    after: Annotated[str, typer.Argument(help="The one to compare with it.")],
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """Compare two bundles: settings, items, calibration, graph part, and the golden scores of the first under both."""
    from cli.bundles.commands import compare_bundles

    compare_bundles(before, after, as_json=as_json)


@app.command("put")
def put(folder: Annotated[Path, typer.Argument(help="Folder of a trained bundle.")], store: Store) -> None:
    """Upload a bundle as a new version, after checking its hashes. It is not current before it is promoted."""
    from cli.bundles.commands import put_bundle

    put_bundle(folder, store)


@app.command("promote")
def promote(
    store: Store,
    version: Annotated[str, typer.Argument(help="One of the store's versions.")],
    by: By = None,
) -> None:
    """Make a version the current one, after checking its hashes and golden scores."""
    from cli.bundles.commands import promote_bundle

    promote_bundle(store, version, by)


@app.command("rollback")
def rollback(
    store: Store,
    to: Annotated[
        str | None, typer.Option("--to", help="Any of the store's versions; default: the one that was current before.")
    ] = None,
    by: By = None,
) -> None:
    """Return to the version that was current before; done again, to the one before that."""
    from cli.bundles.commands import roll_back_bundle

    roll_back_bundle(store, to, by)
