"""Headers of safetensors files: dtypes, shapes and a few numbers of the weights, read by ranges."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis360.errors import DataError
from analysis360.places import Bytes

LONGEST_HEADER = 100 << 20
"""Bytes; safetensors itself reads no longer ones."""
ITEM = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
SAMPLES = 3
"""Tensors of which a few numbers are read."""
NUMBERS = 1024
"""Numbers read of each at most: 4 KiB of float32."""
EMBEDDINGS = ("emb", "wte", "wpe", "lm_head")
"""Parts of the names of tensors most of whose first rows training hardly touches."""
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself."""

    size: int
    """Bytes the file must have."""
    start: int
    """First byte of the tensors."""
    tensors: Mapping[str, tuple[str, tuple[int, ...], int]] = field(repr=False)
    """Name -> (dtype, shape, first byte counted from `start`)."""

    @property
    def dtype(self) -> str:
        """The dtype of most numbers."""
        numbers: Counter[str] = Counter()
        for dtype, shape, _ in self.tensors.values():
            numbers[dtype] += prod(shape)
        return numbers.most_common(1)[0][0] if numbers else "none"

    @property
    def shapes(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """(name, shape) of every tensor, sorted."""
        return tuple(sorted((name, shape) for name, (_, shape, _) in self.tensors.items()))


def read_header(file: Bytes) -> Header:
    """The header: 8 bytes of length and that much JSON. Raises DataError for anything else."""
    if file.size < 8:
        raise DataError(f"{file.size} bytes, too few for a header")
    length = int.from_bytes(file.read([(0, 8)])[0], "little")
    if length > min(file.size - 8, LONGEST_HEADER):
        raise DataError(f"a header of {length:,} bytes in a file of {file.size:,}")
    try:
        raw = json.loads(file.read([(8, 8 + length)])[0])
        raw.pop("__metadata__", None)
        tensors = {str(name): _tensor(entry) for name, entry in raw.items()}
        end = max((int(entry["data_offsets"][1]) for entry in raw.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise DataError("a header that is no safetensors header") from None
    return Header(8 + length + end, 8 + length, tensors)


def _tensor(entry: Any) -> tuple[str, tuple[int, ...], int]:
    start, stop = entry["data_offsets"]
    shape = tuple(int(size) for size in entry["shape"])
    if not 0 <= int(start) <= int(stop) or any(size < 0 for size in shape):
        raise ValueError
    return str(entry["dtype"]), shape, int(start)


def read_sample(file: Bytes, header: Header) -> dict[str, Vector]:
    """The first numbers of a few matrices, by name: enough to see how far apart two states of a model are."""
    spans = {}
    for name in _chosen(header):
        dtype, shape, offset = header.tensors[name]
        first = header.start + offset
        last = first + ITEM[dtype] * min(NUMBERS, _count(shape))
        if last <= file.size:
            spans[name] = (first, last)
    bodies = file.read(list(spans.values()))
    return {name: _numbers(body, header.tensors[name][0]) for name, body in zip(spans, bodies, strict=True)}


def _count(shape: tuple[int, ...]) -> int:
    return prod(shape)


def _chosen(header: Header) -> list[str]:
    """Matrices spread over the sorted names, the same in every file of the same tensors."""
    fit = [
        name
        for name, (dtype, shape, _) in sorted(header.tensors.items())
        if len(shape) > 1 and _count(shape) and dtype in ITEM and not any(part in name for part in EMBEDDINGS)
    ]
    return fit[:: max(1, -(-len(fit) // SAMPLES))]


def _numbers(body: bytes, dtype: str) -> Vector:
    if dtype == "BF16":
        wide = np.frombuffer(body, "<u2").astype(np.uint32) << 16
        return wide.view(np.float32).astype(np.float64)
    return np.frombuffer(body, {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float64)
