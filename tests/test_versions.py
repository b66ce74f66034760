"""Do the lock files, the conda environments and the package agree on versions?"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    return {normal(name): version for name, version in (line.split("==") for line in lines)}


def test_uv_lock_has_the_versions_of_the_constraints():
    locked = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    wanted = constraints()
    differing = {
        package["name"]: (package["version"], wanted[normal(package["name"])])
        for package in locked
        if normal(package["name"]) in wanted and package["version"] != wanted[normal(package["name"])]
    }
    assert not differing, "run `make lock`"


def test_uv_toml_is_written_from_the_constraints():
    written = tomllib.loads((ROOT / "uv.toml").read_text())["constraint-dependencies"]
    assert {normal(n): v for n, v in (entry.split("==") for entry in written)} == constraints(), "run `make lock`"


@pytest.mark.parametrize("name", ["torch", "circuits", "analysis"])
def test_conda_environments_have_the_versions_of_the_constraints(name):
    environment = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    wanted = constraints()
    for requirement in pip:
        package, version = re.split(r"\s*==\s*", requirement)
        assert wanted[normal(package)] == version, f"{package} in envs/{name}.yaml"


def test_every_dependency_is_pinned_by_the_constraints():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [
        *project["dependencies"],
        *project["optional-dependencies"]["test"],
        *project["optional-dependencies"]["slurm"],
    ]
    names = {normal(re.split(r"[=<>~!\[ ]", requirement)[0]) for requirement in needed}
    assert names - {"reasondiff"} <= set(constraints())
