"""What a model is shown of a problem, and the texts that end what it writes: each way by its name.

humaneval paper      the head of the function as it is, ended as in Chen et al. 2021 (arXiv:2107.03374, section 3.2)
mbpp      docstring  the task and its first test in a docstring, as Fried et al. 2022 (InCoder, arXiv:2204.05999)
                     do and the BigCode harness after them; nothing is solved before
mbpp      paper      three solved problems, task ids 2, 3 and 4, as in Austin et al. 2021 (arXiv:2108.07732, 3.2)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from analysis360.errors import MissingError, SelectionError
from analysis360.tasks.code.problems import SHOTS, Problem, ProblemSet


@dataclass(frozen=True)
class Style:
    """A way to ask for the solution of a problem."""

    name: str
    stops: tuple[str, ...]
    """What ends a solution, and is no part of it."""
    ask: Callable[[Problem], str]
    """The problem as a model sees it."""
    solved: Callable[[Problem], str] | None = None
    """A solved problem as one that stands before it; None: nothing does."""

    def prompts(self, problems: ProblemSet) -> list[str]:
        """What a model is given of each problem. Raises MissingError where the solved ones are not there."""
        before = ""
        if self.solved is not None:
            if len(problems.shots) < len(SHOTS):
                raise MissingError(
                    f"prompt {self.name!r} of {problems.name} shows the problems {', '.join(map(str, SHOTS))}, "
                    "which are not in the data; give the whole data set (its `prompt` split too), or another prompt"
                )
            before = "".join(map(self.solved, problems.shots))
        return [before + self.ask(problem) for problem in problems.problems]


def _docstring(problem: Problem) -> str:
    return _lines(f'"""\n{problem.text}\n{problem.examples[0]}\n"""\n')


def _expert(problem: Problem) -> str:
    tests = "\n".join(problem.examples)
    task = f"You are an expert Python programmer, and here is your task: {problem.text}"
    return _lines(f"{task} Your code should pass these tests:\n\n{tests}\n[BEGIN]\n")


def _expert_solved(problem: Problem) -> str:
    return _lines(f"{_expert(problem)}{problem.reference}\n[DONE]\n")


def _lines(text: str) -> str:
    """MBPP ends some of its lines as Windows does."""
    return text.replace("\r\n", "\n")


STYLES: dict[str, tuple[Style, ...]] = {
    "humaneval": (
        Style("paper", ("\nclass", "\ndef", "\n#", "\nif", "\nprint"), lambda problem: problem.text),
    ),
    "mbpp": (
        Style("docstring", ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n<|/", "\n```"), _docstring),
        Style("paper", ("[DONE]",), _expert, _expert_solved),
    ),
}
"""Of each benchmark, the default first."""


def style(benchmark: str, name: str | None = None) -> Style:
    """A benchmark's way to ask, the default where none is named. Raises SelectionError."""
    if benchmark not in STYLES:
        raise SelectionError(f"benchmark {benchmark!r}: expected one of {', '.join(STYLES)}")
    known = {style.name: style for style in STYLES[benchmark]}
    if name is None:
        return STYLES[benchmark][0]
    if name not in known:
        raise SelectionError(f"prompt {name!r} of {benchmark}: expected one of {', '.join(known)}")
    return known[name]
