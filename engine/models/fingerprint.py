"""A content hash of a checkpoint that is quick the second time.

Hashing gigabytes on every start would cost more than loading them, so an index remembers
each file's digest under its size and modification time.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

HASHED = ("*.json", "*.jinja", "*.safetensors")
# The code that decides what conversion writes: another version of it may write something else.
WRITERS = ("export.py", "export_encoder.py", "gpt2.py", "graph.py", "quantize.py")
CHUNK = 1 << 20


def fingerprint(folder: Path, index_file: Path) -> str:
    """Hex SHA-256 over names and contents of the files that conversion reads, and over its code.

    Args:
        index_file: where digests are remembered; created, and rewritten when they change.

    Raises:
        OSError: a file cannot be read or the index cannot be written.
    """
    index = _load(index_file)
    total = hashlib.sha256(writers_digest().encode())
    changed = False
    for path in sorted({p for pattern in HASHED for p in folder.glob(pattern)}):
        stat = path.stat()
        key, stamp = str(path.resolve()), [stat.st_size, stat.st_mtime_ns]
        known = index.get(key)
        if not (isinstance(known, list) and known[:2] == stamp and len(known) == 3):
            known = index[key] = [*stamp, file_digest(path)]
            changed = True
        total.update(f"{path.name}\0{known[2]}\0".encode())
    if changed:
        part = index_file.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(index), encoding="utf-8")
        os.replace(part, index_file)
    return total.hexdigest()


@functools.cache
def writers_digest() -> str:
    """Hex SHA-256 over WRITERS."""
    here = Path(__file__).parent
    return hashlib.sha256(b"".join((here / name).read_bytes() for name in WRITERS)).hexdigest()


def file_digest(path: Path) -> str:
    """Hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def _load(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
