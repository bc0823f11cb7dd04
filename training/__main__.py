"""The command line: `python -m training prepare | run | publish`."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis360.errors import Analysis360Error
from training.errors import TrainingError
from training.recipes import RECIPES

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; exit code 0 done, 1 failed, 2 wrong arguments, 130 interrupted."""
    arguments = _parser().parse_args(argv)
    try:
        print(_command(arguments))
    except (TrainingError, Analysis360Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        again = shlex.join(["python", "-m", "training", *(sys.argv[1:] if argv is None else argv)])
        print(f"\nstopped; nothing complete is lost, this continues: {again}", file=sys.stderr)
        return 130
    return 0


def _command(arguments: argparse.Namespace) -> str:
    if arguments.command == "prepare":
        return _prepare(arguments.out, arguments.recipe)
    if arguments.command == "run":
        return _run(arguments.out)
    from training.publish import publish

    where, private = arguments.endpoint, arguments.private
    return publish(arguments.run, arguments.to, endpoint=where, private=private, license=arguments.license)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description="Train a series of checkpoints.")
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="write the tokenizer and the rows that `run` trains on")
    prepare.add_argument("--recipe", choices=list(RECIPES), help="what to make (default: tiny)")
    run = commands.add_parser("run", help="train what was prepared; a checkpoint follows every chunk")
    publish = commands.add_parser("publish", help="upload the series to a Hub, a branch a checkpoint")
    publish.add_argument("run", type=Path, metavar="RUN", help="folder of the series")
    publish.add_argument(
        "--to", required=True, metavar="ORG/NAME", help="repository; data go to ORG/NAME-data"
    )
    publish.add_argument("--endpoint", metavar="URL", help="address of the Hub (default: HF_ENDPOINT)")
    publish.add_argument("--private", action="store_true", help="make both repositories private")
    publish.add_argument(
        "--license", metavar="ID", help="for the cards, such as apache-2.0 (default: none named)"
    )
    for command in (prepare, run):
        command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the series")
    return parser


def _prepare(out: Path, name: str | None) -> str:
    from training.prepare import prepare
    from training.series import read_recipe

    stored = read_recipe(out)
    if stored is None:
        return prepare(RECIPES[name or "tiny"](), out)
    if name not in (None, stored.name):
        fix = f"choose another --out, or --recipe {stored.name}"
        raise TrainingError(out, expected=f"a folder for {name}", found=f"one for {stored.name}", fix=fix)
    return prepare(stored, out)


def _run(out: Path) -> str:
    from training.files import only_one
    from training.series import check_files, checkpoints_done, read_recipe, read_report, write_manifest

    recipe, report = read_recipe(out), read_report(out)
    if recipe is None or report is None:
        fix = f"first: python -m training prepare --out {out}"
        raise TrainingError(out, expected="a prepared folder", found="no data/report.json", fix=fix)
    with only_one(out):
        done, chunks = checkpoints_done(out, recipe), recipe.data.chunks
        if done == chunks:
            write_manifest(out, recipe, report, done)
            return f"{out}: trained already, {done} checkpoints"
        for name in check_files(out, report):
            fix = f"bring it back: python -m training prepare --out {out}"
            raise TrainingError(
                out / name, expected="the file that was prepared", found="another or none", fix=fix
            )
        from training.train import train

        train(out, recipe, report, done)
        return f"{out}: {chunks} checkpoints" + (f", {done} of them from before" if done else "")


if __name__ == "__main__":
    sys.exit(main())
