"""Can each rule's script run with only the packages of its conda environment?"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# what other environments have and this one must do without
TRACING = ["circuit_tracer", "transformer_lens"]
ABSENT = {
    "analysis": ["torch", *TRACING],
    "torch": ["matplotlib", "datasets", "numba", "pytest", *TRACING],
    "circuits": ["matplotlib", "numba", "sparsify", "pytest"],
}


def scripts_by_environment() -> list[tuple[str, str]]:
    """(environment, script) of every rule."""
    found = set()
    for file in (ROOT / "workflow/rules").glob("*.smk"):
        for block in re.split(r"^\s*rule\b", file.read_text(), flags=re.MULTILINE)[1:]:
            environment = re.search(r"envs/(\w+)\.yaml", block)
            script = re.search(r"scripts/(\w+\.py)", block)
            assert environment and script, f"a rule in {file.name} has no conda environment or no script"
            found.add((environment.group(1), script.group(1)))
    return sorted(found)


def library_modules(script: Path) -> set[str]:
    """Modules of the package that a script imports."""
    imported = [node for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.ImportFrom)]
    return {node.module for node in imported if node.module.startswith("reasondiff")}


@pytest.mark.parametrize("environment", sorted(ABSENT))
def test_scripts_import_nothing_that_their_environment_lacks(environment):
    scripts = [ROOT / "scripts" / script for name, script in scripts_by_environment() if name == environment]
    modules = set().union(*map(library_modules, scripts))
    assert modules
    wanted = "".join(f"import {module}\n" for module in sorted(modules))
    # the absent packages are hidden from every finder, so that a library's own "is it installed?" says no as well
    program = f"""import sys
class Hiding:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        hidden = name.split(".")[0] in {ABSENT[environment]!r}
        return None if hidden else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
sys.path.insert(0, {str(ROOT / "scripts")!r})
{wanted}"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
