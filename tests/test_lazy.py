"""Packages export what the README imports from them, and load it no earlier."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ["baseline", "schedulers", "sampling", "metrics", "rl", "optimization"]


@pytest.mark.parametrize("name", ["", *PACKAGES])
def test_every_public_name_is_there(name):
    package = f"adaptive_diffusion.{name}".rstrip(".")
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert name in dir(module)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'Nonsense'"):
        module.Nonsense  # noqa: B018


@pytest.mark.parametrize("name", ["", *PACKAGES])
def test_type_checkers_are_told_of_the_same_names_in_the_same_modules(name):
    module = importlib.import_module(f"adaptive_diffusion.{name}".rstrip("."))
    body = ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body
    (block,) = (node for node in body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    told = {alias.asname: "." * (line.level - 1) + line.module for line in block.body for alias in line.names}
    assert told == module._HOMES


def test_importing_a_package_loads_nothing_large():
    code = (
        f"import sys, {', '.join(f'adaptive_diffusion.{name}' for name in PACKAGES if name != 'rl')}\n"
        "loaded = {'gymnasium'} & set(sys.modules)\n"
        "import adaptive_diffusion.rl\n"  # tells Gymnasium of the environments
        "sys.exit(' '.join(loaded | {'torch', 'hydra', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
