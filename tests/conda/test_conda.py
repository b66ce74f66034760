"""Do the files under envs/ make environments in which the rules' scripts run, with the versions of the lock?

The environments are real, the conda that makes them is a shim (shim.py): no channel need be reached. The whole study
runs in them through SLURM (tests/slurm), and here where no SLURM can be started; on GitHub it does so with real conda.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from one_node import reason_not_to_start
from running import ROOT, copy_workflow
from shim import NoShim, Shim, shim_of_session
from test_environments import ABSENT, library_modules, scripts_by_environment
from test_versions import constraints, normal

from reasondiff.manifest import compare, manifest_of, write_manifest

NAMES = sorted(ABSENT)
MODULES = {"pyyaml": "yaml", "eai-sparsify": "sparsify"}  # where the module is not called as the package is
RESULTS = Path("results/smoke")
THROUGH_SLURM = reason_not_to_start() is None  # asked before another worker has started one


@pytest.fixture(scope="module")
def shim(tmp_path_factory) -> Shim:
    try:
        return shim_of_session(tmp_path_factory)
    except NoShim as reason:
        pytest.skip(str(reason))


def required(name: str) -> dict[str, str]:
    """{package: version} of an environment file."""
    entries = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())["dependencies"]
    return dict(requirement.split("==") for entry in entries if isinstance(entry, dict) for requirement in entry["pip"])


def alone(environment: Path, program: str) -> str:
    """What a program prints in an environment that sees no package from elsewhere."""
    run = subprocess.run([environment / "bin/python", "-I", "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("name", NAMES)
def test_the_shim_installs_the_versions_of_the_lock(shim, name):
    program = (
        "import importlib.metadata as metadata, json, sys\n"
        "found = {one.name: one.version for one in metadata.distributions()}\n"
        "print(json.dumps([sys.prefix, found]))"
    )
    environment = shim.environments()[name]
    prefix, found = json.loads(alone(environment, program))
    installed = {normal(package): version.split("+")[0] for package, version in found.items()}
    assert Path(prefix) == environment
    assert {normal(package): version for package, version in required(name).items()}.items() <= installed.items()
    locked = constraints()
    assert {package for package in required(name) if locked[normal(package)] != installed[normal(package)]} == set()


@pytest.mark.parametrize("name", NAMES)
def test_packages_and_the_library_are_imported_without_those_of_the_driver(shim, name):
    packages = [MODULES.get(package, package.replace("-", "_")) for package in required(name)]
    scripts = [ROOT / "scripts" / script for environment, script in scripts_by_environment() if environment == name]
    modules = sorted(set().union(*map(library_modules, scripts)))
    path = f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r})\n"
    alone(shim.environments()[name], path + "".join(f"import {module}\n" for module in [*packages, *modules]))


def test_the_study_is_the_same_in_its_environments(shim, finished_smoke, tmp_path):
    if THROUGH_SLURM:
        pytest.skip("the study runs in these environments through SLURM (tests/slurm)")
    folder = copy_workflow(tmp_path / "study")
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *shim.arguments, "--configfile", "config/smoke.yaml"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **shim.variables}
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, (run.stdout + run.stderr)[-4000:]
    for made in shim.environments().values():
        assert f"Activating conda environment: {os.path.relpath(made, folder)}" in run.stderr
    for name, place in (("here", folder), ("plain", finished_smoke)):
        write_manifest(tmp_path / f"{name}.json", manifest_of(place / RESULTS))
    assert compare(tmp_path / "here.json", tmp_path / "plain.json") == []
