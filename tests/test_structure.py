"""The arrows of import and the sizes of docs/design.md.

An arrow holds for every import, also one inside a function or under TYPE_CHECKING. For circles only what is imported
when a module is loaded counts: an import inside a function, or under TYPE_CHECKING, breaks the circle.
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST_LINES, MOST_FILES = 300, 15
# A room of bench/ imports its own rung and those before it.
RUNGS = (
    {"errors", "files", "loading", "machine"},
    {"experiments"},
    {"records", "provenance", "zoo"},
    {"data", "training", "evaluation", "weights"},
    {"measure"},
    {"run", "speed"},
    {"regression", "report"},
    {"cli"},
    {"__main__"},
)


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {_name(path): path for package in ("bench", "baselines", "models") for path in (ROOT / package).rglob("*.py")}


def _imports(tree: ast.AST, loading: bool) -> Iterator[str]:
    """Full names of what is imported. loading: only by what runs while the module is loaded."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not followed here"
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in FILES else node.module for name in names)
        elif loading and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        elif loading and isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        else:
            yield from _imports(node, loading)


TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
IMPORTS = {name: set(_imports(tree, loading=False)) for name, tree in TREES.items()}


def _room(name: str) -> str:
    """bench.report.cells: report; models.hcformer: models."""
    parts = name.split(".")
    return parts[1] if parts[0] == "bench" and len(parts) > 1 else parts[0]


def _arrows(*packages: str) -> set[tuple[str, str]]:
    """(module, what it imports) of the modules whose names start so."""
    starts = tuple(f"{package}." for package in packages)
    return {(name, target) for name in IMPORTS if f"{name}.".startswith(starts) for target in IMPORTS[name]}


def _into(arrows: set[tuple[str, str]], *packages: str) -> list[str]:
    starts = tuple(f"{package}." for package in packages)
    return sorted(f"{name} imports {target}" for name, target in arrows if f"{target}.".startswith(starts))


def test_no_circle():
    graph = {name: set(_imports(tree, loading=True)) & FILES.keys() - {name} for name, tree in TREES.items()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_models_know_nothing_of_the_benchmark():
    assert _into(_arrows("models"), "bench", "baselines") == []
    assert _into(_arrows("baselines"), "bench") == []


def test_rooms_import_down_the_ladder():
    rung = {room: i for i, rooms in enumerate(RUNGS) for room in rooms}
    upwards = [
        f"{name} imports {target}"
        for name, target in sorted(_arrows("bench"))
        if target.startswith("bench.") and rung[_room(target)] > rung[_room(name)]
    ]
    assert upwards == []


def test_nothing_imports_the_command_line():
    others = {(name, target) for name, target in _arrows("bench", "baselines", "models") if _room(name) != "cli"}
    assert _into(others, "bench.cli") == ["bench.__main__ imports bench.cli.app"]


def test_experiments_import_the_standard_library_alone():
    allowed = sys.stdlib_module_names | {"bench"}
    arrows = _arrows("bench.experiments")
    assert [arrow for arrow in sorted(arrows) if arrow[1].partition(".")[0] not in allowed] == []
    assert {_room(target) for _, target in arrows if target.startswith("bench.")} <= {"experiments", "errors"}


def test_reports_come_from_records_and_published_numbers():
    arrows = _arrows("bench.report", "bench.records")
    assert _into(arrows, "torch", "torchvision", "transformers", "timm", "models", "baselines") == []
    rooms = {_room(target) for _, target in arrows if target.startswith("bench.")}
    assert rooms <= {"report", "records", "experiments", "errors", "files"}


def test_files_and_folders_are_small():
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in FILES.items()}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}
    folders = Counter(path.parent for name, path in FILES.items() if _room(name) not in ("models", "baselines"))
    too_many = {str(folder.relative_to(ROOT)) for folder, count in folders.items() if count > MOST_FILES}
    assert too_many == set()
