"""What does every script need around its one library call?

`with job(snakemake) as log:` gives a log file, the traceback in it when something fails, a leased GPU (or none),
and, on success, a `<file>.run.json` beside each output it wrote that says where and when it was made.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from tqdm import tqdm

from reasondiff.gpus import lease
from reasondiff.store import write_text

T = TypeVar("T")
PACKAGES = ("torch", "transformers", "numpy", "pandas", "snakemake")
LOG_LINE_SECONDS = 10.0
PROGRESS = "reasondiff.progress"


class Preempted(SystemExit):
    """The scheduler wants the machine back: SIGTERM came. The job fails, so that it is started again."""


class Preemption:
    """Whether SIGTERM came, and whether the job may be stopped where it stands.

    Invariant: while something is `deferred`, the signal is only noted.
    """

    def __init__(self) -> None:
        self.came = self.deferred = False

    def notice(self, *_: Any) -> None:
        """The handler of the signal."""
        self.came = True
        if not self.deferred:
            self.stop()

    @contextlib.contextmanager
    def deferring(self) -> Iterator[Preemption]:
        """For a loop that asks whether it `came` wherever it can stop, saves what it has, and calls `stop`."""
        self.deferred = True
        try:
            yield self
        finally:
            self.deferred = False

    def stop(self) -> None:
        """
        Raises:
            Preempted: always.
        """
        raise Preempted("stopped by SIGTERM: run the same command again to go on")


preemption = Preemption()


@contextlib.contextmanager
def _noticing_sigterm() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # where Python delivers no signals
        yield
        return
    before = signal.signal(signal.SIGTERM, preemption.notice)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def job(snakemake: Any) -> Iterator[logging.Logger]:
    """Runs the body of a rule's script: log, GPU lease, run facts.

    Exceptions are written to the log and raised again, so that Snakemake sees the failure. SIGTERM, by which a cluster
    preempts, is one of them.

    Raises:
        Preempted: SIGTERM came.
        RuntimeError: the `reasondiff` that Python found is not the one beside the workflow's scripts.
    """
    log = open_log(snakemake.log)
    started, before = time.time(), _modified(snakemake.output)
    try:
        _refuse_foreign_library(Path(snakemake.scriptdir))
        with _noticing_sigterm(), lease(int(snakemake.resources.get("gpu", 0) or 0)) as cards:
            log.info("rule %s, threads %s, device %s", snakemake.rule, snakemake.threads, cards or "cpu")
            yield log
        facts = run_facts(snakemake, cards, started)
        # finished points of a bank are left in place: what made them stands beside them already
        for output, _ in _modified(snakemake.output).items() - before.items():
            write_text(f"{output}.run.json", json.dumps(facts, indent=1) + "\n")
        log.info("done in %.1f s", time.time() - started)
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt):
            log.exception("failed after %.1f s", time.time() - started)
        raise
    finally:
        for handler in logging.getLogger().handlers:
            handler.flush()


def open_log(paths: Any, process: int | None = None) -> logging.Logger:
    """Sends everything logged to the first of `paths` and warnings to the screen. With its number a process among
    several of a job adds to the job's log, and of their progress only that of number 0 is told."""
    handlers: list[logging.Handler] = []
    if paths:
        path = Path(paths[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        if process is None:
            path.write_text("")
        handlers.append(logging.FileHandler(path, mode="a"))  # so that no process writes over another's lines
    screen = logging.StreamHandler(sys.stderr)
    screen.setLevel(logging.WARNING)
    who = "" if process is None else f" [process {process}]"
    layout = f"%(asctime)s %(levelname)s %(name)s{who}: %(message)s"
    logging.basicConfig(level=logging.INFO, handlers=[*handlers, screen], format=layout, force=True)
    for noisy in (
        "matplotlib",
        "urllib3",
        "httpx",
        "httpx2",
        "httpcore2",
        "anthropic",
        "filelock",
        "fsspec",
        "datasets",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger(PROGRESS).setLevel(logging.WARNING if process else logging.INFO)
    return logging.getLogger("reasondiff")


def _modified(outputs: Iterable[str]) -> dict[str, int]:
    """When each output that exists was last written, in nanoseconds."""
    return {output: os.stat(output).st_mtime_ns for output in outputs if os.path.exists(output)}


def prefer_library(folder: Path) -> None:
    """Puts `folder` first on the path of every Python started from here on.

    Snakemake only appends a script's folder, so that an installed reasondiff would come before the workflow's own.
    """
    given = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if str(folder) not in given:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *given])


def _refuse_foreign_library(script_folder: Path) -> None:
    ours = (script_folder / "reasondiff").resolve()
    found = Path(__file__).resolve().parent
    if ours.is_dir() and found != ours:
        raise RuntimeError(
            f"the scripts would run with another reasondiff ({found}) than the workflow's own ({ours}). "
            "Uninstall the installed copy (`pip uninstall reasondiff`) or install this one (`pip install -e .`)."
        )


def run_facts(snakemake: Any, cards: list[str], started: float) -> dict[str, Any]:
    """Where, when and with what a job ran: everything that must not change the content of its outputs."""
    return {
        "rule": snakemake.rule,
        "wildcards": dict(snakemake.wildcards.items()),
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "device": f"cuda:{','.join(cards)}" if cards else f"cpu ({platform.machine()}, {os.cpu_count()} cores)",
        "threads": snakemake.threads,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 2),
        "peak_memory_gib": round(peak_memory_gib(), 3),
    }


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        said = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, timeout=10)
        return said.stdout.strip() or None
    return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def peak_memory_gib() -> float:
    """The most that this process has held so far."""
    import resource

    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes / 2**20 if sys.platform != "darwin" else kibibytes / 2**30


class progress(Generic[T]):
    """Iterates with a progress bar on a terminal and, in the log, a line about every ten seconds.

    `unit_scale` is how many units (tokens, say) one item stands for, so that the rate is in those units.
    """

    def __init__(self, items: Iterable[T], what: str, total: int | None = None, unit: str = "it", unit_scale: int = 1):
        self.items, self.what, self.unit, self.unit_scale = items, what, unit, unit_scale
        self.total = total if total is not None else (len(items) if hasattr(items, "__len__") else None)
        self.notes: dict[str, Any] = {}

    def note(self, **values: Any) -> None:
        """Values (a loss, say) to show beside the progress from now on."""
        self.notes.update(values)

    def __iter__(self) -> Iterator[T]:
        started = said = time.monotonic()
        bar = tqdm(self.items, total=self.total, desc=self.what, unit=self.unit, disable=None, leave=False)
        for done, item in enumerate(bar, start=1):
            yield item
            now = time.monotonic()
            if now - said >= LOG_LINE_SECONDS:
                said = now
                self._say(done, now - started)
                bar.set_postfix(self.notes, refresh=False)

    def _say(self, done: int, seconds: float) -> None:
        rate = done / seconds
        left = f", {max(0.0, self.total - done) / rate:.0f} s left" if self.total else ""
        notes = "".join(f", {name} {value:.5g}" for name, value in self.notes.items())
        of_total = f"/{self.total}" if self.total else ""
        logging.getLogger(PROGRESS).info(
            "%s: %d%s, %.4g %s/s%s%s", self.what, done, of_total, rate * self.unit_scale, self.unit, left, notes
        )
