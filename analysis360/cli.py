"""The command line: arguments -> the same public functions. Heavy imports wait until a command runs."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from analysis360 import __version__
from analysis360.errors import Analysis360Error, NotStoredError, SelectionError

if TYPE_CHECKING:
    from analysis360.biases import BiasResult
    from analysis360.results import MemorizationResult
    from analysis360.series import Series

INTERRUPTED = 130
ENGINES = ("auto", "vllm", "torch")
SERIES = "amber"
SERIES_HELP = (
    "a released series by name, a folder with series.toml or one model, a manifest, or org/name on the Hub"
)


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
    _memorization_arguments(
        _command(commands, "memorization", "continue training sequences and score what is memorized")
    )
    _perplexity_arguments(
        _command(commands, "perplexity", "tell how likely text, or the series' own chunks, are")
    )
    _leaderboard_arguments(
        _command(commands, "leaderboard", "ask benchmarks of lm-eval, or compare models by them")
    )
    _code_arguments(
        _command(commands, "code", "have checkpoints write programs, and judge them in a sandbox")
    )
    _bold_arguments(
        _command(commands, "bold", "continue BOLD's prompts and score what is written about groups of people")
    )
    _toxicity_arguments(
        _command(commands, "toxicity", "continue prompts that invite it, and tell what share is toxic")
    )
    _figures_arguments(_command(commands, "figures", "draw the figures of training, and of what is stored"))
    _series_arguments(_command(commands, "series", "show what a series holds"))
    _doctor_arguments(_command(commands, "doctor", "audit a release without downloading its weights"))
    _hub_arguments(_command(commands, "hub", "serve a series on this machine as a Hub"))
    return parser


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        allow_abbrev=False,
    )
    return parser


def _series_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("series", nargs="?", default=SERIES, help=f"{SERIES_HELP} (%(default)s)")
    _remote_arguments(parser)
    parser.set_defaults(run=_series)


def _doctor_arguments(parser: argparse.ArgumentParser) -> None:
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
    _remote_arguments(parser)
    parser.set_defaults(run=_doctor)


def _hub_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    serve = _command(actions, "serve", "serve a folder as a Hub until Ctrl-C")
    serve.add_argument("folder", help="a series, served as if it were released; or a store to publish to")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s)")
    serve.add_argument("--port", type=int, default=8360, help="(%(default)s)")
    serve.set_defaults(run=_serve)


def _remote_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("series on a Hub").add_argument
    add("--pattern", metavar="REGEX", help="branches that are checkpoints, such as 'step(?P<step>\\d+)'")
    add("--disk", metavar="SIZE", help="room for downloads, such as 60GB; what is free if left out")
    add("--cache", metavar="FOLDER", help="folder of downloads (~/.cache/analysis360/hub)")
    add("--patience", type=float, metavar="SECONDS", help="longest wait for a busy or failing Hub (600)")
    add("--trust-remote-code", action="store_true", help="run Python that a checkpoint brings")


def _running_arguments(parser: argparse.ArgumentParser) -> None:
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


def _memorization_arguments(parser: argparse.ArgumentParser) -> None:
    _checkpoint_arguments(parser)
    _memorization_settings(parser)
    _running_arguments(parser)
    parser.set_defaults(run=_memorization)


def _perplexity_arguments(parser: argparse.ArgumentParser) -> None:
    _checkpoint_arguments(parser)
    add = parser.add_argument
    add(
        "--window",
        type=int,
        metavar="N",
        help="ids read at once; what the model reads, or rows have, if left out",
    )
    text = parser.add_argument_group("text").add_argument
    text(
        "--text",
        nargs="+",
        default=(),
        metavar="FILE",
        help="files of text, a document each; or .jsonl, a document a line",
    )
    text("--lines", action="store_true", help="each line of a file of text is a document")
    text(
        "--dataset",
        metavar="NAME",
        help="data set on the Hub, NAME or NAME:CONFIGURATION, or a folder of its files",
    )
    text("--split", default="test", help="of the data set (%(default)s)")
    text("--field", default="text", help="that holds the text, of records (%(default)s)")
    text(
        "--stride",
        type=int,
        metavar="N",
        help="targets of each window after the first; the window's length if left out",
    )
    text(
        "--no-prefix",
        dest="prefix",
        action="store_false",
        help="first tokens are not asked about; they follow the series' prefix id if left out",
    )
    chunks = parser.add_argument_group("chunks, where no text is given").add_argument
    chunks("--chunks", default="all", metavar="SELECTOR", help="all (the default), seen, or as --ckpts")
    chunks("--sequences", type=int, default=100, metavar="N", help="rows a chunk, at most (%(default)s)")
    chunks("--seed", type=int, default=0, help="master seed of the panels (%(default)s)")
    _running_arguments(parser)
    parser.set_defaults(run=_perplexity)


def _leaderboard_arguments(parser: argparse.ArgumentParser) -> None:
    _checkpoint_arguments(parser)
    add = parser.add_argument
    add(
        "--tasks",
        default="open-llm",
        metavar="NAMES",
        help="open-llm (ARC, HellaSwag, MMLU, TruthfulQA), some of them, or lm-eval's tasks; arc@5 is 5-shot",
    )
    add(
        "--shots",
        type=int,
        metavar="N",
        help="examples before each question, where --tasks has no number; if left out, as the benchmark has it",
    )
    add("--limit", type=int, metavar="N", help="the first N questions of each task; all if left out")
    add("--include", metavar="FOLDER", help="folder of further lm-eval task files")
    add("--seed", type=int, default=1234, help="of the examples, where they are drawn (%(default)s)")
    add(
        "--models",
        nargs="+",
        metavar="MODEL",
        help="instead of --series and --ckpts: SERIES or SERIES:CKPTS, to stand beside the paper's in one table",
    )
    table = parser.add_argument_group("with --models").add_argument
    table("--layout", choices=("table4", "table5"), help="the paper's (table4)")
    table("--format", choices=("markdown", "latex", "csv"), help="(markdown)")
    _running_arguments(parser)
    parser.set_defaults(run=_leaderboard)


def _code_arguments(parser: argparse.ArgumentParser) -> None:
    _checkpoint_arguments(parser)
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
    _running_arguments(parser)
    parser.set_defaults(run=_code)


def _bold_arguments(parser: argparse.ArgumentParser) -> None:
    _checkpoint_arguments(parser)
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
    _running_arguments(parser)
    parser.set_defaults(run=_bold)


def _toxicity_arguments(parser: argparse.ArgumentParser) -> None:
    _checkpoint_arguments(parser)
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
    _running_arguments(parser)
    parser.set_defaults(run=_toxicity)


def _figures_arguments(parser: argparse.ArgumentParser) -> None:
    _checkpoint_arguments(parser)
    _memorization_settings(parser)
    parser.add_argument(
        "--to", default="figures", metavar="FOLDER", help="folder for PNG and PDF files (%(default)s)"
    )
    parser.set_defaults(run=_figures)


def _checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
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
    _remote_arguments(parser)


def _memorization_settings(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--chunks",
        default="all",
        metavar="SELECTOR",
        help="trained chunks: all (the default), seen, or as --ckpts",
    )
    add("--sequences", type=int, default=1000, metavar="N", help="sequences a chunk, at most (%(default)s)")
    add("--prompt-tokens", type=int, default=32, metavar="K", help="ids given (%(default)s)")
    add("--continuation-tokens", type=int, default=32, metavar="L", help="ids asked for (%(default)s)")
    add("--seed", type=int, default=0, help="master seed of the panels (%(default)s)")
    add(
        "--metric",
        default="score",
        choices=("score", "extractible"),
        help="extractible: only which sequences are recalled word for word, which costs less (%(default)s)",
    )
    add("--compat", choices=("analysis360",), help="score as the published code does: stop at EOS and pad")


def _hub_options(parsed: argparse.Namespace) -> dict[str, Any]:
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


def _opened(parsed: argparse.Namespace) -> Series:
    from analysis360.series import open_series

    return open_series(parsed.series, **_hub_options(parsed))


def _result(parsed: argparse.Namespace, series: Series, *, compute: bool) -> MemorizationResult:
    from analysis360.api import memorization
    from analysis360.engines import VllmOptions

    names = ["chunks", "sequences", "prompt_tokens", "continuation_tokens"]
    names += ["engine", "dtype", "seed", "compat", "metric", "out"]
    options = {name: getattr(parsed, name) for name in names}
    if compute:
        options |= {"shard": parsed.shard, "progress": not parsed.quiet}
        options["vllm"] = VllmOptions(parsed.tensor_parallel, parsed.batch_invariant)
    return memorization(series, parsed.ckpts, compute=compute, **options)


def _memorization(parsed: argparse.Namespace) -> None:
    from analysis360.tables import memorization_table

    result = _result(parsed, _opened(parsed), compute=True)
    print(memorization_table(result))
    _tell(result, Path(parsed.out) / result.series.name / "memorization")


def _perplexity(parsed: argparse.Namespace) -> None:
    from analysis360.engines import VllmOptions
    from analysis360.perplexing import perplexity
    from analysis360.tables import perplexity_table

    names = [
        "text",
        "lines",
        "dataset",
        "split",
        "field",
        "chunks",
        "sequences",
        "window",
        "stride",
        "prefix",
    ]
    names += ["engine", "dtype", "seed", "shard", "out"]
    options = {name: getattr(parsed, name) for name in names} | {"progress": not parsed.quiet}
    options["vllm"] = VllmOptions(parsed.tensor_parallel, parsed.batch_invariant)
    result = perplexity(_opened(parsed), parsed.ckpts, **options)
    print(perplexity_table(result))
    _tell(result, Path(parsed.out) / result.series.name / "perplexity")


def _leaderboard(parsed: argparse.Namespace) -> None:
    from analysis360.engines import VllmOptions
    from analysis360.evaluating import leaderboard
    from analysis360.tables import evaluation_table

    names = ["tasks", "shots", "limit", "include", "seed", "engine", "dtype", "shard", "out"]
    options: dict[str, Any] = {name: getattr(parsed, name) for name in names}
    options["vllm"] = VllmOptions(parsed.tensor_parallel, parsed.batch_invariant)
    options["progress"] = not parsed.quiet
    if parsed.models:
        from analysis360.comparing import compare_models

        if (parsed.series, parsed.ckpts) != (SERIES, ":"):
            raise SelectionError("models: they stand in place of --series and --ckpts; give SERIES:CKPTS")
        hub = _hub_options(parsed)["hub"]
        table = compare_models(parsed.models, layout=parsed.layout or "table4", hub=hub, **options)
        print(getattr(table, parsed.format or "markdown")().rstrip())
        return
    if parsed.layout or parsed.format:
        raise SelectionError("layout, format: they are of the table that --models makes")
    result = leaderboard(_opened(parsed), parsed.ckpts, **options)
    print(evaluation_table(result))
    _tell(result, Path(parsed.out) / result.series.name / "leaderboard")


def _code(parsed: argparse.Namespace) -> None:
    from analysis360.coding import code_evaluation
    from analysis360.engines import VllmOptions
    from analysis360.tables import code_table

    names = ["benchmarks", "data", "mbpp_prompt", "samples", "temperature", "top_p", "new_tokens", "seconds"]
    names += ["limit", "seed", "workers", "engine", "dtype", "shard", "out"]
    options: dict[str, Any] = {name: getattr(parsed, name) for name in names}
    options["vllm"] = VllmOptions(parsed.tensor_parallel, parsed.batch_invariant)
    options |= {"k": _numbers("k", parsed.k), "progress": not parsed.quiet, "compute": not parsed.rescore}
    result = code_evaluation(_opened(parsed), parsed.ckpts, hub=_hub_options(parsed)["hub"], **options)
    if parsed.rescore:
        result = result.rescore()
    print(code_table(result))
    _tell(result, Path(parsed.out) / result.series.name / "code")


def _numbers(name: str, text: str) -> list[int]:
    """`1,10` -> [1, 10]. Raises SelectionError."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise SelectionError(f"{name} {text!r}: expected whole numbers, such as 1,10") from None


def _bold(parsed: argparse.Namespace) -> None:
    from analysis360.continuing import Scoring, bold
    from analysis360.engines import VllmOptions
    from analysis360.gallery import draw_biases
    from analysis360.tables import bias_table

    scoring = Scoring(
        *(getattr(parsed, name) for name in ("text", "toxicity", "regard", "norms", "vectors", "compat"))
    )
    names = ["prompts", "domains", "limit", "samples", "greedy", "new_tokens", "seed"]
    names += ["engine", "dtype", "shard", "out"]
    options: dict[str, Any] = {name: getattr(parsed, name) for name in names}
    options["vllm"] = VllmOptions(parsed.tensor_parallel, parsed.batch_invariant)
    options |= {"scoring": scoring, "progress": not parsed.quiet, "compute": not parsed.rescore}
    result = bold(_opened(parsed), parsed.ckpts, hub=_hub_options(parsed)["hub"], **options)
    print(bias_table(result))
    for line in () if parsed.to is None else draw_biases(result, Path(parsed.to)):
        print(line)
    _tell(result, Path(parsed.out) / result.series.name / "bold")


def _toxicity(parsed: argparse.Namespace) -> None:
    from analysis360.engines import VllmOptions
    from analysis360.gallery import draw_biases
    from analysis360.tables import toxicity_table
    from analysis360.toxicity import toxic_generation

    names = ["task", "prompts", "sets", "limit", "samples", "greedy", "scorer", "labels", "seed"]
    names += ["engine", "dtype", "shard", "out"]
    options: dict[str, Any] = {name: getattr(parsed, name) for name in names}
    options["vllm"] = VllmOptions(parsed.tensor_parallel, parsed.batch_invariant)
    options |= {"progress": not parsed.quiet, "hub": _hub_options(parsed)["hub"]}
    result = toxic_generation(_opened(parsed), parsed.ckpts, **options)
    print(toxicity_table(result))
    for line in () if parsed.to is None else draw_biases(result, Path(parsed.to)):
        print(line)
    _tell(result, Path(parsed.out) / result.series.name / result.continued.task.name)


def _tell(result: Any, folder: Path) -> None:
    """What to know of a result, where its time went, and where it is."""
    for note in result.notes:
        print(f"note: {note}")
    for line in (result.report.line(), *result.report.details, *result.report.traffic):
        print(line)
    print(f"results: {folder}")


def _figures(parsed: argparse.Namespace) -> None:
    from analysis360.evaluating import stored_benchmarks_of
    from analysis360.gallery import draw_all, draw_biases, draw_evaluations, draw_losses, draw_training
    from analysis360.perplexing import stored_perplexities

    series, to = _opened(parsed), Path(parsed.to)
    options = {name: getattr(parsed, name) for name in ("engine", "dtype", "out")}
    answered = stored_benchmarks_of(series, parsed.ckpts, **options)
    continued = _continued(parsed, series)
    losses = list(stored_perplexities(series, parsed.ckpts, **options))
    try:
        result = _result(parsed, series, compute=False)
    except NotStoredError as missing:
        try:
            for line in draw_training(series, to, missing):
                print(line)
        except NotStoredError:
            if not len(answered) and continued is None and not losses:
                raise
    else:
        for line in draw_all(result, to):
            print(line)
        for note in result.notes:
            print(f"note: {note}")
    for line in draw_evaluations(series, answered, to) if len(answered) else ():
        print(line)
    for line in () if continued is None else draw_biases(continued, to):
        print(line)
    for line in draw_losses(losses, to):
        print(line)


def _continued(parsed: argparse.Namespace, series: Series) -> BiasResult | None:
    """What is stored of BOLD's prompts, drawn as by default, where anything is."""
    from analysis360.continuing import bold

    options = {name: getattr(parsed, name) for name in ("engine", "dtype", "out")}
    try:
        found = bold(series, parsed.ckpts, compute=False, **options)
    except NotStoredError:
        return None
    except Analysis360Error as error:
        print(f"not drawn: what is written about groups: {error}")
        return None
    stored, asked = len(found.continued.rows), sum(map(len, found.continued.task.units()))
    if stored < asked:  # of some prompts at some checkpoints, a curve would be of different ones
        print(
            f"not drawn: what is written about groups: {stored:,} of {asked:,} continuations of all prompts are "
            "stored; `analysis360 bold` with the options of that run and --to draws them"
        )
        return None
    return found


def _series(parsed: argparse.Namespace) -> None:
    from analysis360.tables import series_table

    print(series_table(_opened(parsed)))


def _doctor(parsed: argparse.Namespace) -> int:
    from analysis360.doctor import doctor

    names = ("loss", "ckpts", "sequences", "seed", "engine")
    how = {name: getattr(parsed, name) for name in names} | {"progress": not parsed.quiet}
    found = doctor(parsed.series, **how, **_hub_options(parsed))
    print(json.dumps(found.as_json(), indent=2) if parsed.json else found.table())
    return int(found.wrong)


def _serve(parsed: argparse.Namespace) -> None:
    from analysis360.loopback import serve

    serve(Path(parsed.folder), parsed.host, parsed.port)


if __name__ == "__main__":
    sys.exit(main())
