"""The command `perplexity`."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis360.cli.options import checkpoint_arguments, opened, running_arguments, running_options, tell


def perplexity_arguments(parser: argparse.ArgumentParser) -> None:
    """What `perplexity` may be told."""
    checkpoint_arguments(parser)
    add = parser.add_argument
    add(
        "--window",
        type=int,
        metavar="N",
        help="ids read at once; what the model reads, or rows have, if left out",
    )
    text = parser.add_argument_group("text").add_argument
    text(
        "--text",
        nargs="+",
        default=(),
        metavar="FILE",
        help="files of text, a document each; or .jsonl, a document a line",
    )
    text("--lines", action="store_true", help="each line of a file of text is a document")
    text(
        "--dataset",
        metavar="NAME",
        help="data set on the Hub, NAME or NAME:CONFIGURATION, or a folder of its files",
    )
    text("--split", default="test", help="of the data set (%(default)s)")
    text("--field", default="text", help="that holds the text, of records (%(default)s)")
    text(
        "--stride",
        type=int,
        metavar="N",
        help="targets of each window after the first; the window's length if left out",
    )
    text(
        "--no-prefix",
        dest="prefix",
        action="store_false",
        help="first tokens are not asked about; they follow the series' prefix id if left out",
    )
    chunks = parser.add_argument_group("chunks, where no text is given").add_argument
    chunks("--chunks", default="all", metavar="SELECTOR", help="all (the default), seen, or as --ckpts")
    chunks("--sequences", type=int, default=100, metavar="N", help="rows a chunk, at most (%(default)s)")
    chunks("--seed", type=int, default=0, help="master seed of the panels (%(default)s)")
    running_arguments(parser)
    parser.set_defaults(run=_perplexity)


def _perplexity(parsed: argparse.Namespace) -> None:
    from analysis360.perplexing import perplexity
    from analysis360.tables import perplexity_table

    text, rows = ("text", "lines", "dataset", "split", "field", "stride", "prefix"), ("chunks", "sequences")
    options = running_options(parsed, *text, *rows, "window")
    result = perplexity(opened(parsed), parsed.ckpts, **options)
    print(perplexity_table(result))
    tell(result, Path(parsed.out) / result.series.name / "perplexity")
