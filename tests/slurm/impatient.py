"""Snakemake on the command line, asking SLURM every two seconds how its jobs are.

The executor plugin waits ten seconds longer after each answer that brought nothing new: right on a cluster of many
users, and most of the time that a study of seconds would take.
"""

from __future__ import annotations

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor

Executor.next_seconds_between_status_checks = property(lambda self: 2, lambda self, seconds: None)

if __name__ == "__main__":
    main()
