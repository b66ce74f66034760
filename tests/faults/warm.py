"""How does a job's own process start without importing torch anew?

This module is imported by a fork server and by its forks, which must find the library of the workflow's copy: so it
imports nothing of ours.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

HEAVY = ["torch", "pandas", "pyarrow.parquet", "datasets", "transformers.models.qwen2.modeling_qwen2"]
ERRORS = "script.errors.txt"


def start_script(script: Path, folder: Path) -> BaseProcess:
    """Runs a script in `folder`, in a process of its own whose errors go to the file ERRORS there."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    process = context.Process(target=_run, args=(str(script), str(folder)), daemon=True)
    process.start()
    return process


def _run(script: str, folder: str) -> None:
    import torch

    os.chdir(folder)
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
    torch.set_num_threads(1)  # it was imported before the variable was set
    with open(ERRORS, "w") as errors:
        for number in (1, 2):
            os.dup2(errors.fileno(), number)
    sys.path.insert(0, str(Path(folder) / "scripts"))
    runpy.run_path(script, run_name="__main__")
