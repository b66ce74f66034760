"""How does a job run in several processes, each on a card of its own, so that they end together?

PyTorch's elastic agent (what `torchrun` starts) watches the processes: when one fails or is killed, the others are
ended and the job fails. A process whose job has disappeared ends by itself.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from reasondiff.dictionaries.team import OutOfTouch, Team
from reasondiff.job import open_log, preemption, prefer_library

log = logging.getLogger(__name__)

PATIENCE = timedelta(days=2)  # of one process for another: the agent sees at once when one is gone
LOOK_SECONDS = 0.5
LAST_SECONDS = 60  # in which the agent ends a process that has lost another


class WorkerError(RuntimeError):
    """A process of a job failed or was killed; the others have been ended."""


def run_together(function: Callable[..., None], processes: int, device: str, arguments: Mapping[str, Any]) -> None:
    """Calls a module's function with these arguments, which must have a JSON form; in several processes each of them
    also gets its place in the `team`. With one process it is an ordinary call.

    Raises:
        WorkerError: a process failed; says which was first and why.
    """
    if processes == 1:
        function(**arguments)
        return
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    prefer_library(Path(__file__).resolve().parents[2])
    logging.getLogger("torchelastic-events-null").disabled = True  # it would log the agent's every state
    log.info("%d processes on %s", processes, device)
    with tempfile.TemporaryDirectory(prefix="reasondiff-") as folder:
        order = {
            "function": [function.__module__, function.__qualname__],
            "arguments": dict(arguments),
            "device": device,
            "job": os.getpid(),
            "logs": [one.baseFilename for one in logging.getLogger().handlers if isinstance(one, logging.FileHandler)],
        }
        path = Path(folder) / "order.json"
        path.write_text(json.dumps(order))
        settings = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=f"job{os.getpid()}",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            monitor_interval=LOOK_SECONDS,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(settings, sys.executable)("-m", __name__, str(path))
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            reason = failure.message["message"] if isinstance(failure.message, dict) else failure.message
            raise WorkerError(
                f"process {rank} of {processes} failed ({reason}) and the others were ended; its traceback is in the "
                "log. Run the same command again: it goes on from the last checkpoint"
            ) from None
        except SignalException as stopped:
            if stopped.sigval == signal.SIGTERM:
                preemption.stop()
            raise


def _work(path: str) -> None:
    """What each process does."""
    order, rank = json.loads(Path(path).read_text()), int(os.environ["RANK"])
    threading.Thread(target=_end_without, args=(order["job"],), daemon=True).start()
    signal.signal(signal.SIGTERM, preemption.notice)
    open_log(order["logs"], rank)
    on_card = order["device"].startswith("cuda")
    if on_card:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # from here on "cuda" means this card
    module, name = order["function"]
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_card else "gloo", timeout=PATIENCE)
        team = Team(rank, dist.get_world_size())
        getattr(importlib.import_module(module), name)(**order["arguments"], team=team)
        dist.destroy_process_group()
    except OutOfTouch as error:
        log.error("%s", error)
        time.sleep(LAST_SECONDS)  # the agent is to see first what happened to the other
        raise
    except Exception:
        log.exception("failed")
        raise


def _end_without(job: int) -> None:
    """Ends this process when the job that started it is gone, were it killed."""
    while os.getppid() == job:
        time.sleep(LOOK_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    from torch.distributed.elastic.multiprocessing.errors import record

    with contextlib.ExitStack() as silenced:
        if os.environ["RANK"] != "0":  # one progress bar on a terminal is enough; all that is logged is in the log
            silenced.enter_context(contextlib.redirect_stderr(silenced.enter_context(open(os.devnull, "w"))))
        record(_work)(sys.argv[1])
