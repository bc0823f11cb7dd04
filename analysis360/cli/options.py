"""Arguments that commands share, and what they say: the series, the engine, the Hub."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis360.series import Series

ENGINES = ("auto", "vllm", "torch")
SERIES = "amber"
SERIES_HELP = (
    "a released series by name, a folder with series.toml or one model, a manifest, or org/name on the Hub"
)


def command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    """A command with its line of help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        allow_abbrev=False,
    )
    return parser


def checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """Which checkpoints, by which engine, and where results go."""
    add = parser.add_argument
    add("--series", default=SERIES, help=f"{SERIES_HELP} (%(default)s)")
    add(
        "--ckpts",
        default=":",
        metavar="SELECTOR",
        help="0:36:4, 0,17,-1, ckpt_010, ckpt_010:ckpt_020; all if left out",
    )
    add(
        "--engine",
        default="auto",
        choices=ENGINES,
        help="auto: vllm on a GPU, otherwise torch",
    )
    dtypes = ("float32", "bfloat16", "float16")
    add("--dtype", choices=dtypes, help="compute dtype; the manifest's if left out")
    add("--out", default="results", metavar="FOLDER", help="results folder (%(default)s)")
    remote_arguments(parser)


def remote_arguments(parser: argparse.ArgumentParser) -> None:
    """How a Hub is asked."""
    add = parser.add_argument_group("series on a Hub").add_argument
    add("--pattern", metavar="REGEX", help="branches that are checkpoints, such as 'step(?P<step>\\d+)'")
    add("--disk", metavar="SIZE", help="room for downloads, such as 60GB; what is free if left out")
    add("--cache", metavar="FOLDER", help="folder of downloads (~/.cache/analysis360/hub)")
    add("--patience", type=float, metavar="SECONDS", help="longest wait for a busy or failing Hub (600)")
    add("--trust-remote-code", action="store_true", help="run Python that a checkpoint brings")


def running_arguments(parser: argparse.ArgumentParser) -> None:
    """What runs of engines have in common."""
    parser.add_argument(
        "--shard", default="0/1", metavar="i/n", help="every n-th checkpoint from the i-th, from 0"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add = parser.add_argument_group("engine vllm").add_argument
    add("--tensor-parallel", type=int, default=1, metavar="GPUS", help="that share a model (%(default)s)")
    add(
        "--batch-invariant",
        action="store_true",
        help="results that no other row of a batch can change; slower",
    )


def hub_options(parsed: argparse.Namespace) -> dict[str, Any]:
    """`hub` and `pattern` of the public functions."""
    from analysis360.hub.options import HubOptions, parse_size

    chosen: dict[str, Any] = {"trust_remote_code": parsed.trust_remote_code}
    if parsed.disk is not None:
        chosen["disk"] = parse_size(parsed.disk)
    if parsed.cache is not None:
        chosen["cache"] = Path(parsed.cache)
    if parsed.patience is not None:
        chosen["patience"] = parsed.patience
    return {"hub": HubOptions(**chosen), "pattern": parsed.pattern}


def running_options(parsed: argparse.Namespace, *names: str) -> dict[str, Any]:
    """What a public function is told: the options named, and those that all runs of engines have."""
    from analysis360.engines import VllmOptions

    told = {name: getattr(parsed, name) for name in (*names, "engine", "dtype", "seed", "shard", "out")}
    vllm = VllmOptions(parsed.tensor_parallel, parsed.batch_invariant)
    return told | {"vllm": vllm, "hub": hub_options(parsed)["hub"], "progress": not parsed.quiet}


def opened(parsed: argparse.Namespace) -> Series:
    """The series that is asked about."""
    from analysis360.series import open_series

    return open_series(parsed.series, **hub_options(parsed))


def tell(result: Any, folder: Path) -> None:
    """What to know of a result, where its time went, and where it is."""
    for note in result.notes:
        print(f"note: {note}")
    for line in (result.report.line(), *result.report.details, *result.report.traffic):
        print(line)
    print(f"results: {folder}")
