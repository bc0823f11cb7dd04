"""Series, Checkpoint, Chunk, Exposure: what goes in."""

from analysis360.series.exposure import Exposure
from analysis360.series.manifest import Manifest, read_manifest
from analysis360.series.selectors import select
from analysis360.series.series import Checkpoint, Chunk, Series, open_series

__all__ = ["Checkpoint", "Chunk", "Exposure", "Manifest", "Series", "open_series", "read_manifest", "select"]
