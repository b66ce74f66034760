"""How is the workflow run by a test: in a copy of its own, offline?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KEPT = ("Snakefile", "workflow", "scripts", "config", "envs")


def snakemake(*arguments: str, folder: Path, warm: bool = True) -> subprocess.CompletedProcess:
    """Snakemake in `folder`; a `warm` one imports torch once for all of its jobs (warm_snakemake.py)."""
    program = [str(ROOT / "tests/warm_snakemake.py")] if warm else ["-m", "snakemake"]
    command = [sys.executable, *program, *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


def said(run: subprocess.CompletedProcess) -> str:
    return run.stdout + run.stderr


def copy_workflow(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        source = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, folder / name, ignore=ignore) if source.is_dir() else shutil.copy(source, folder / name)
    return folder


def copy_study(finished: Path, folder: Path) -> Path:
    """A copy of a workflow that has run: results, what Snakemake knows of them, and when each file was written."""
    return shutil.copytree(finished, folder, symlinks=True, dirs_exist_ok=True)
