"""The command `code`."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis360.cli.options import (
    checkpoint_arguments,
    opened,
    running_arguments,
    running_options,
    tell,
)
from analysis360.errors import SelectionError


def code_arguments(parser: argparse.ArgumentParser) -> None:
    """What `code` may be told."""
    checkpoint_arguments(parser)
    add = parser.add_argument
    add("--benchmarks", default="humaneval,mbpp", metavar="NAMES", help="(%(default)s)")
    add("--data", metavar="FOLDER", help="folder of humaneval.jsonl and mbpp.jsonl; the Hub's if left out")
    add("--mbpp-prompt", choices=("docstring", "paper"), help="paper: three solved problems (docstring)")
    add("--samples", type=int, default=1, metavar="N", help="programs a problem (%(default)s)")
    add("--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (%(default)s)")
    add("--top-p", type=float, default=1.0, metavar="P", help="(%(default)s)")
    add("--k", default="1", metavar="K", help="of pass@k, such as 1,10 (%(default)s)")
    add("--new-tokens", type=int, default=512, metavar="N", help="ids a program may take (%(default)s)")
    add("--seconds", type=int, default=5, metavar="S", help="processor time a program may take (%(default)s)")
    add("--limit", type=int, metavar="N", help="the first N problems of each benchmark; all if left out")
    add("--seed", type=int, default=0, help="of the draws (%(default)s)")
    add("--workers", type=int, metavar="N", help="programs judged at a time; one a processor if left out")
    add("--rescore", action="store_true", help="judge what is stored again, without a model")
    running_arguments(parser)
    parser.set_defaults(run=_code)


def _code(parsed: argparse.Namespace) -> None:
    from analysis360.coding import code_evaluation
    from analysis360.tables import code_table

    asked = ("benchmarks", "data", "mbpp_prompt", "samples", "temperature", "top_p", "new_tokens")
    options = running_options(parsed, *asked, "seconds", "limit", "workers")
    options |= {"k": _numbers("k", parsed.k), "compute": not parsed.rescore}
    result = code_evaluation(opened(parsed), parsed.ckpts, **options)
    if parsed.rescore:
        result = result.rescore()
    print(code_table(result))
    tell(result, Path(parsed.out) / result.series.name / "code")


def _numbers(name: str, text: str) -> list[int]:
    """`1,10` -> [1, 10]. Raises SelectionError."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise SelectionError(f"{name} {text!r}: expected whole numbers, such as 1,10") from None
