"""The first pass of `prepare`: every stage's documents, and those held out, to packs of rows."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from training.config import Mix
from training.data.bodies import Body, held_out_draws, stage_draws
from training.data.counts import Usage
from training.data.packs import Catalogue, Draw, fill
from training.data.rows import Numbers, Pack, Stream, random
from training.data.tokenizer import Coder

__all__ = ["DOCUMENTS", "Packed", "Packing", "pack"]

DOCUMENTS = "data/documents.parquet"


@dataclass(frozen=True)
class Packed:
    """The rows of a stage, or of the held-out chunks."""

    packs: tuple[Pack, ...]
    """Where they are, a pack a take."""
    order: Numbers
    """The permutation: the number, counted through all packs, of each row in order. 8 bytes a row."""
    usage: dict[str, Usage]
    """Documents used of each source."""


@dataclass(frozen=True)
class Packing:
    """All rows."""

    stages: tuple[Packed, ...]
    """Of each stage."""
    aside: Packed
    """Held out; some rows more than the held-out chunks have."""
    usage: dict[str, Usage]
    """Documents trained on of each source, over all stages."""


def pack(mix: Mix, bodies: dict[str, Body], coder: Coder, scratch: Path) -> Packing:
    """Write all packs and the catalogue of documents below a scratch folder."""
    usage = {name: Usage(len(body.documents)) for name, body in bodies.items()}
    rows = mix.total_rows + mix.held_out_chunks * mix.rows
    path = scratch / DOCUMENTS
    path.parent.mkdir(parents=True)
    bar = tqdm(total=rows * mix.row_tokens, unit="token", unit_scale=True, desc="tokenising", disable=None)
    with bar, closing(Catalogue(path)) as catalogue:
        packer = _Packer(bodies, coder, catalogue, scratch, mix.row_tokens, bar.update)
        stages = []
        for index in range(len(mix.stages)):
            order = random(mix.seed, Stream.TRAIN_ROWS, index)
            stages.append(packer.pack(f"stage-{index}", stage_draws(mix, bodies, index), order, usage))
        order = random(mix.seed, Stream.HELD_OUT_ROWS)
        aside = packer.pack("held-out", held_out_draws(mix, bodies), order, {})
    return Packing(tuple(stages), aside, usage)


@dataclass(frozen=True)
class _Packer:
    bodies: dict[str, Body]
    coder: Coder
    catalogue: Catalogue
    scratch: Path
    row_tokens: int
    progress: Callable[[int], object]

    def pack(
        self, name: str, draws: list[Draw], order: np.random.Generator, whole: dict[str, Usage]
    ) -> Packed:
        """The packs of some draws. Documents used are counted here, and in `whole` where it has the source."""
        packs: list[Pack] = []
        usage: dict[str, Usage] = {}
        for number, draw in enumerate(draws):
            documents = self.bodies[draw.source].documents
            here = usage.setdefault(draw.source, Usage(len(documents)))
            counted = [here, whole[draw.source]] if whole else [here]
            path = self.scratch / f"{name}-{number}.rows"
            for document, tokens in fill(path, draw, documents, self.coder, self.row_tokens, self.catalogue):
                self.progress(tokens)
                for each in counted:
                    each.add(document, tokens)
            for each in counted:
                each.rows += draw.rows
            packs.append(Pack(path, draw.source, draw.rows))
        rows = sum(pack.rows for pack in packs)
        return Packed(tuple(packs), order.permutation(rows), usage)
