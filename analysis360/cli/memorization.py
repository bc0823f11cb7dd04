"""The command `memorization`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from analysis360.cli.options import checkpoint_arguments, opened, running_arguments, running_options, tell

if TYPE_CHECKING:
    from analysis360.results import MemorizationResult
    from analysis360.series import Series


def memorization_arguments(parser: argparse.ArgumentParser) -> None:
    """What `memorization` may be told."""
    checkpoint_arguments(parser)
    memorization_settings(parser)
    running_arguments(parser)
    parser.set_defaults(run=_memorization)


def memorization_settings(parser: argparse.ArgumentParser) -> None:
    """What is asked of sequences, in `memorization` and `figures`."""
    add = parser.add_argument
    add(
        "--chunks",
        default="all",
        metavar="SELECTOR",
        help="trained chunks: all (the default), seen, or as --ckpts",
    )
    add("--sequences", type=int, default=1000, metavar="N", help="sequences a chunk, at most (%(default)s)")
    add("--prompt-tokens", type=int, default=32, metavar="K", help="ids given (%(default)s)")
    add("--continuation-tokens", type=int, default=32, metavar="L", help="ids asked for (%(default)s)")
    add("--seed", type=int, default=0, help="master seed of the panels (%(default)s)")
    add(
        "--metric",
        default="score",
        choices=("score", "extractible"),
        help="extractible: only which sequences are recalled word for word, which costs less (%(default)s)",
    )
    add("--compat", choices=("analysis360",), help="score as the published code does: stop at EOS and pad")


def result_of(parsed: argparse.Namespace, series: Series, *, compute: bool) -> MemorizationResult:
    """The result asked for, computed or as it is stored."""
    from analysis360.api import memorization

    asked = ("chunks", "sequences", "prompt_tokens", "continuation_tokens", "compat", "metric")
    stored = {name: getattr(parsed, name) for name in (*asked, "engine", "dtype", "seed", "out")}
    options = running_options(parsed, *asked) if compute else stored
    return memorization(series, parsed.ckpts, compute=compute, **options)


def _memorization(parsed: argparse.Namespace) -> None:
    from analysis360.tables import memorization_table

    result = result_of(parsed, opened(parsed), compute=True)
    print(memorization_table(result))
    tell(result, Path(parsed.out) / result.series.name / "memorization")
