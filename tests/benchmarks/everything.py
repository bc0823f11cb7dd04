"""All benchmarks in one table, kept in RESULTS.md beside this file.

    python tests/benchmarks/everything.py [--quick] [--only swap,sweep]

`--quick` tries every benchmark at a small size and keeps nothing: its figures mean nothing. Let the
machine do nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from importlib import import_module

from harness import HERE, MOST, Line, machine, missing, table, versions

NAMES = (
    "continuation",
    "swap",
    "sweep",
    "hub",
    "panels",
    "cheaper",
    "trainer",
    "evaluations",
    "golden",
    "results",
)
RESULTS = HERE / "RESULTS.md"
TEXT = """# Benchmarks

`{command}` on {date}, {minutes:.0f} minutes. {machine}. {versions}.

Every figure is a ratio of contestants that took turns in the same run, each in a process of its own: the
median of the rounds, and their range. *Others* is the most of the machine's CPU that other work took of a run
it rests on; above {most:.0%} the run was repeated, and where that did not help the line says *disturbed*.

{table}
"""


def measure(name: str, quick: bool) -> list[Line]:
    """The lines of one benchmark; what fails is a line too, and does not stop the others."""
    print(f"{name}", file=sys.stderr)
    try:
        found: list[Line] = import_module(name).lines(quick)
    except (Exception, SystemExit) as error:
        print(f"{name} failed: {error}", file=sys.stderr)
        return [missing(name, (str(error) or type(error).__name__).splitlines()[0][:200])]
    return found


def main() -> int:
    """Measure, print, keep; 1 where something could not be measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes; keeps nothing")
    parser.add_argument("--only", default="", help=f"some of {', '.join(NAMES)}; keeps nothing")
    parsed = parser.parse_args()
    there = [name for name in NAMES if (HERE / f"{name}.py").exists()]
    asked = parsed.only.split(",") if parsed.only else there
    if unknown := sorted(set(asked) - set(there)):
        parser.error(f"no benchmark {', '.join(unknown)}: expected some of {', '.join(there)}")
    began = time.monotonic()
    lines = [line for name in asked for line in measure(name, parsed.quick)]
    text = TEXT.format(
        command="make bench",
        date=datetime.now(UTC).date(),
        minutes=(time.monotonic() - began) / 60,
        machine=machine(),
        versions=versions(),
        most=MOST,
        table=table(lines),
    )
    if not parsed.quick and not parsed.only:
        RESULTS.write_text(text)
    print(table(lines, parsed.quick) if parsed.quick or parsed.only else text)
    return int(any(line.figure.rounds == 0 for line in lines))


if __name__ == "__main__":
    sys.exit(main())
