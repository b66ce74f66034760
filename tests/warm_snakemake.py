"""What if every job of a study need not import torch anew?

`python warm_snakemake.py ARGUMENTS` is `snakemake ARGUMENTS` whose Python scripts run in forks of this process, which
has imported the heavy packages once. A job's own work is unchanged: the same script, in a process of its own. Of a
small study's seconds most are imports, so tests that run many jobs use this. The plain way gives the same bytes: the
smoke study is compared with itself as SLURM and conda environments run it (tests/slurm).
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
import traceback

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported


IMPORTING = threading.Lock()


def import_heavy_packages() -> None:
    """With the first job, so that a dry run need not wait for it."""
    import datasets  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import numba  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch
    import transformers.models.qwen2.modeling_qwen2  # noqa: F401

    torch.set_num_threads(1)


def run_in_a_fork(script, file: str, edit: bool = False) -> None:
    """In the place of `PythonScript.execute_script`, which starts a new Python.

    Raises:
        RuntimeError: the script failed.
    """
    from snakemake.benchmark import benchmarked

    with IMPORTING:
        import_heavy_packages()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os._exit(_exit_status(file))
    with benchmarked(child, script.bench_record) if script.bench_record else benchmarked(False):
        _, status = os.waitpid(child, 0)
    if status != 0:
        raise RuntimeError(f"{file} ended with status {os.waitstatus_to_exitcode(status)}")


def _exit_status(file: str) -> int:
    try:
        runpy.run_path(file, run_name="__main__")
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def main() -> None:
    from snakemake import cli, script

    script.PythonScript.execute_script = run_in_a_fork
    cli.main(sys.argv[1:])


if __name__ == "__main__":
    main()
