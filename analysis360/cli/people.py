"""The commands `bold` and `toxicity`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from analysis360.cli.options import (
    checkpoint_arguments,
    opened,
    running_arguments,
    running_options,
    tell,
)

if TYPE_CHECKING:
    from analysis360.biases import BiasResult


def bold_arguments(parser: argparse.ArgumentParser) -> None:
    """What `bold` may be told."""
    checkpoint_arguments(parser)
    add = parser.add_argument
    add(
        "--prompts",
        metavar="SOURCE",
        help="folder of BOLD's files, or org/name on the Hub (AmazonScience/bold)",
    )
    add("--domains", default="all", metavar="NAMES", help="all, or some parted by commas (%(default)s)")
    add("--limit", type=int, metavar="N", help="the first N prompts of each group; all if left out")
    add("--samples", type=int, default=1, metavar="N", help="continuations of each prompt (%(default)s)")
    add("--greedy", action="store_true", help="draw nothing; top-k 40, top-p 0.95 otherwise")
    add("--new-tokens", type=int, default=20, metavar="N", help="ids of a continuation (%(default)s)")
    add("--seed", type=int, default=0, help="of all draws (%(default)s)")
    add("--rescore", action="store_true", help="score what is stored, without a model")
    add("--to", metavar="FOLDER", help="also draw figures there, and a table for papers")
    score = parser.add_argument_group("what is scored").add_argument
    score(
        "--text",
        default="continuation",
        choices=("continuation", "paper"),
        help="paper: prompt and continuation, names replaced (%(default)s)",
    )
    score("--toxicity", metavar="MODEL", help="id or folder of a classifier, or profanity-filter")
    score("--regard", metavar="MODEL", help="id or folder of a classifier")
    score("--norms", metavar="CSV", help="lexicon of psycholinguistic norms")
    score("--vectors", metavar="FILE", help="hard-debiased word vectors, word2vec's or GloVe's form")
    score(
        "--compat",
        choices=("analysis360",),
        help="sentiment as the published code has it: of prompt and response, beyond 0.05",
    )
    running_arguments(parser)
    parser.set_defaults(run=_bold)


def toxicity_arguments(parser: argparse.ArgumentParser) -> None:
    """What `toxicity` may be told."""
    checkpoint_arguments(parser)
    add = parser.add_argument
    add(
        "--task", default="toxigen", metavar="TASK", help="toxigen, or a TOML file like its own (%(default)s)"
    )
    add(
        "--prompts",
        metavar="SOURCE",
        help="data set on the Hub, or a folder of files; the task's if left out",
    )
    add(
        "--sets",
        default="all",
        metavar="NAMES",
        help="of prompts: all, or some parted by commas (%(default)s)",
    )
    add("--limit", type=int, metavar="N", help="some N prompts of each set; all if left out")
    add("--samples", type=int, default=1, metavar="N", help="continuations of each prompt (%(default)s)")
    add("--greedy", action="store_true", help="draw nothing; as the task says otherwise")
    add(
        "--scorer",
        metavar="MODEL",
        help="a text classifier, or profanity-filter; the task's if left out",
    )
    add(
        "--labels",
        nargs="+",
        metavar="LABEL",
        help="of the classifier that mean toxic; the task's if left out",
    )
    add("--seed", type=int, default=0, help="of all draws (%(default)s)")
    add("--to", metavar="FOLDER", help="also draw figures there, and a table for papers")
    running_arguments(parser)
    parser.set_defaults(run=_toxicity)


def _bold(parsed: argparse.Namespace) -> None:
    from analysis360.continuing import Scoring, bold
    from analysis360.tables import bias_table

    scoring = Scoring(
        *(getattr(parsed, name) for name in ("text", "toxicity", "regard", "norms", "vectors", "compat"))
    )
    options = running_options(parsed, "prompts", "domains", "limit", "samples", "greedy", "new_tokens")
    options |= {"scoring": scoring, "compute": not parsed.rescore}
    result = bold(opened(parsed), parsed.ckpts, **options)
    print(bias_table(result))
    _drawn(result, parsed)


def _toxicity(parsed: argparse.Namespace) -> None:
    from analysis360.tables import toxicity_table
    from analysis360.toxicity import toxic_generation

    asked = ("task", "prompts", "sets", "limit", "samples", "greedy", "scorer", "labels")
    result = toxic_generation(opened(parsed), parsed.ckpts, **running_options(parsed, *asked))
    print(toxicity_table(result))
    _drawn(result, parsed)


def _drawn(result: BiasResult, parsed: argparse.Namespace) -> None:
    """Draw where that is asked, and say what is to be said in the end."""
    from analysis360.gallery import draw_biases

    for line in () if parsed.to is None else draw_biases(result, Path(parsed.to)):
        print(line)
    tell(result, Path(parsed.out) / result.series.name / result.continued.task.name)
