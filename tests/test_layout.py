"""The house: imports point one way, heavy libraries wait, the public surface is what it says."""

from __future__ import annotations

import ast
from pathlib import Path

import analysis360 as a360

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "analysis360"
# The sentence: a module may import from its own line and from lines above it.
LINES = [
    ["errors"],
    ["digests", "statistics", "pairs"],
    ["places"],
    ["hub"],
    ["series"],
    ["panel", "loopback", "ahead", "behind", "metrics", "text", "corpora"],
    ["engines"],
    ["tasks"],
    ["parts", "scorers"],
    ["store"],
    ["sweep", "doctor"],
    ["selection"],
    ["summaries", "comparison"],
    ["figures", "joined"],
    ["scored", "continued"],
    ["results", "evaluations", "code_results", "biases", "perplexities"],
    [
        *("tables", "gallery", "api", "evaluating", "coding", "continuing"),
        *("prompting", "perplexing", "toxicity"),
    ],
    ["comparing"],
    ["cli"],
]
PLACE = {name: i for i, line in enumerate(LINES) for name in line}
KNOWS_NOTHING_OF_ENGINES = ["statistics", "pairs", "summaries", "comparison", "figures"]


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def test_every_module_has_its_place() -> None:
    assert {part(path) for path in modules()} == set(PLACE)


def test_imports_point_one_way() -> None:
    for path in modules():
        for name in imported(path):
            pieces = name.split(".")
            if pieces[0] == "analysis360" and len(pieces) > 1 and pieces[1] in PLACE:
                assert PLACE[pieces[1]] <= PLACE[part(path)], f"{part(path)} imports {name}"


def test_statistics_and_figures_know_nothing_of_hubs_and_engines() -> None:
    allowed = {*KNOWS_NOTHING_OF_ENGINES, "errors"}
    for path in modules():
        if part(path) in KNOWS_NOTHING_OF_ENGINES:
            ours = {name.split(".")[1] for name in imported(path) if name.startswith("analysis360.")}
            assert ours <= allowed, (path.name, ours - allowed)


def test_the_library_never_imports_training_or_studies() -> None:
    for path in modules():
        assert not {name.split(".")[0] for name in imported(path)} & {"training", "studies", "tests"}, path


def test_vllm_is_never_imported_at_module_top_level() -> None:
    for path in modules():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [node.module or ""]
                )
                assert not any(name.split(".")[0] == "vllm" for name in names), path


def test_public_names_exist_and_are_all_there_is() -> None:
    for name in a360.__all__:
        assert getattr(a360, name) is not None
    assert set(a360.__all__) <= set(dir(a360))
    assert set(a360._LAZY) <= set(a360.__all__)


def test_public_names_have_docstrings() -> None:
    for path in modules():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"
