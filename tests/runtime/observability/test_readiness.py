"""Readiness."""

from __future__ import annotations

from runtime.observability.readiness import Readiness


def test_it_is_ready_when_every_condition_holds():
    """Conditions begin as not ready, keep their reason, and may stop holding again."""
    readiness = Readiness(["tables", "model"])
    assert readiness.reasons() == {"tables": "starting", "model": "starting"}
    readiness.wait_for("tables", "3 of 10 records")
    readiness.ready("model")
    assert readiness.reasons() == {"tables": "3 of 10 records"}
    readiness.ready("tables")
    assert readiness.is_ready
    readiness.wait_for("progress", "stalled")
    assert not readiness.is_ready
