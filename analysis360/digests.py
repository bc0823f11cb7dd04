"""Content identity: SHA-256 of files, remembered so that a 27 GB shard is read once; seeds of what is asked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any


def digest_of(value: Any) -> str:
    """The first 16 hex digits of the SHA-256 of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def counter_seed(*parts: object) -> int:
    """A seed that depends on what is asked alone, not on what else is."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6], "big")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hex. Remembered a user by path, size, times and inode."""
    stamp, memo = _stamp(path), _memo(path)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(memo.read_text())
        if known["stamp"] == stamp:
            return str(known["sha256"])
    with path.open("rb") as file:
        value = hashlib.file_digest(file, "sha256").hexdigest()
    _keep(memo, stamp, value)
    return value


def remember_sha256(path: Path, value: str | None) -> None:
    """Note the digest of a file that was verified under another name."""
    if value is not None:
        _keep(_memo(path), _stamp(path), value)


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _memo(path: Path) -> Path:
    return _memo_folder() / hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]


def _keep(memo: Path, stamp: list[int], value: str) -> None:
    with contextlib.suppress(OSError):  # a read-only home only costs time
        memo.parent.mkdir(parents=True, exist_ok=True)
        aside = memo.with_name(f".{memo.name}.{uuid.uuid4().hex[:8]}")  # threads may note the same file
        aside.write_text(json.dumps({"stamp": stamp, "sha256": value}))
        aside.replace(memo)


def _memo_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "analysis360" / "digests"
