"""`python -m adaptive_diffusion.bench <name> [options]`: list the benchmarks or run one."""

from __future__ import annotations

import ast
import difflib
import importlib
import sys
from pathlib import Path


def benchmarks() -> dict[str, str]:
    """Name and description of each benchmark, read without importing them."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        has_main = any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)
        if has_main and not path.stem.startswith("_"):
            first_line = (ast.get_docstring(tree) or "").partition("\n")[0]
            found[path.stem] = first_line.rpartition("`: ")[2]
    return found


def main(argv: list[str]) -> int:
    """Run the benchmark that `argv` names; the rest of `argv` is the benchmark's own."""
    known = benchmarks()
    if not argv or argv[0] in ("-h", "--help"):
        print(f"{__doc__}\n")
        for name, description in known.items():
            print(f"  {name:<10} {description}")
        return 0
    name, *rest = argv
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        print(f"There is no benchmark {name!r}; there are {', '.join(known)}.{hint}", file=sys.stderr)
        return 2
    try:
        importlib.import_module(f"{__package__}.{name}").main(rest)
    except ModuleNotFoundError as error:
        print(f"bench {name} needs {error.name}: pip install -e '.[test]'", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:  # UserError is a ValueError
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
