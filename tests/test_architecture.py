"""Imports go down the floors that docs/architecture.md lists, and each border of dependencies holds."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from reasondiff.codehash import imported_modules

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
LIBRARY = SCRIPTS / "reasondiff"
SCRIPT_NAMES = {path.stem for path in SCRIPTS.glob("*.py")}
HEAVY = {"torch", "transformers", "datasets"}


def floors():
    """{room: floor} from the fenced list in docs/architecture.md."""
    listed = re.search(r"```floors\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text(), re.DOTALL).group(1)
    rows = [line.split() for line in listed.splitlines()]
    return {room: int(number) for number, *rooms in rows for room in rooms}


FLOORS = floors()


def module_name(path):
    parts = path.relative_to(SCRIPTS).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(LIBRARY.rglob("*.py"))}


@cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def room(module):
    """`text` for `reasondiff.text.tokens`, `store` for `reasondiff.store`, None for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def own_imports(path):
    """Modules of the library that a file imports anywhere."""
    name = module_name(path)
    found = imported_modules(tree_of(path), f"reasondiff.{name}" if not name.startswith("reasondiff") else name)
    return {module for module in found if module in MODULES}


def packages(nodes):
    """Top-level names of what these nodes import from anywhere."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
    return found


def at_import(path):
    """Nodes that run when the file is imported: all but the bodies of functions and `if TYPE_CHECKING`."""
    waiting = list(tree_of(path).body)
    while waiting:
        node = waiting.pop()
        yield node
        is_typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not is_typing:
            waiting.extend(ast.iter_child_nodes(node))


@cache
def loaded_with(module):
    """Packages outside the library that importing a module of it brings in, at any depth."""
    nodes = list(at_import(MODULES[module]))
    found = packages(nodes)
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    for inner in imported_modules(ast.Module(imports, []), module):
        if inner in MODULES and inner != module and room(inner) is not None:
            found = found | loaded_with(inner)
    return frozenset(found)


def test_every_room_of_the_library_has_a_floor():
    rooms = {room(module) for module in MODULES} - {None}
    assert rooms <= set(FLOORS), f"docs/architecture.md lists no floor for {rooms - set(FLOORS)}"
    assert len(rooms) >= 8  # the walk finds something


@pytest.mark.parametrize("module", [name for name in MODULES if room(name)])
def test_imports_go_down_or_stay_on_the_floor(module):
    for imported in own_imports(MODULES[module]):
        assert room(imported) is not None, f"{module} imports the package's front door"
        assert FLOORS[room(imported)] <= FLOORS[room(module)], f"{module} imports {imported} from a higher floor"


def test_rooms_on_one_floor_use_one_another_in_one_direction_only():
    uses = {(room(m), room(i)) for m, path in MODULES.items() if room(m) for i in own_imports(path)}
    neighbours = {(a, b) for a, b in uses if a != b and FLOORS[a] == FLOORS[b]}
    reached = set(neighbours)
    while more := {(a, d) for a, b in reached for c, d in neighbours if b == c} - reached:
        reached |= more
    assert not {(a, b) for a, b in reached if a == b}, f"rooms of one floor use one another in a circle: {neighbours}"


def test_nothing_imports_a_script():
    for path in [*LIBRARY.rglob("*.py"), *SCRIPTS.glob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        assert not packages(ast.walk(tree_of(path))) & SCRIPT_NAMES, f"{path.name} imports a script"


def test_every_script_has_a_rule_and_every_rule_its_script():
    rules = "\n".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    assert set(re.findall(r"scripts/(\w+)\.py", rules)) == SCRIPT_NAMES


def test_only_scripts_speak_of_the_snakemake_object():
    for module, path in MODULES.items():
        nodes = list(ast.walk(tree_of(path)))
        assert "snakemake" not in packages(nodes), f"{module} imports snakemake"
        if module != "reasondiff.job":  # there it is an argument
            assert not any(isinstance(node, ast.Name) and node.id == "snakemake" for node in nodes), module


def test_scripts_use_the_snakemake_object_and_open_a_job():
    for name in SCRIPT_NAMES:
        names = {node.id for node in ast.walk(tree_of(SCRIPTS / f"{name}.py")) if isinstance(node, ast.Name)}
        assert {"snakemake", "job"} <= names, f"{name}.py does not run inside `with job(snakemake)`"


@pytest.mark.parametrize("module", [name for name in MODULES if room(name)])
def test_transformers_and_datasets_are_imported_on_floor_2_only(module):
    if FLOORS[room(module)] != 2:
        assert not packages(ast.walk(tree_of(MODULES[module]))) & {"transformers", "datasets"}


LIGHT = ("report", "labels", "costs", "release")


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) in LIGHT])
def test_labels_costs_and_the_report_know_neither_torch_nor_transformers(module):
    assert not packages(ast.walk(tree_of(MODULES[module]))) & HEAVY
    assert not loaded_with(module) & HEAVY


@pytest.mark.parametrize("module", [name for name in MODULES if FLOORS.get(room(name)) == 1])
def test_the_lowest_floor_loads_nothing_heavy(module):
    assert not loaded_with(module) & {*HEAVY, "pandas", "matplotlib"}


def rules():
    """(script, environment, modules in its code hash) of every rule."""
    for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")):
        for body in re.split(r"^ *rule\b", path.read_text(), flags=re.MULTILINE)[1:]:
            if script := re.search(r"scripts/(\w+)\.py", body):
                environment = re.search(r"envs/(\w+)\.yaml", body).group(1)
                hashed = re.findall(r'"([\w.]+)"', re.search(r"code_hash\(([^)]*)\)", body).group(1))
                yield script.group(1), environment, tuple(hashed)


RULES = sorted(rules())


@pytest.mark.parametrize(("script", "hashed"), [(script, hashed) for script, _, hashed in RULES])
def test_a_rule_runs_again_when_the_library_its_script_calls_is_edited(script, hashed):
    waiting, covered = list(hashed), set()
    while waiting:
        module = waiting.pop()
        if module not in covered:
            covered.add(module)
            waiting.extend(own_imports(MODULES[module]))
    # how files are read and written (the lowest floor, and loading a model) changes no result
    called = {m for m in own_imports(SCRIPTS / f"{script}.py") if FLOORS.get(room(m), 1) > 1}
    missing = called - covered - {"reasondiff.models.load"}
    assert not missing, f"the code hash of the rule of {script}.py leaves out {missing}"


@pytest.mark.parametrize("script", [script for script, environment, _ in RULES if environment == "analysis"])
def test_rules_of_the_environment_without_torch_do_not_load_it(script):
    path = SCRIPTS / f"{script}.py"
    assert "torch" not in packages(ast.walk(tree_of(path)))
    for module in own_imports(path):
        if room(module):
            assert "torch" not in loaded_with(module), f"{script}.py loads torch through {module}"
