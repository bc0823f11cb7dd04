"""Which files are large: by the suffixes of the Hub's default attributes and by size."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

__all__ = ["GITATTRIBUTES", "LARGE_BYTES", "git_oid", "is_large", "pointer", "tree_oid"]

LARGE_BYTES = 10 * 1024 * 1024
"""Files over this many bytes are large whatever they are called."""
LARGE = """
7z arrow bin bz2 ckpt ftz gz h5 joblib lz4 mlmodel model msgpack npy npz onnx ot parquet pb pickle pkl pt pth rar
safetensors tar tflite tgz wasm xz zip zst
"""
SUFFIXES = frozenset(LARGE.split())
GITATTRIBUTES = "".join(
    f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in sorted(SUFFIXES)
).encode()


def is_large(path: str, size: int) -> bool:
    """Whether the Hub keeps a file of this path and size (bytes) outside git; empty files never are."""
    return size > LARGE_BYTES or (size > 0 and PurePosixPath(path).suffix.lower().lstrip(".") in SUFFIXES)


def git_oid(content: bytes | Path) -> str:
    """The SHA-1 by which git knows content, hex; a file is read in pieces. Raises OSError."""
    if isinstance(content, bytes):
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    digest = hashlib.sha1(b"blob %d\0" % content.stat().st_size, usedforsecurity=False)
    with content.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def pointer(sha256: str, size: int) -> bytes:
    """What git holds in place of a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def tree_oid(path: str, commit: str) -> str:
    """An identifier for a folder of a commit, 40 hex digits; unlike git's it is no digest of the content."""
    return hashlib.sha1(f"{commit}/{path}".encode(), usedforsecurity=False).hexdigest()
