"""How does a test run `snakemake --sdm conda` where no conda can be reached: with a shim that makes real environments.

The shim has a virtual environment of its own, a channel with the Python and the pip at hand, and a folder `base` that
looks like an installed conda: `bin/conda` and `bin/activate`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from channel import build_channel
from filelock import FileLock
from running import ROOT

HERE = Path(__file__).resolve().parent
PACKAGES = ("py-rattler", "pyyaml", "uv")
ACTIVATE = """\
export CONDA_PREFIX="$1"
export PATH="$1/bin:$PATH"
unset PYTHONHOME
"""


class NoShim(Exception):
    """The shim cannot be made here; the message says why."""


@dataclass(frozen=True)
class Shim:
    """A shim in its folder: the variables with which Snakemake finds it, and where the workflow's environments are."""

    folder: Path
    variables: dict[str, str]

    @property
    def arguments(self) -> list[str]:
        """What makes Snakemake use the environments."""
        return ["--sdm", "conda", "--conda-prefix", str(self.folder / "environments")]

    def environments(self) -> dict[str, Path]:
        """{name of the file under envs/: its environment}. Snakemake keeps a copy of the file beside each."""
        names = {path.read_text(): path.stem for path in (ROOT / "envs").glob("*.yaml")}
        copies = (self.folder / "environments").glob("*.yaml")
        return {names[copy.read_text()]: copy.with_suffix("") for copy in copies}


def shim_of_session(factory: pytest.TempPathFactory) -> Shim:
    """The shim with the environments of the smoke study, made once for all workers of a session.

    Raises:
        NoShim: it could not be made here.
    """
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "conda"
    outcome = folder / "outcome.json"
    with FileLock(f"{folder}.lock"):
        if not outcome.exists():
            folder.mkdir()
            try:
                content = {"variables": make_shim(folder)}
                make_environments(Shim(folder, content["variables"]))
            except NoShim as reason:
                content = {"reason": str(reason)}
            outcome.write_text(json.dumps(content))
    made = json.loads(outcome.read_text())
    if "reason" in made:
        raise NoShim(made["reason"])
    return Shim(folder, made["variables"])


def make_shim(folder: Path) -> dict[str, str]:
    """Makes the shim in `folder`; returns the variables with which Snakemake finds it.

    Raises:
        NoShim: another platform, or its packages cannot be installed.
    """
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        raise NoShim("the channel of the conda shim is for Linux on x86_64")
    python = folder / "venv/bin/python"
    _run([sys.executable, "-m", "venv", str(folder / "venv")], "a virtual environment")
    _run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], ", ".join(PACKAGES))
    build_channel(folder / "channel")
    programs = folder / "base/bin"
    programs.mkdir(parents=True)
    (programs / "conda").write_text(f'#!/bin/sh\nexec "{python}" "{HERE / "command.py"}" "$@"\n')
    (programs / "conda").chmod(0o755)
    (programs / "activate").write_text(ACTIVATE)
    return {
        "SHIM_BASE": str(folder / "base"),
        "SHIM_CHANNEL": (folder / "channel").as_uri(),
        "RATTLER_CACHE_DIR": str(folder / "packages"),
        "UV_CACHE_DIR": str(folder / "wheels"),
        "UV_LINK_MODE": "hardlink",
        "PYTHONDONTWRITEBYTECODE": "",  # uv does not compile: the first import of a module does, not every job
        "PATH": f"{programs}:{os.environ['PATH']}",
    }


def make_environments(shim: Shim) -> None:
    """Has Snakemake make the environments of the smoke study.

    Raises:
        NoShim: one could not be made; the message ends with what Snakemake said.
    """
    study = ["--cores", "1", "--configfile", "config/smoke.yaml", "--directory", str(shim.folder / "work")]
    command = [sys.executable, "-m", "snakemake", "--conda-create-envs-only", *shim.arguments, *study]
    _run(command, "packages for the environments", cwd=ROOT, env={**os.environ, **shim.variables})


def _run(command: list[str], what: str, **more) -> None:
    run = subprocess.run(command, capture_output=True, text=True, **more)
    if run.returncode:
        raise NoShim(f"the conda shim needs {what}: {(run.stderr or run.stdout).strip()[-500:]}")
