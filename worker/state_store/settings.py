"""How much the tables keep and how they are searched. Apart from them, so that settings need not import FAISS."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from runtime.settings import Address, SettingsSection


class TableSettings(SettingsSection):
    """What is kept of users and items, `[worker.tables]`."""

    title_tokens: int = Field(32, ge=0, description="tokens kept of an item's text")
    exact_search_limit: int = Field(20_000, ge=1, description="most entries searched exactly; beyond: inverted lists")
    least_recall: float = Field(0.95, gt=0, le=1, description="below this share of true neighbours more lists are read")
    recall_check_interval: int = Field(1_000, ge=1, description="searches between two comparisons with exact search")
    retrain_growth: float = Field(
        1.5, gt=1, description="lists are trained anew after growing, or changing, by this factor"
    )
    users: Literal["all", "assigned"] = Field(
        "all",
        description="whose states are held: all users', or those of the partitions that the worker's group gives it",
    )
    standby_partitions: int = Field(
        0,
        ge=0,
        description="with users = assigned: partitions held beyond its own, warm for when a worker ends",
    )
    saved: Address = Field(
        "",
        description="folder or any fsspec address where the tables are kept, so that a start reads only what is newer; "
        "workers of one group may share it; empty: nowhere",
    )
    save_interval_s: float = Field(300.0, gt=0, description="between two copies there; one more is made at the end")
    update_batch: int = Field(100, ge=1, description="updates applied between two steps of inference")

    @model_validator(mode="after")
    def _check_standby(self) -> Self:
        if self.standby_partitions and self.users == "all":
            raise ValueError('standby_partitions needs users = "assigned": with all users every partition is held')
        return self
