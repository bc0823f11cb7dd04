"""The command `figures`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from analysis360.cli.memorization import memorization_settings, result_of
from analysis360.cli.options import checkpoint_arguments, opened
from analysis360.errors import EngineError, NotStoredError

if TYPE_CHECKING:
    from analysis360.biases import BiasResult
    from analysis360.series import Series


def figures_arguments(parser: argparse.ArgumentParser) -> None:
    """What `figures` may be told."""
    checkpoint_arguments(parser)
    memorization_settings(parser)
    parser.add_argument(
        "--to", default="figures", metavar="FOLDER", help="folder for PNG and PDF files (%(default)s)"
    )
    parser.set_defaults(run=_figures)


def _figures(parsed: argparse.Namespace) -> None:
    from analysis360.evaluating import stored_benchmarks_of
    from analysis360.gallery import draw_all, draw_biases, draw_evaluations, draw_losses, draw_training
    from analysis360.perplexing import stored_perplexities

    series, to = opened(parsed), Path(parsed.to)
    options = {name: getattr(parsed, name) for name in ("engine", "dtype", "out")}
    answered = stored_benchmarks_of(series, parsed.ckpts, **options)
    continued = _continued(parsed, series)
    losses = list(stored_perplexities(series, parsed.ckpts, **options))
    try:
        result = result_of(parsed, series, compute=False)
    except NotStoredError as missing:
        try:
            for line in draw_training(series, to, missing):
                print(line)
        except NotStoredError:
            if not len(answered) and continued is None and not losses:
                raise
    else:
        for line in draw_all(result, to):
            print(line)
        for note in result.notes:
            print(f"note: {note}")
    for line in draw_evaluations(series, answered, to) if len(answered) else ():
        print(line)
    for line in () if continued is None else draw_biases(continued, to):
        print(line)
    for line in draw_losses(losses, to):
        print(line)


def _continued(parsed: argparse.Namespace, series: Series) -> BiasResult | None:
    """What is stored of BOLD's prompts, drawn as by default, where anything is."""
    from analysis360.continuing import bold

    options = {name: getattr(parsed, name) for name in ("engine", "dtype", "out")}
    try:
        found = bold(series, parsed.ckpts, compute=False, **options)
    except NotStoredError:
        return None
    except EngineError as error:
        print(f"not drawn: what is written about groups: {error}")
        return None
    stored, asked = len(found.continued.rows), sum(map(len, found.continued.task.units()))
    if stored < asked:  # of some prompts at some checkpoints, a curve would be of different ones
        print(
            f"not drawn: what is written about groups: {stored:,} of {asked:,} continuations of all prompts are "
            "stored; `analysis360 bold` with the options of that run and --to draws them"
        )
        return None
    return found
