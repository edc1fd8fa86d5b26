"""A folder imports only from folders below it, and no files import each other in a circle: see docs/architecture.md."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from tiny import ROOT

SOURCE = ROOT / "src" / "adaptive_diffusion"
FILES = {".".join(file.relative_to(SOURCE).with_suffix("").parts): file for file in SOURCE.rglob("*.py")}
LAYERS = (  # from the bottom; those of one line do not know each other
    ("imports", "interruption", "lazy", "program", "spelling", "moved", "_version"),
    ("errors",),
    ("leaving",),
    ("types",),
    ("io", "backend"),
    ("diffusion",),
    ("solvers",),
    ("grids",),
    ("models",),
    ("metrics",),
    ("encoder",),
    ("schedulers",),
    ("sampling",),
    ("calibration",),
    ("baseline",),
    ("rl",),
    ("optimization", "benchmark", "export"),
    ("tracking",),
    ("runs",),
    ("cli",),
    ("web",),
    ("__init__", "__main__"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def imports(name: str) -> set[str]:
    """The files that a file imports when it runs, not those that only type checkers read."""
    tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
    typing = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
    skipped = {id(inner) for branch in typing for inner in ast.walk(branch)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and id(node) not in skipped:
            base = [*name.split(".")[: -node.level], *filter(None, [node.module])]
            for alias in node.names:
                tries = (".".join([*base, alias.name]), ".".join(base), ".".join([*base, "__init__"]))
                found |= {next(t for t in tries if t in FILES)}
    return found - {name}


ARROWS = [(name, other) for name in sorted(FILES) for other in sorted(imports(name))]


def test_every_folder_has_its_layer():
    assert {name.partition(".")[0] for name in FILES} == set(RANK)


def test_imports_lead_downwards():
    steps = [(name, other, name.partition(".")[0], other.partition(".")[0]) for name, other in ARROWS]
    upward = {(name, other) for name, other, above, below in steps if above != below and RANK[above] <= RANK[below]}
    assert upward == set()


def test_no_files_import_each_other_in_a_circle():
    graph = {name: [other for one, other in ARROWS if one == name] for name in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


def test_nothing_is_imported_from_outside_by_its_full_name():
    """Relative imports only, which is what these tests read."""
    assert [name for name, file in FILES.items() if "from adaptive_diffusion" in _code(file)] == []


def _code(file: Path) -> str:
    """The imports of a file, as code."""
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return "\n".join(ast.unparse(node) for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom)))


def test_only_programs_speak_of_the_users_mistakes():
    library = [name for name in FILES if RANK["errors"] < RANK[name.partition(".")[0]] < RANK["tracking"]]
    assert [name for name in library if "UserError" in FILES[name].read_text(encoding="utf-8")] == []
