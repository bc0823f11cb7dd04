"""What a user may choose about the Hub."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from analysis360.errors import SelectionError

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
SIZE = re.compile(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([KMGT]?)B?\s*", re.IGNORECASE)


def default_cache() -> Path:
    """ANALYSIS360_CACHE, or `analysis360/hub` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ANALYSIS360_CACHE") or Path(base) / "analysis360" / "hub")


@dataclass(frozen=True)
class HubOptions:
    """Where downloads live, how much room they may take, how long to wait."""

    cache: Path = field(default_factory=default_cache)
    """Folder of downloads; ours alone."""
    disk: int | None = None
    """Bytes that downloads may take; None: what is free on the disk."""
    patience: float = 600.0
    """Seconds a request may wait for a busy or failing Hub in all."""
    timeout: float = 20.0
    """Seconds without a byte after which an answer counts as lost."""
    connections: int = 32
    """Requests under way at a time."""
    endpoint: str | None = None
    """Address of the Hub; HF_ENDPOINT or huggingface.co if left out."""
    trust_remote_code: bool = False
    """Run Python that a checkpoint brings, where it needs some."""

    def __post_init__(self) -> None:
        for name in ("patience", "timeout", "connections"):
            if not getattr(self, name) > 0:
                raise SelectionError(f"{name}: expected more than 0, found {getattr(self, name)}")


def parse_size(text: str) -> int:
    """`60GB`, `1.5T`, `500MB` -> bytes (powers of ten). Raises SelectionError."""
    match = SIZE.fullmatch(text)
    if not match:
        raise SelectionError(f"size {text!r}: expected a number and a unit, such as 60GB")
    return int(float(match[1]) * UNITS[match[2].upper()])


def shown_size(size: float) -> str:
    """Bytes for people: `13.5 GB`."""
    for unit in ("B", "KB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
