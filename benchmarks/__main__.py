"""`python -m benchmarks <name> [options]`: list the benchmarks or run one."""

from __future__ import annotations

import ast
import difflib
import importlib
from pathlib import Path

from adaptive_diffusion.errors import UserError, sentence
from adaptive_diffusion.leaving import run_program


def benchmarks() -> dict[str, str]:
    """Name and description of each benchmark, read from its source without importing it."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        has_main = any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)

        if has_main and not path.stem.startswith("_"):
            first_line = (ast.get_docstring(tree) or "").partition("\n")[0]
            found[path.stem] = first_line.rpartition("`: ")[2]
    return found


def main(argv: list[str]) -> None:
    """Run the benchmark that `argv` names, with the rest of `argv`; without a name, list all."""
    known = benchmarks()
    if not argv or argv[0] in ("-h", "--help"):
        print(f"{__doc__}\n")
        for name, description in known.items():
            print(f"  {name:<10} {description}")
        return

    name, *rest = argv
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"there is no benchmark {name!r}; there are {', '.join(known)}{hint}")

    try:
        importlib.import_module(f"{__package__}.{name}").main(rest)
    except ModuleNotFoundError as error:
        raise UserError(f"python -m benchmarks {name} needs {error.name}: pip install -e '.[test]'") from error
    except ValueError as error:  # benchmarks refuse wrong options by it
        raise UserError(sentence(error)) from error


if __name__ == "__main__":
    run_program(main)
