"""The command line: arguments -> the same public functions. Heavy imports wait until a command runs.

What each command may be told and what it then does stands in one place, by what it is about.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from typing import Any, NoReturn

from analysis360 import __version__
from analysis360.cli.code import code_arguments
from analysis360.cli.figures import figures_arguments
from analysis360.cli.leaderboard import leaderboard_arguments
from analysis360.cli.memorization import memorization_arguments
from analysis360.cli.options import command
from analysis360.cli.people import bold_arguments, toxicity_arguments
from analysis360.cli.perplexity import perplexity_arguments
from analysis360.cli.releases import doctor_arguments, hub_arguments, series_arguments
from analysis360.errors import Analysis360Error

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code: 0 done, 1 failed, 2 wrong arguments, 130 interrupted."""
    parsed = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminate)
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries; ours are errors in the tests
    try:
        return parsed.run(parsed) or 0
    except Analysis360Error as error:
        note = "; ".join(getattr(error, "__notes__", []))
        print(f"analysis360: {' '.join(str(error).split())}{f' ({note})' if note else ''}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(
            "analysis360: interrupted; what was finished is stored, run the same command to go on",
            file=sys.stderr,
        )
        return INTERRUPTED
    except BrokenPipeError:  # `analysis360 series ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _terminate(signum: int, frame: Any) -> NoReturn:
    """A batch system's SIGTERM ends a run as Ctrl-C does: finished units are kept."""
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="analysis360",
        allow_abbrev=False,
        description="What each checkpoint of a language model knows about each piece of its training data.",
    )
    parser.add_argument("--version", action="version", version=f"analysis360 {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    memorization_arguments(
        command(commands, "memorization", "continue training sequences and score what is memorized")
    )
    perplexity_arguments(
        command(commands, "perplexity", "tell how likely text, or the series' own chunks, are")
    )
    leaderboard_arguments(
        command(commands, "leaderboard", "ask benchmarks of lm-eval, or compare models by them")
    )
    code_arguments(command(commands, "code", "have checkpoints write programs, and judge them in a sandbox"))
    bold_arguments(
        command(commands, "bold", "continue BOLD's prompts and score what is written about groups of people")
    )
    toxicity_arguments(
        command(commands, "toxicity", "continue prompts that invite it, and tell what share is toxic")
    )
    figures_arguments(command(commands, "figures", "draw the figures of training, and of what is stored"))
    series_arguments(command(commands, "series", "show what a series holds"))
    doctor_arguments(command(commands, "doctor", "audit a release without downloading its weights"))
    hub_arguments(command(commands, "hub", "serve a series on this machine as a Hub"))
    return parser
