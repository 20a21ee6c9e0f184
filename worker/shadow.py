"""A shadow: a worker that scores a share of the requests with another bundle, for comparison.

It reads the same requests in a group of its own and writes to a topic of its own, so it takes nothing from those who
serve, neither requests nor processor time. What it cannot read, others have put into the dead letters.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

_HASH_BYTES: Final = 8
_HASHES: Final = 256**_HASH_BYTES


def is_in_share(request_id: str, share: float) -> bool:
    """Whether a request belongs to a share of all of them: the same ones in every process and at every time.

    Args:
        request_id: of the request.
        share: from 0 for none to 1 for all; a larger share has all that a smaller one has.
    """
    place = int.from_bytes(blake2b(request_id.encode(), digest_size=_HASH_BYTES).digest(), "big")
    return place < share * _HASHES
