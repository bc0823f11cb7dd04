"""Where a run is in its schedule, and which chunk comes next."""

from dataclasses import dataclass, field

from training.errors import TrainingError

__all__ = ["Progress"]


@dataclass
class Progress:
    """The state of the loader: the order of the data follows from it and the files, and from nothing else."""

    order: list[int] = field(default_factory=list)
    """Chunk trained on at each position of the schedule that is finished."""
    abandoned: list[int] = field(default_factory=list)
    """Chunks that were given up, because their loss or gradient was not finite."""
    chunk_steps: int = 0
    """Steps taken of the chunk under way."""
    steps: int = 0
    """Steps taken in all."""
    tokens: int = 0
    """Targets trained on."""
    lines: int = 0
    """Lines of the metrics up to here."""

    def next_chunk(self, chunks: int) -> int:
        """The chunk of the next position: every chunk once, then from the first again; abandoned ones never.

        So a schedule with abandoned chunks is completed with the first ones (LLM360, section 4.1.5).
        """
        usable = [chunk for chunk in range(chunks) if chunk not in self.abandoned]
        if not usable:
            fix = "lower Rate.peak, or look at the data"
            raise TrainingError("training", expected="a finite loss", found="none in any chunk", fix=fix)
        return min(usable, key=lambda chunk: (self.order.count(chunk), chunk))

    def advance(self, targets: int) -> None:
        """A step was taken, and has a line."""
        self.steps += 1
        self.chunk_steps += 1
        self.tokens += targets
        self.lines += 1

    def finish(self, chunk: int) -> None:
        """The chunk under way is done."""
        self.order.append(chunk)
        self.chunk_steps = 0
