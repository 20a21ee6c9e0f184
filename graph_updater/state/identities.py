"""Maps ids of users and items, any Unicode, to node numbers and back. Numbers are reused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from graph_updater.state.name_bytes import NameBytes

USER: Final = 1
ITEM: Final = 2
NOBODY: Final = 0


class Identities:
    """Users and items share the numbers; a user and an item may have the same id."""

    def __init__(self) -> None:
        self.users: dict[str, int] = {}
        self.items: dict[str, int] = {}
        self.names: list[str] = []
        """(nodes,) the id of each number; empty where the number is free."""
        self.name_bytes = NameBytes()
        """The same ids, for compiled code."""
        self._free: list[int] = []

    def user_nodes(self, ids: Iterable[str]) -> tuple[list[int], list[int]]:
        """The number of every id, and which of them are new."""
        return self._nodes(self.users, ids)

    def item_nodes(self, ids: Iterable[str]) -> tuple[list[int], list[int]]:
        """The number of every id, and which of them are new."""
        return self._nodes(self.items, ids)

    def release(self, table: dict[str, int], node: int) -> str:
        """Frees a number. Returns the id that it had."""
        name = self.names[node]
        del table[name]
        self.names[node] = ""
        self._free.append(node)
        return name

    def restore(self, names: list[str], kinds: NDArray[np.uint8]) -> None:
        """Restores names and numbers from a snapshot."""
        self.names = names
        self.users = {names[node]: node for node in np.flatnonzero(kinds == USER).tolist()}
        self.items = {names[node]: node for node in np.flatnonzero(kinds == ITEM).tolist()}
        self._free = np.flatnonzero(kinds == NOBODY).tolist()
        for node, name in enumerate(names):
            self.name_bytes.set(node, name)

    def _nodes(self, table: dict[str, int], ids: Iterable[str]) -> tuple[list[int], list[int]]:
        nodes, new = [], []
        for name in ids:
            node = table.get(name)
            if node is None:
                node = self._number(name)
                table[name] = node
                new.append(node)
            nodes.append(node)
        return nodes, new

    def _number(self, name: str) -> int:
        if self._free:
            node = self._free.pop()
            self.names[node] = name
        else:
            node = len(self.names)
            self.names.append(name)
        self.name_bytes.set(node, name)
        return node
