"""Series, Checkpoint, Chunk, Exposure: what goes in."""

from analysis360.series.checkpoint import Checkpoint
from analysis360.series.chunk import Chunk, Layout
from analysis360.series.exposure import Exposure
from analysis360.series.manifest import Manifest, read_manifest
from analysis360.series.opening import open_series
from analysis360.series.selectors import select
from analysis360.series.series import Series

__all__ = [
    "Checkpoint",
    "Chunk",
    "Exposure",
    "Layout",
    "Manifest",
    "Series",
    "open_series",
    "read_manifest",
    "select",
]
