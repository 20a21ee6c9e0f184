"""Finds the items of a batch that make it fail, so that they cost nobody else an answer. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def isolated(
    batch: Sequence[Item],
    run: Callable[[Sequence[Item]], Result],
    failed: Callable[[Item, Exception], None],
) -> Iterator[tuple[Sequence[Item], Result]]:
    """Runs a batch; if that fails its halves, and so on until an item that fails is alone.

    A batch of n with one such item takes at most 2 log2(n) + 1 runs more; if all fail, 2n - 1 in all.

    Args:
        batch: the items, each of which is in exactly one result or failed.
        run: runs some of them together. When it raises it must have changed nothing: its items are run again.
        failed: told of each item that fails alone, inside the `except` block.

    Yields:
        Items that ran together, in the order of the batch, and their result.
    """
    left = [batch] if batch else []
    while left:
        items = left.pop()
        try:
            result = run(items)
        except Exception as error:  # noqa: BLE001 - whatever it is, the others must not suffer from it
            if len(items) == 1:
                failed(items[0], error)
                continue
        else:
            yield items, result
            continue
        # Outside the `except` block: the error's traceback holds the failed run's tensors until its end.
        half = len(items) // 2
        left += [items[half:], items[:half]]
