"""How long scores are followed, and over how many of them live quality is measured."""

from __future__ import annotations

from pydantic import Field

from runtime.settings import SettingsSection


class OutcomeSettings(SettingsSection):
    """Live AUC and calibration, `[worker.outcomes]`."""

    wait_s: float = Field(60.0, gt=0, description="a score is judged by what its user did with the item until then")
    most_waiting: int = Field(
        100_000, ge=0, description="candidates followed at a time; further ones are skipped and counted. 0: none"
    )
    window: int = Field(10_000, ge=1, description="the latest judged scores that AUC and calibration are of")
    least: int = Field(100, ge=2, description="with fewer judged scores there is no AUC and no calibration yet")
