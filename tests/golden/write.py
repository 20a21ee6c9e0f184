"""Writes the golden bytes of the current schema version, once: `python tests/golden/write.py`.

What a released version wrote never changes, so existing files are left alone; a test compares them.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from schemas import codec, contracts, examples
from schemas.messages import SCHEMA_VERSION, ItemState, UserState
from schemas.packed_states import pack_state

FOLDER = Path(__file__).parent / f"v{SCHEMA_VERSION}"


def main() -> None:
    """Write what is missing."""
    FOLDER.mkdir(exist_ok=True)
    for size, messages in (("full", examples.FULL), ("smallest", examples.SMALLEST)):
        for message in messages:
            for wire_format in get_args(codec.WireFormat):
                path = FOLDER / f"{contracts.tag_of(type(message))}.{size}.{wire_format}"
                if not path.exists():
                    path.write_bytes(codec.encode(message, wire_format))
            path = FOLDER / f"{contracts.tag_of(type(message))}.{size}.packed"
            if isinstance(message, UserState | ItemState) and not path.exists():
                path.write_bytes(pack_state(message))


if __name__ == "__main__":
    main()
