"""Changes bundles the way an unfriendly author could: any content, with sizes, hashes and model version that agree."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import msgspec

from models.bundle_manifest import ALL_FILES, MANIFEST, file_entry, model_version


def sign(folder: Path) -> None:
    """Makes the manifest agree with the files that are there."""
    manifest = json.loads((folder / MANIFEST).read_text())
    files = {name: file_entry(folder / name) for name in sorted(ALL_FILES) if (folder / name).is_file()}
    manifest["files"] = msgspec.to_builtins(files)
    manifest["model_version"] = model_version(files, manifest["prompt_limits"])
    (folder / MANIFEST).write_text(json.dumps(manifest))


def edit_json(path: Path, **changes: object) -> None:
    """Changes entries of a JSON object."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@dataclass
class TensorFile:
    """A safetensors file in parts: the header as a dictionary, then the numbers as bytes."""

    header: dict
    numbers: bytes

    @classmethod
    def read(cls, path: Path) -> TensorFile:
        """Takes a file apart."""
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        return cls(json.loads(content[8 : 8 + length]), content[8 + length :])

    def write(self, path: Path) -> None:
        """Puts it together, whatever it says."""
        header = json.dumps(self.header).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + self.numbers)
