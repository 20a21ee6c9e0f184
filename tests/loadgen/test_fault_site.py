"""What the logs of disturbed programs tell."""

from __future__ import annotations

from loadgen.fault_site import transactions_lost
from runtime.delivery.exactly_once import LOST_TRANSACTIONS


def test_only_workers_that_deliver_exactly_once_lose_transactions(tmp_path):
    """Each line counts, also beside bytes that are no text; an updater's own line does not."""
    line = f'{{"event": "{LOST_TRANSACTIONS}"}}\n'.encode()
    (tmp_path / "exactly_once-a.log").write_bytes(line + b"\xff\n" + line)
    (tmp_path / "exactly_once-b.log").write_bytes(line)
    (tmp_path / "updater-a.log").write_bytes(line)
    assert transactions_lost(tmp_path) == 3
