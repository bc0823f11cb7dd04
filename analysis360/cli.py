"""The command line: arguments -> the same public functions. Heavy imports wait until a command runs."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from analysis360 import __version__
from analysis360.errors import Analysis360Error

if TYPE_CHECKING:
    from analysis360.results import MemorizationResult

INTERRUPTED = 130
FORMATS = ("png", "pdf")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code: 0 done, 1 failed, 2 wrong arguments, 130 interrupted."""
    parsed = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminate)
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries; ours are errors in the tests
    try:
        parsed.run(parsed)
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
    return 0


def _terminate(signum: int, frame: Any) -> NoReturn:
    """A batch system's SIGTERM ends a run as Ctrl-C does: finished units are kept."""
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="analysis360",
        description="What each checkpoint of a language model knows about each piece of its training data.",
    )
    parser.add_argument("--version", action="version", version=f"analysis360 {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _memorization_arguments(
        _command(commands, "memorization", "continue training sequences and score what is memorized")
    )
    _figures_arguments(_command(commands, "figures", "draw the figures from stored results"))
    series = _command(commands, "series", "show what a series holds")
    series.add_argument("series", help="folder with series.toml, or a manifest")
    series.set_defaults(run=_series)
    return parser


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
    )
    return parser


def _memorization_arguments(parser: argparse.ArgumentParser) -> None:
    _selection_arguments(parser)
    parser.add_argument(
        "--shard", default="0/1", metavar="i/n", help="every n-th checkpoint from the i-th, from 0"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=_memorization)


def _figures_arguments(parser: argparse.ArgumentParser) -> None:
    _selection_arguments(parser)
    parser.add_argument(
        "--to", default="figures", metavar="FOLDER", help="folder for PNG and PDF files (%(default)s)"
    )
    parser.set_defaults(run=_figures)


def _selection_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    dtypes = ("float32", "bfloat16", "float16")
    add("--series", required=True, help="folder with series.toml, or a manifest")
    add(
        "--ckpts",
        default=":",
        metavar="SELECTOR",
        help="0:36:4, 0,17,-1, ckpt_010, ckpt_010:ckpt_020; all if left out",
    )
    add(
        "--chunks",
        default="all",
        metavar="SELECTOR",
        help="trained chunks: all (the default), seen, or as --ckpts",
    )
    add("--sequences", type=int, default=1000, metavar="N", help="sequences a chunk, at most (%(default)s)")
    add("--prompt-tokens", type=int, default=32, metavar="K", help="ids given (%(default)s)")
    add("--continuation-tokens", type=int, default=32, metavar="L", help="ids asked for (%(default)s)")
    add(
        "--engine",
        default="auto",
        choices=("auto", "vllm", "torch"),
        help="auto: vllm on a GPU, otherwise torch",
    )
    add("--dtype", choices=dtypes, help="compute dtype; the manifest's if left out")
    add("--seed", type=int, default=0, help="master seed of the panels (%(default)s)")
    add("--compat", choices=("analysis360",), help="score as the published code does: stop at EOS and pad")
    add("--out", default="results", metavar="FOLDER", help="results folder (%(default)s)")


def _result(parsed: argparse.Namespace, *, compute: bool) -> MemorizationResult:
    from analysis360.api import memorization

    names = ["chunks", "sequences", "prompt_tokens", "continuation_tokens"]
    names += ["engine", "dtype", "seed", "compat", "out"]
    options = {name: getattr(parsed, name) for name in names}
    if compute:
        options |= {"shard": parsed.shard, "progress": not parsed.quiet}
    return memorization(parsed.series, parsed.ckpts, compute=compute, **options)


def _memorization(parsed: argparse.Namespace) -> None:
    from analysis360.tables import memorization_table

    result = _result(parsed, compute=True)
    print(memorization_table(result))
    for note in result.notes:
        print(f"note: {note}")
    print(result.report.line())
    print(f"results: {Path(parsed.out) / result.series.name / 'memorization'}")


def _figures(parsed: argparse.Namespace) -> None:
    from analysis360.gallery import draw_all

    result = _result(parsed, compute=False)
    for line in draw_all(result, Path(parsed.to)):
        print(line)
    for note in result.notes:
        print(f"note: {note}")


def _series(parsed: argparse.Namespace) -> None:
    from analysis360.series import open_series
    from analysis360.tables import series_table

    print(series_table(open_series(parsed.series)))


if __name__ == "__main__":
    sys.exit(main())
