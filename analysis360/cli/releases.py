"""The commands `series`, `doctor` and `hub`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from analysis360.cli.options import (
    ENGINES,
    SERIES,
    SERIES_HELP,
    command,
    hub_options,
    opened,
    remote_arguments,
)


def series_arguments(parser: argparse.ArgumentParser) -> None:
    """What `series` may be told."""
    parser.add_argument("series", nargs="?", default=SERIES, help=f"{SERIES_HELP} (%(default)s)")
    remote_arguments(parser)
    parser.set_defaults(run=_series)


def doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """What `doctor` may be told."""
    add = parser.add_argument
    add("series", nargs="?", default=SERIES, help=f"{SERIES_HELP} (%(default)s)")
    add("--json", action="store_true", help="print JSON for programs")
    add(
        "--loss",
        action="store_true",
        help="also fetch a few checkpoints, one by one, and test whether their numbers and those of the chunks agree",
    )
    add("--quiet", action="store_true", help="no progress bar")
    loss = parser.add_argument_group("with --loss").add_argument
    loss("--ckpts", metavar="SELECTOR", help="checkpoints to compare; 8 pairs of neighbours if left out")
    loss("--sequences", type=int, default=32, metavar="N", help="rows read of each chunk (%(default)s)")
    loss("--seed", type=int, default=0, help="of the rows and the bootstrap (%(default)s)")
    loss("--engine", default="auto", choices=ENGINES, help="(%(default)s)")
    remote_arguments(parser)
    parser.set_defaults(run=_doctor)


def hub_arguments(parser: argparse.ArgumentParser) -> None:
    """What `hub` may be told."""
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    serve = command(actions, "serve", "serve a folder as a Hub until Ctrl-C")
    serve.add_argument("folder", help="a series, served as if it were released; or a store to publish to")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s)")
    serve.add_argument("--port", type=int, default=8360, help="(%(default)s)")
    serve.set_defaults(run=_serve)


def _series(parsed: argparse.Namespace) -> None:
    from analysis360.tables import series_table

    print(series_table(opened(parsed)))


def _doctor(parsed: argparse.Namespace) -> int:
    from analysis360.doctor import doctor

    names = ("loss", "ckpts", "sequences", "seed", "engine")
    how = {name: getattr(parsed, name) for name in names} | {"progress": not parsed.quiet}
    found = doctor(parsed.series, **how, **hub_options(parsed))
    print(json.dumps(found.as_json(), indent=2) if parsed.json else found.table())
    return int(found.wrong)


def _serve(parsed: argparse.Namespace) -> None:
    from analysis360.loopback import serve

    serve(Path(parsed.folder), parsed.host, parsed.port)
