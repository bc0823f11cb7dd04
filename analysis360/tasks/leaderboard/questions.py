"""Sets of questions: lm-eval's tasks, loaded once, with the requests that it builds of them.

lm-eval decides what a task is: its documents, prompts, examples, filters and metrics. A set is known by its content:
the documents asked and those shown as examples, the task's settings and version, and how its first prompt reads.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import io
import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from analysis360.digests import digest_of
from analysis360.errors import DataError, EngineError, SelectionError
from analysis360.tasks.leaderboard.detection import FOLDER
from analysis360.tasks.leaderboard.suites import Benchmark

INSTALL = "lm-eval is not installed: pip install 'analysis360[leaderboard]'"


@dataclass(frozen=True, eq=False)
class QuestionSet:
    """The questions of one lm-eval task, with so many examples before each."""

    task: Any
    """lm-eval's `Task`."""
    seed: int
    """Of the examples, where they are drawn."""
    content: str
    """Digest of what is asked, whatever tokenizer reads it."""
    text: str = ""
    """Digest of the tokenizer that cuts it into ids, and of the window they have to fit."""
    asked: dict[int, list[Any]] = field(default_factory=dict, repr=False)
    """lm-eval's requests by question, once they are built."""

    @property
    def name(self) -> str:
        """Task and number of examples."""
        return f"{self.task.task_name}@{self.shots}"

    @property
    def shots(self) -> int:
        """Examples before each question."""
        return int(self.task.get_config("num_fewshot") or 0)

    @cached_property
    def size(self) -> int:
        """Questions there are."""
        return len(self.task.eval_docs)

    @property
    def digest(self) -> str:
        """Digest of what is asked, as ids."""
        return digest_of([self.content, self.text])

    def build(self, questions: int) -> None:
        """Have lm-eval build the requests of the first `questions`."""
        if len(self.asked) < questions:
            by_question = defaultdict(list)
            for one in _requests(self.task, questions, self.seed):
                by_question[one.doc_id].append(one)
            for question, some in by_question.items():
                self.asked[question] = sorted(some, key=lambda one: one.idx)

    def requests(self, start: int, stop: int) -> list[Any]:
        """The requests of questions [start, stop), in order."""
        return [one for question in range(start, stop) for one in self.asked[question]]


def _requests(task: Any, questions: int, seed: int) -> list[Any]:
    """lm-eval's requests of the first `questions`; examples are drawn anew each time, the same ones."""
    task.set_fewshot_seed(seed=seed)
    with quietly():
        task.build_all_requests(limit=questions, rank=0, world_size=1)
    return list(task.instances)


def _content(task: Any, seed: int) -> str:
    examples = _fingerprint(task.fewshot_docs() or ()) if task.get_config("num_fewshot") else ""
    config = {k: v for k, v in task.config.to_dict(keep_callable=True).items() if k not in UNTOLD}
    plain = json.loads(json.dumps(config, sort_keys=True, default=_told))
    first = [repr(one.args) for one in _requests(task, 1, seed)]
    return digest_of([_fingerprint(task.eval_docs), examples, plain, str(task.VERSION), first, seed])


UNTOLD = ("dataset_path", "dataset_name", "dataset_kwargs", "metadata")
"""Settings that say where the documents come from, not what they are."""


def _told(value: Any) -> Any:
    """A setting that JSON does not know. A function is its name and the file it is in, for it may call others there."""
    if isinstance(value, partial):
        return [_told(value.func), list(value.args), value.keywords]
    if not callable(value):
        return str(value)
    with contextlib.suppress(OSError, TypeError):
        file = inspect.getsourcefile(inspect.unwrap(value))
        if file is not None:
            source = hashlib.sha256(Path(file).read_bytes()).hexdigest()
            return [getattr(value, "__qualname__", type(value).__qualname__), source]
    return getattr(value, "__qualname__", type(value).__qualname__)


def _fingerprint(documents: Any) -> str:
    """SHA-256 of documents, in order."""
    found = hashlib.sha256()
    for document in documents:
        found.update(json.dumps(document, sort_keys=True, default=str).encode() + b"\n")
    return found.hexdigest()


class Loaded(NamedTuple):
    """What lm-eval has for the benchmarks asked."""

    sets: list[QuestionSet]
    groups: dict[str, Any]
    """lm-eval's groups by name."""
    asked: list[Benchmark]
    """The benchmarks, with the tasks that lm-eval has under their names, and the examples these really have."""


def load_questions(asked: Sequence[Benchmark], *, include: Path | None = None, seed: int) -> Loaded:
    """The question sets of all benchmarks.

    `include` is a folder of further task files; where it has all that is asked, lm-eval's own are not looked at.
    Raises SelectionError for a task that lm-eval has not, DataError where its documents cannot be had.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise EngineError(INSTALL) from None
    for noisy in ("lm_eval", "datasets", "evaluate"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    manager = _manager(TaskManager, [one.task for one in asked], include)
    sets: dict[str, QuestionSet] = {}
    groups: dict[str, Any] = {}
    known: list[Benchmark] = []
    for one in asked:
        try:
            with quietly():
                loaded = manager.load([one.task])
        except Exception as error:  # of whatever reads the documents: a Hub, a file, a loader
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise DataError(f"task {one.task}: lm-eval cannot load it: {reason}") from None
        groups |= loaded.get("groups", {})
        for task in loaded["tasks"].values():
            _check(task)
            _set_shots(task, one.shots)
        shots = {int(task.get_config("num_fewshot") or 0) for task in loaded["tasks"].values()}
        known.append(
            replace(
                one, parts=one.parts or tuple(loaded["tasks"]), shots=shots.pop() if len(shots) == 1 else None
            )
        )
        for task in loaded["tasks"].values():
            with quietly():
                found = QuestionSet(task, seed, _content(task, seed))
            sets.setdefault(found.name, found)
    return Loaded(list(sets.values()), groups, known)


def _manager(kind: Any, names: Sequence[str], include: Path | None) -> Any:
    """lm-eval's index of tasks, ours among them; that of all it ships takes long to read."""
    folders = [str(FOLDER)]
    if include is not None:
        if not include.is_dir():
            raise SelectionError(f"include: {include} is no folder of lm-eval task files")
        folders.append(str(include))
    manager = kind(include_defaults=False, include_path=folders)
    if all(name in manager.all_tasks for name in names):
        return manager
    manager = kind(include_path=folders)
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        raise SelectionError(
            f"tasks: lm-eval has no {', '.join(unknown)}; `lm-eval ls tasks` lists what it has, "
            "--include names a folder of further ones"
        )
    return manager


def _check(task: Any) -> None:
    """Refuse what is not asked of text alone, or runs what a model writes. Raises SelectionError."""
    if getattr(task, "UNSAFE_CODE", False):
        raise SelectionError(
            f"task {task.task_name} runs programs that a model writes, outside a sandbox; use `analysis360 code`"
        )
    if getattr(task, "MULTIMODAL", False):
        raise SelectionError(f"task {task.task_name} asks about pictures or sound; text alone can be asked")


def _set_shots(task: Any, shots: int | None) -> None:
    """So many examples, but where the task itself wants none, as lm-eval has it."""
    own = task.get_config("num_fewshot")
    if own is None or (shots is not None and own != 0):
        task.set_config(key="num_fewshot", value=shots or 0)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without the bars that lm-eval and its loaders draw."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield
