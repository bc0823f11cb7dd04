"""The command line: `python -m training prepare | run | trace | publish`."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from analysis360.errors import Analysis360Error
from training.config import Recipe
from training.errors import StoppedError, TrainingError
from training.publishing.arguments import check_license, check_repository
from training.recipes import RECIPES

__all__ = ["main"]

FIRST = int(os.environ.get("RANK", 0)) == 0
"""Whether this process speaks: torchrun numbers those it starts."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; exit code 0 done, 1 failed, 2 wrong arguments, 128 + the signal's number when stopped."""
    arguments = _parser().parse_args(argv)
    try:
        said = _command(arguments)
    except (TrainingError, Analysis360Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, StoppedError) as stopped:
        if FIRST:
            launcher = ["python", "-m", "training"]
            if "LOCAL_WORLD_SIZE" in os.environ:
                launcher = ["torchrun", "--nproc-per-node", os.environ["LOCAL_WORLD_SIZE"], *launcher[1:]]
            again = shlex.join([*launcher, *(sys.argv[1:] if argv is None else argv)])
            saved = (
                "stopped and saved"
                if isinstance(stopped, StoppedError)
                else "stopped; nothing complete is lost"
            )
            print(f"\n{saved}; this goes on from here: {again}", file=sys.stderr)
        return 128 + (stopped.number if isinstance(stopped, StoppedError) else 2)
    if FIRST:
        print(said)
    return 0


def _command(arguments: argparse.Namespace) -> str:
    if arguments.command == "prepare":
        return _prepare(arguments)
    if arguments.command == "run":
        return _run(arguments)
    if arguments.command == "trace":
        from training.data.trace import trace

        return trace(arguments.out, arguments.chunk, arguments.row, byte=arguments.byte)
    from training.publishing.publish import publish

    where, private = arguments.endpoint, arguments.private
    return publish(arguments.run, arguments.to, endpoint=where, private=private, license=arguments.license)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description="Train a series of checkpoints.")
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="write the tokenizer and the rows that `run` trains on")
    prepare.add_argument(
        "--recipe",
        choices=list(RECIPES),
        help="what to make (tiny if left out); with --mix: the model and the loop for it",
    )
    prepare.add_argument("--mix", type=Path, metavar="FILE", help="a data mix of your own (TOML)")
    prepare.add_argument("--workers", type=int, default=1, metavar="N", help="processes (%(default)s)")
    run = commands.add_parser("run", help="train what was prepared; a checkpoint follows every chunk")
    run.add_argument("--mix", type=Path, metavar="FILE", help="with --from: the data to go on with (TOML)")
    for command in (prepare, run):
        command.add_argument(
            "--from",
            dest="parent",
            metavar="SERIES@CKPT",
            help="go on from a checkpoint, such as runs/demo/tiny@ckpt_020 or amber@ckpt_100, with the data of --mix",
        )
    run.add_argument(
        "--track",
        action="append",
        default=[],
        choices=("wandb", "tensorboard"),
        help="send metrics there too",
    )
    trace = commands.add_parser("trace", help="show the documents a row was made of")
    trace.add_argument("--chunk", type=int, required=True, metavar="N", help="number of the training chunk")
    trace.add_argument("--row", type=int, required=True, metavar="N", help="number of the row, from 0")
    trace.add_argument(
        "--byte", action="store_true", help="--row is the byte its line begins at, as in results"
    )
    publish = commands.add_parser("publish", help="upload the series to a Hub, a branch a checkpoint")
    publish.add_argument("run", type=Path, metavar="RUN", help="folder of the series")
    publish.add_argument(
        "--to",
        type=_checked(check_repository, "--to"),
        required=True,
        metavar="ORG/NAME",
        help="repository; data go to ORG/NAME-data",
    )
    publish.add_argument("--endpoint", metavar="URL", help="address of the Hub (default: HF_ENDPOINT)")
    publish.add_argument("--private", action="store_true", help="make both repositories private")
    publish.add_argument(
        "--license",
        type=_checked(check_license, "--license"),
        metavar="ID",
        help="for the cards, such as apache-2.0 (default: none named)",
    )
    for command in (prepare, run, trace):
        command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the series")
    return parser


def _checked(check: Callable[[str], None], option: str) -> Callable[[str], str]:
    """The type of an option: what the check refuses is a wrong argument."""

    def value(text: str) -> str:
        try:
            check(text)
        except TrainingError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix(f"{option}: ")) from None
        return text

    return value


def _prepare(arguments: argparse.Namespace) -> str:
    from training.data.prepare import prepare
    from training.series import check_recipe, read_recipe

    out: Path = arguments.out
    if arguments.parent:
        return _descend(arguments)
    recipe = read_recipe(out)
    if arguments.recipe or arguments.mix or recipe is None:
        recipe = _asked(arguments.recipe, arguments.mix)
        check_recipe(out, recipe)
    return prepare(recipe, out, arguments.workers)


def _descend(arguments: argparse.Namespace) -> str:
    """Make the folder ready to go on from a checkpoint of another series."""
    if arguments.mix is None:
        raise TrainingError("--from", expected="a mix to go on with", found="none", fix="add --mix FILE")
    from training.parent import descend

    return descend(arguments.out, arguments.parent, arguments.mix, getattr(arguments, "workers", 1))


def _asked(name: str | None, mix: Path | None) -> Recipe:
    """The recipe of the code, or one whose data are a mix of the user's."""
    if mix is None:
        return RECIPES[name or "tiny"]()
    from training.data.mix import mix_recipe

    return mix_recipe(mix, RECIPES[name]() if name else None)


def _run(arguments: argparse.Namespace) -> str:
    from training.files import only_one
    from training.series import checkpoints_done, read_recipe

    out: Path = arguments.out
    if arguments.mix and not arguments.parent:
        fix = "prepare with --mix, or add --from SERIES@CKPT"
        raise TrainingError("run --mix", expected="a checkpoint to go on from", found="none", fix=fix)
    if arguments.parent:
        if "RANK" in os.environ:
            fix = f"first: python -m training prepare --from {arguments.parent} --mix ... --out {out}"
            raise TrainingError("run --from", expected="one process", found="several", fix=fix)
        print(_descend(arguments))
    recipe = read_recipe(out)
    if recipe is None:
        fix = f"first: python -m training prepare --recipe NAME --out {out}"
        raise TrainingError(out, expected="a prepared folder", found="none", fix=fix)
    with only_one(out) if FIRST else nullcontext():
        if checkpoints_done(out) == recipe.mix.chunks:
            return f"{out}: trained already, {recipe.mix.chunks} checkpoints"
        report = _prepared(out)
        from training.train import train

        said = train(out, recipe, report, arguments.track)
        return f"{out}: {recipe.mix.chunks} checkpoints; {said}"


def _prepared(out: Path) -> dict[str, object]:
    """The report on the data. Raises TrainingError where they are not what was prepared."""
    from training.series import check_files, read_report

    report = read_report(out)
    fix = f"bring it back: python -m training prepare --out {out}"
    if report is None:
        raise TrainingError(out, expected="a prepared folder", found="no data/report.json", fix=fix)
    # Chunks are checked as they are reached.
    for name in check_files(out, report, hashed=lambda name: not name.startswith("data/")) if FIRST else ():
        raise TrainingError(
            out / name, expected="the file that was prepared", found="another or none", fix=fix
        )
    return report


if __name__ == "__main__":
    sys.exit(main())
