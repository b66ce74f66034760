"""How is a job of the finished smoke study killed at a random moment, and is the study the same after it went on?"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
from running import copy_study, said
from warm import ERRORS, start_script

from reasondiff.manifest import artefact_names, is_timed
from reasondiff.store import read_json, sha256

SEED = os.environ.get("REASONDIFF_FAULT_SEED") or str(random.SystemRandom().randrange(10**6))
OFTEN = "banks={main: {checkpoint_minutes: 1.0e-9}}", "transcoders={training: {checkpoint_minutes: 1.0e-9}}"
PLAIN = ("--configfile", "config/smoke.yaml", "--rerun-triggers", "mtime", "--cores", "1")
STUDY = (*PLAIN, "--config", *OFTEN)
RESULTS = Path("results/smoke")
PATIENCE_SECONDS = 300
TRAINING_SHARE = 0.15  # of a training job's time, in this study; the rest is imports and loading


@dataclass(frozen=True)
class Work:
    """A job that makes `files` (below the results) again once they are lost, and its log."""

    kind: str
    files: tuple[str, ...]
    log: str


@dataclass(frozen=True)
class Moment:
    """A share (from 0 to 1) of a job's usual time, from its beginning or from its first checkpoint on."""

    share: float
    after_checkpoint: bool = False

    def earlier(self) -> Moment:
        return replace(self, share=self.share / 2)


_SITE = "crosscoders/base-distill/traces/layer1"
_SET = "transcoders/base/traces/x4k8/seed1"
BANK = Work(
    "crosscoder training",
    tuple(f"{_SITE}/{point}/seed0/crosscoder.safetensors" for point in ("l1", "btk8", "alone0")),
    "train_bank/base-distill/traces/main.seed0.log",
)
TRANSCODERS = Work(
    "transcoder training",
    tuple(f"{_SET}/layers.{layer}.mlp/sae.safetensors" for layer in range(3)),
    "train_transcoders/base/x4k8.seed1.log",
)
EXAMPLES = Work(
    "collection of examples",
    tuple(f"{_SITE}/{point}/seed0/{table}.parquet" for point in ("l1", "btk8") for table in ("examples", "firing")),
    "collect_examples/base-distill/traces/layer1.log",
)
LABELS = Work("labels", (f"{_SITE}/btk8/seed0/labels.json",), f"label_latents/{_SITE}/btk8/seed0.log")
GRAPHS = Work(
    "graph tracing",
    tuple(
        f"graphs/distill/seed0/{prompt}/{target}/{file}"
        for prompt in ("arithmetic_01", "rectangles_01")
        for target in ("prompt", "answer")
        for file in ("graph.npz", "interventions.tsv")
    ),
    "trace_graphs/distill.seed0.0.log",
)


def digests(results: Path) -> dict[str, str]:
    """{artefact: SHA-256} of all that two equal runs have in common."""
    return {name: sha256(results / name) for name in artefact_names(results) if not is_timed(name)}


class Workplace:
    """A copy of the finished smoke study. Between two injuries it is as it was in the beginning."""

    def __init__(self, finished: Path, folder: Path):
        self.finished, self.folder = finished, copy_study(finished, folder)
        self.whole = digests(folder / RESULTS)
        self.scripts: dict[Work, Path] = {}

    def restore(self) -> None:
        """What a failed test has left is put right, so that the next one says something."""
        now = digests(self.folder / RESULTS)
        for name in (name for name, digest in self.whole.items() if now.get(name) != digest):
            shutil.copy2(self.finished / RESULTS / name, self.folder / RESULTS / name)
        if self.locks():
            subprocess.run([sys.executable, "-m", "snakemake", "--unlock", *STUDY], cwd=self.folder, check=True)

    def locks(self) -> list[Path]:
        return list((self.folder / ".snakemake/locks").glob("*"))

    def lose(self, work: Work) -> None:
        """The files of a job are gone, and so is what an earlier attempt left of it."""
        for path in [*(self.folder / RESULTS / file for file in work.files), self.log(work), *self.checkpoints()]:
            path.unlink(missing_ok=True)

    def log(self, work: Work) -> Path:
        return self.folder / "logs/smoke" / work.log

    def seconds(self, work: Work) -> float:
        """How long the job took when nothing disturbed it."""
        return read_json(self.folder / RESULTS / f"{work.files[0]}.run.json")["seconds"]

    def changed(self) -> list[str]:
        """Artefacts that are there and not as they were: there must never be one."""
        now = digests(self.folder / RESULTS)
        return [name for name, digest in now.items() if self.whole.get(name) != digest]

    def checkpoints(self) -> list[Path]:
        """Checkpoints of trainings under way."""
        return [path for path in (self.folder / RESULTS).rglob("checkpoints/*") if not path.name.startswith(".")]

    def is_whole(self) -> bool:
        return digests(self.folder / RESULTS) == self.whole

    # ------------------------------------------------------------------------------------------- through Snakemake

    def command(self, work: Work, *options: str, study: tuple[str, ...] = STUDY) -> list[str]:
        targets = [str(RESULTS / file) for file in work.files]
        return [sys.executable, "-m", "snakemake", *targets, *study, "--skip-script-cleanup", *options]

    def start(self, work: Work, *options: str, study: tuple[str, ...] = STUDY) -> subprocess.Popen:
        """Snakemake's head process, at work on the job."""
        return self._started(self.command(work, *options, study=study))

    def snakemake(self, work: Work, *options: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(work, *options), cwd=self.folder, env=_environment(), capture_output=True, text=True
        )

    def unlock(self, work: Work) -> None:
        """What a head process that was killed asks for before the same command again."""
        run = self.snakemake(work, "--unlock")
        assert run.returncode == 0, said(run)[-3000:]

    def resume(self, work: Work) -> str:
        """The same command again; what Snakemake said."""
        run = self.snakemake(work, "--rerun-incomplete")
        assert run.returncode == 0, said(run)[-3000:]
        return said(run)

    # ------------------------------------------------------------------------------------------- the process alone

    def start_process(self, work: Work) -> BaseProcess:
        """The job's own process, running what Snakemake wrote for it, without Snakemake around it."""
        return start_script(self.scripts[work], self.folder)

    def run_process(self, work: Work) -> None:
        process = self.start_process(work)
        process.join(PATIENCE_SECONDS)
        assert process.exitcode == 0, (self.folder / ERRORS).read_text()[-3000:]

    def _started(self, command: list[str]) -> subprocess.Popen:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=_environment(), stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )

    def find_script(self, work: Work) -> None:
        """Runs the job once, undisturbed, to learn what Snakemake starts."""
        self.lose(work)
        head = self.start(work)
        with ended(head):
            assert self.wait(Moment(0.0), work, head)
            self.remember_script(work, self.job_of(head))
            _, errors = head.communicate()
        assert head.returncode == 0, errors[-3000:]

    def remember_script(self, work: Work, process: psutil.Process) -> None:
        """Keeps what Snakemake wrote for a job's process to run."""
        path = next(self.folder / part for part in process.cmdline() if ".snakemake/scripts" in part)
        self.scripts[work] = path.resolve()

    # ------------------------------------------------------------------------------------------- moments

    def is_at_work(self, work: Work) -> bool:
        """Whether the job's log says that its library call has begun."""
        return (log := self.log(work)).exists() and " rule " in log.read_text()

    def wait(self, moment: Moment, work: Work, process: subprocess.Popen | BaseProcess) -> bool:
        """Until that moment of a job; False if it ended before."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (self.is_at_work(work) and (self.checkpoints() or not moment.after_checkpoint)):
            if not runs(process):
                return False
            assert time.monotonic() < deadline, f"{work.kind}: nothing happened in {PATIENCE_SECONDS} s"
            time.sleep(0.002)
        time.sleep(moment.share * self.seconds(work) * (TRAINING_SHARE if moment.after_checkpoint else 1.0))
        return runs(process)

    def job_of(self, head: subprocess.Popen) -> psutil.Process | None:
        """The process of the job that a head process has started, if it runs still."""
        for child in psutil.Process(head.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if any(".snakemake/scripts" in part for part in child.cmdline()):
                    return child
        return None


def runs(process: subprocess.Popen | BaseProcess) -> bool:
    return process.poll() is None if isinstance(process, subprocess.Popen) else process.is_alive()


def _environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@contextmanager
def ended(process: subprocess.Popen) -> Iterator[None]:
    """Whatever happens, nothing that was started here runs on."""
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
