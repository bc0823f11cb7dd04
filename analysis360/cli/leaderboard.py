"""The command `leaderboard`."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis360.cli.options import (
    SERIES,
    checkpoint_arguments,
    opened,
    running_arguments,
    running_options,
    tell,
)
from analysis360.errors import SelectionError


def leaderboard_arguments(parser: argparse.ArgumentParser) -> None:
    """What `leaderboard` may be told."""
    checkpoint_arguments(parser)
    add = parser.add_argument
    add(
        "--tasks",
        default="open-llm",
        metavar="NAMES",
        help="open-llm (ARC, HellaSwag, MMLU, TruthfulQA), some of them, or lm-eval's tasks; arc@5 is 5-shot",
    )
    add(
        "--shots",
        type=int,
        metavar="N",
        help="examples before each question, where --tasks has no number; if left out, as the benchmark has it",
    )
    add("--limit", type=int, metavar="N", help="the first N questions of each task; all if left out")
    add("--include", metavar="FOLDER", help="folder of further lm-eval task files")
    add("--seed", type=int, default=1234, help="of the examples, where they are drawn (%(default)s)")
    add(
        "--models",
        nargs="+",
        metavar="MODEL",
        help="instead of --series and --ckpts: SERIES or SERIES:CKPTS, to stand beside the paper's in one table",
    )
    table = parser.add_argument_group("with --models").add_argument
    table("--layout", choices=("table4", "table5"), help="the paper's (table4)")
    table("--format", choices=("markdown", "latex", "csv"), help="(markdown)")
    running_arguments(parser)
    parser.set_defaults(run=_leaderboard)


def _leaderboard(parsed: argparse.Namespace) -> None:
    from analysis360.evaluating import leaderboard
    from analysis360.tables import evaluation_table

    options = running_options(parsed, "tasks", "shots", "limit", "include")
    if parsed.models:
        from analysis360.comparing import compare_models

        if (parsed.series, parsed.ckpts) != (SERIES, ":"):
            raise SelectionError("models: they stand in place of --series and --ckpts; give SERIES:CKPTS")
        table = compare_models(parsed.models, layout=parsed.layout or "table4", **options)
        print(getattr(table, parsed.format or "markdown")().rstrip())
        return
    if parsed.layout or parsed.format:
        raise SelectionError("layout, format: they are of the table that --models makes")
    result = leaderboard(opened(parsed), parsed.ckpts, **options)
    print(evaluation_table(result))
    tell(result, Path(parsed.out) / result.series.name / "leaderboard")
