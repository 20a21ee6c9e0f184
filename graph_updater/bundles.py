"""The bundle under `updater.bundle`: at the start, and each version that becomes current while the program runs."""

from __future__ import annotations

from typing import Final

import structlog

from graph_updater.graph.propagation import InvalidLayerWeights
from graph_updater.metrics import UpdaterMetrics
from graph_updater.settings import UpdaterSection
from graph_updater.state.nodes import Nodes
from models.bundle_files import GraphPart
from models.bundle_store import BundleWatch, Superseded, current_version, resolve
from runtime.clock import Clock
from runtime.errors import BundleError
from runtime.process.daemon_thread import in_daemon_thread

_THREAD: Final = "bundle"
log = structlog.get_logger(__name__)


class Bundles:
    """The versions of the bundle, one after the other.

    Args:
        settings: the address, and how often it is asked.
        clock: between two attempts at a version that cannot be loaded.
        metrics: counts versions that cannot be loaded.
    """

    def __init__(self, settings: UpdaterSection, clock: Clock, metrics: UpdaterMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._watch = BundleWatch(settings.bundle, settings.bundle_check_s, clock)

    async def load(self) -> GraphPart:
        """The current version, its hashes checked, from a thread.

        Raises:
            BundleError: it is missing, damaged, or nothing that this updater can use.
        """
        return await in_daemon_thread(self._load, _THREAD)

    async def next(self, in_use: str) -> GraphPart:
        """Waits for another version than the one in use, and until it is loaded. One that cannot be loaded is refused,
        and one that is superseded meanwhile is left.
        """
        while True:
            version = await self._watch.next_version(other_than=in_use)
            log.info("the bundle has another version, loading it", address=self._settings.bundle, version=version)
            try:
                bundle = await self._watch.while_current(version, self.load())
            except Superseded as reason:
                log.info("the bundle has yet another version", reason=str(reason))
            except (BundleError, OSError) as error:
                self._metrics.bundles_refused.inc()
                self._watch.refuse(version, error)
            else:
                if bundle.version != in_use:
                    return bundle

    def _load(self) -> GraphPart:
        folder = resolve(self._settings.bundle)
        log.info(
            "loading the bundle",
            address=self._settings.bundle,
            folder=str(folder),
            model_version=current_version(folder),
        )
        bundle = GraphPart.load(folder)
        _ = bundle.space  # computed once, of everything in it: here rather than in the event loop
        try:
            Nodes(self._settings.graph, bundle.graph.dim, tuple(bundle.graph.alphas.tolist()))
        except InvalidLayerWeights as error:
            raise BundleError(f"the bundle {folder} cannot be used: {error}; retrain it") from error
        return bundle
