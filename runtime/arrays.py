"""Arrays that grow in place, by an eighth.

`ndarray.resize` reallocates; on Linux large arrays grow by remapping their pages, so that growing neither copies nor
holds two copies. Elsewhere it does so for one array at a time.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_LEAST_GROWTH: Final = 256


def grow(array: NDArray[np.generic], needed: int) -> None:
    """Grows the array's first axis to at least `needed`, in place; new entries are zero.

    No view of the array may be alive: its memory may move.
    """
    rows = array.shape[0]
    if needed > rows:
        room = max(needed, rows + rows // 8 + _LEAST_GROWTH)
        array.resize((room, *array.shape[1:]), refcheck=False)
