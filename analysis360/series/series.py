"""A series: checkpoints in order, chunks of data in order, and what each had been trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from analysis360.errors import SelectionError
from analysis360.places import Place, Traffic
from analysis360.series.checkpoint import Checkpoint
from analysis360.series.chunk import Chunk
from analysis360.series.discovery import Listing
from analysis360.series.exposure import Exposure
from analysis360.series.manifest import Manifest
from analysis360.series.selectors import Selector, select


@dataclass(frozen=True)
class Series:
    """An ordered list of checkpoints, an ordered list of chunks, and the exposure between them."""

    name: str
    where: str
    """The folder, manifest or repository it was opened from."""
    manifest: Manifest
    checkpoints: tuple[Checkpoint, ...]
    chunks: tuple[Chunk, ...]
    held_out: tuple[Chunk, ...]
    canaries: tuple[Chunk, ...]
    exposure: Exposure
    place: Place | None = None
    """Where the files that the manifest names beside checkpoints and data are: the loss curve."""
    notes: tuple[str, ...] = ()
    """What the reader should know: checkpoints that are expected and not listed, old lists used offline."""
    listing: Listing | None = None
    """What a repository lists against what was expected of it; None for a series on disk."""
    moved: Callable[[], list[str]] = list
    """Asks again where the branches are: a line for each that has moved since the series was opened."""

    def select(self, selector: Selector) -> list[Checkpoint]:
        """The selected checkpoints in series order (see `selectors.select`)."""
        return [self.checkpoints[i] for i in select(selector, [c.name for c in self.checkpoints])]

    def select_chunks(self, selector: Selector) -> list[Chunk]:
        """The selected trained chunks in series order; `all` and `seen` select every one."""
        if selector in ("all", "seen"):
            return list(self.chunks)
        try:
            return [self.chunks[i] for i in select(selector, [c.name for c in self.chunks], what="chunk")]
        except SelectionError as error:
            error.add_note("all, seen and selectors as of checkpoints select chunks")
            raise

    def afresh(self) -> Series:
        """The same series with no digest or config remembered: what is on disk now counts.

        Commits of a Hub stay those that were found when the series was opened.
        """
        checkpoints = tuple(replace(checkpoint) for checkpoint in self.checkpoints)
        chunks, held_out, canaries = (
            tuple(replace(chunk) for chunk in role) for role in (self.chunks, self.held_out, self.canaries)
        )
        return replace(self, checkpoints=checkpoints, chunks=chunks, held_out=held_out, canaries=canaries)

    @property
    def controls(self) -> list[Chunk]:
        """Held-out chunks and canaries: scored beside text to tell memory from predictability."""
        return [*self.held_out, *self.canaries]

    @property
    def vocabulary(self) -> int:
        """Number of ids the first checkpoint knows; every other must agree."""
        return self.checkpoints[0].vocabulary

    @property
    def traffic(self) -> list[Traffic]:
        """What reading from each Hub has cost so far; empty for a series on disk."""
        places = [c.place for c in self.checkpoints] + [c.place for c in [*self.chunks, *self.controls]]
        return list({id(place.traffic): place.traffic for place in places if place.far}.values())

    def __repr__(self) -> str:
        counts = f"{len(self.checkpoints)} checkpoints, {len(self.chunks)} chunks"
        return f"Series({self.name!r}: {counts}, {self.where})"
