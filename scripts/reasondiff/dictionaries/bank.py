"""How do many dictionaries learn from one stream of activations, and go on after an interruption?

One truncated forward pass per model feeds a shuffle buffer per layer; every dictionary of a layer steps on the same
batches, be it a crosscoder or a transcoder. A checkpoint holds the buffers, all trainers and the place in the stream,
so that a run that was killed goes on bit for bit where it stood. Several processes may share one stream; each then
trains whole dictionaries of its own on the batches that one process would have.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from reasondiff.config import Schedule
from reasondiff.dictionaries.checkpoint import read_checkpoint, write_checkpoint
from reasondiff.dictionaries.schedule import total_steps
from reasondiff.dictionaries.team import ALONE, Team
from reasondiff.job import preemption, progress
from reasondiff.models.load import ModelError
from reasondiff.models.stream import ActivationStream, Block, SiteStatistics, unmasked
from reasondiff.store import ArtefactError
from reasondiff.text.tokens import pack

log = logging.getLogger(__name__)


@runtime_checkable
class Learner(Protocol):
    """A dictionary while it trains. `state` and `load_state` carry everything that the next `step` depends on."""

    steps: int

    def step(self, x: Float[Tensor, "token side unit"], measured: bool) -> dict[str, float]:
        """One optimiser step on normalised activations; figures of the batch if they are to be `measured`."""

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...


@contextlib.contextmanager
def tensor_cores(device: str) -> Iterator[None]:
    """Inside, a card's products of float32 matrices are made of numbers rounded to 11 significant bits (TF32) and
    summed in float32: several times faster, and the same at every run. Nothing changes on a CPU."""
    precision = torch.get_float32_matmul_precision()
    if device.startswith("cuda"):
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)


Make = Callable[[int, str, SiteStatistics], Learner]
"""(layer, name, statistics of the site) -> a dictionary at its start."""


class ShuffleBuffer:
    """Fills with unmasked activations of one site, then hands them out in random order, batch by batch.

    The buffer is allocated once. Its order comes from `seed` and from how often it was filled, so it does not
    depend on other layers or points.
    """

    def __init__(self, capacity: int, n_sides: int, width: int, dtype: torch.dtype, device: str, seed: int):
        self.rows = torch.empty(capacity, n_sides, width, dtype=dtype, device=device)
        self.filled = 0
        self.rounds = 0
        self.seed = seed

    def add(self, rows: Float[Tensor, "token side unit"], batch: int) -> Iterator[Tensor]:
        """Stores rows; each time the buffer is full, yields shuffled batches and keeps the remainder."""
        while len(rows):
            taken = min(len(rows), len(self.rows) - self.filled)
            self.rows[self.filled : self.filled + taken] = rows[:taken]
            self.filled += taken
            rows = rows[taken:]
            if self.filled == len(self.rows):
                yield from self._drain(batch)

    def _drain(self, batch: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.rounds)
        order = torch.randperm(self.filled, generator=generator).to(self.rows.device)
        whole = self.filled // batch * batch
        rest = self.rows.index_select(0, order[whole:])
        for first in range(0, whole, batch):
            yield self.rows.index_select(0, order[first : first + batch])
        self.rounds += 1
        self.filled = len(rest)
        self.rows[: self.filled] = rest

    def state(self) -> dict[str, Any]:
        return {"rows": self.rows[: self.filled].clone(), "rounds": self.rounds}

    def load_state(self, state: dict[str, Any]) -> None:
        self.filled, self.rounds = len(state["rows"]), state["rounds"]
        self.rows[: self.filled] = state["rows"]


@dataclass
class Site:
    """One layer while its dictionaries train: its buffer, the dictionaries and their figures by name, and how many
    tokens they have seen."""

    statistics: SiteStatistics
    buffer: ShuffleBuffer
    trainers: dict[str, Learner]
    history: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    tokens_seen: int = 0


class BankTraining:
    """Trains some dictionaries of one stream.

    `todo` maps a layer to the names of those to train there, which `make` begins. Every `report_every` steps the
    figures of one go to its site's `history` (which an interruption does not lose) and to
    `report(layer, name, step, metrics)`.
    """

    def __init__(
        self,
        schedule: Schedule,
        seed: int,
        todo: dict[int, list[str]],
        stream: ActivationStream,
        statistics: dict[int, SiteStatistics],
        make: Make,
        report: Callable[[int, str, int, dict[str, float]], None],
        report_every: int = 20,
        team: Team = ALONE,
        wanted: Sequence[Collection[int]] | None = None,
    ):
        """`wanted`: the layers at which each process of the `team` trains; `todo` is of this process alone."""
        self.schedule, self.seed, self.stream = schedule, seed, stream
        self.team, self.wanted = team, wanted or [list(todo)]
        self.report, self.report_every = report, report_every
        self.total_steps = total_steps(schedule)
        self.blocks_read = 0
        self.sites = {
            layer: self._site(layer, names, statistics[layer], make) for layer, names in todo.items() if names
        }

    def _site(self, layer: int, names: list[str], statistics: SiteStatistics, make: Make) -> Site:
        stream, capacity = self.stream, self.schedule.buffer_tokens
        dtype = stream.models[0].dtype
        buffer = ShuffleBuffer(capacity, stream.n_sides, stream.width, dtype, stream.device, self.seed)
        trainers = {name: make(layer, name, statistics) for name in names}
        return Site(statistics, buffer, trainers, {name: [] for name in names})

    # ------------------------------------------------------------------------------------------- the loop

    def run(self, documents: np.ndarray, checkpoint: Path | None = None, fingerprint: str = "") -> None:
        """Trains until every site has made its steps, writing `checkpoint` every `checkpoint_minutes`, and when SIGTERM
        comes.

        A checkpoint with the same fingerprint is taken up; another one is ignored.

        Raises:
            ModelError: the training part of the text has no unmasked token.
            ArtefactError: the checkpoint cannot be read.
            Preempted: SIGTERM came; the checkpoint is of this moment.
        """
        if checkpoint is not None:
            self._resume(checkpoint, fingerprint)
        saved = time.monotonic()
        per_block = self.stream.settings.batch_rows * self.stream.context
        expected = self.schedule.tokens // per_block - self.blocks_read  # a little more, for padding and masked tokens
        bar = progress(self._blocks(documents), "training", total=max(1, expected), unit="tokens", unit_scale=per_block)
        with preemption.deferring():
            for block in bar:
                for layer, site in self.sites.items():
                    self._feed(layer, site, block, bar)
                self.blocks_read += 1
                is_time = time.monotonic() - saved > 60 * self.schedule.checkpoint_minutes
                # each a question to all processes: so they save, and end, at the same block
                all_done, none_stopped, nobody_saves = map(
                    bool, self.team.least(self._is_done(), not preemption.came, not is_time)
                )
                if all_done:
                    return
                if checkpoint is not None and not (none_stopped and nobody_saves):
                    self._save(checkpoint, fingerprint)
                    saved = time.monotonic()
                if not none_stopped:
                    preemption.stop()

    def _is_done(self) -> bool:
        return all(self._steps(site) >= self.total_steps for site in self.sites.values())

    @staticmethod
    def _steps(site: Site) -> int:
        return min(trainer.steps for trainer in site.trainers.values())

    def _blocks(self, documents: np.ndarray) -> Iterator[Block]:
        """Blocks from the place reached so far; each epoch has its own document order, from the seed alone."""
        skip, epoch = self.blocks_read, 0
        while True:
            order = np.random.default_rng([self.seed, epoch]).permutation(documents)
            packed = pack(self.stream.table, order, self.stream.context, self.stream.settings.batch_rows)
            skipped = sum(1 for _ in itertools.islice(packed, skip))  # packed, but not read by the models
            count = skipped
            for block in self.team.read(self.stream, packed, self.wanted):
                count += 1
                yield block
            if count == 0:
                raise ModelError("no training text: the `train` part is empty; use more text")
            if self.sites and not any(site.buffer.filled or site.buffer.rounds for site in self.sites.values()):
                raise ModelError("every token of the `train` part is masked; check first_positions and foreign ids")
            skip, epoch = skip - skipped, epoch + 1

    def _feed(self, layer: int, site: Site, block: Block, bar: progress) -> None:
        if self._steps(site) >= self.total_steps:
            return
        kept, _ = unmasked(block, layer, site.statistics, self.stream.settings)
        rows = block.activations[layer].index_select(0, kept.nonzero().squeeze(1))
        for batch in site.buffer.add(rows, self.schedule.batch_tokens):
            if self._steps(site) >= self.total_steps:
                return
            normalised = batch.float() * site.statistics.scale[:, None]
            site.tokens_seen += len(batch)
            for name, trainer in site.trainers.items():
                self._learn(layer, name, trainer, normalised, bar)

    def _learn(self, layer: int, name: str, trainer: Learner, normalised: Tensor, bar: progress) -> None:
        """One step of one dictionary on a batch, with its figures if it is their turn."""
        step = trainer.steps + 1
        measured = step % self.report_every == 0 or step == self.total_steps
        with tensor_cores(self.stream.device):
            metrics = trainer.step(normalised, measured)
        if measured:
            row = {"step": step, "tokens": step * self.schedule.batch_tokens, **metrics}
            self.sites[layer].history[name].append(row)
            self.report(layer, name, step, metrics)
            bar.note(step=step, loss=metrics["loss"])

    # ------------------------------------------------------------------------------------------- resuming

    def _save(self, path: Path, fingerprint: str) -> None:
        """Each process writes what it trains to a file of its own. That of the first one is written last and counts:
        it names the others, so that a checkpoint is always of one moment."""
        parts = [f"{path.stem}.part{rank}.{self.blocks_read}{path.suffix}" for rank in range(1, self.team.size)]
        state = {
            "fingerprint": fingerprint,
            "blocks_read": self.blocks_read,
            "parts": parts if self.team.rank == 0 else [],
            "sites": {
                layer: {
                    "buffer": site.buffer.state(),
                    "trainers": {name: trainer.state() for name, trainer in site.trainers.items()},
                    "history": site.history,
                    "tokens_seen": site.tokens_seen,
                }
                for layer, site in self.sites.items()
            },
        }
        if self.team.rank > 0:
            write_checkpoint(path.with_name(parts[self.team.rank - 1]), state)
        self.team.wait()
        if self.team.rank == 0:
            write_checkpoint(path, state)
            _remove_parts(path, but=parts)

    def _resume(self, path: Path, fingerprint: str) -> None:
        """Takes up what of a checkpoint is trained here, whichever process wrote it."""
        if not path.exists():
            return
        state = read_checkpoint(path)
        if state["fingerprint"] != fingerprint:
            return
        self.blocks_read = state["blocks_read"]
        log.info("go on from the checkpoint %s, after %d blocks", path, self.blocks_read)
        for part in [state, *(_read_part(path.with_name(name), state) for name in state["parts"])]:
            for layer, saved in part["sites"].items():
                if layer in self.sites:
                    self._take_up(self.sites[layer], saved)

    @staticmethod
    def _take_up(site: Site, saved: dict[str, Any]) -> None:
        site.buffer.load_state(saved["buffer"])
        site.tokens_seen = saved["tokens_seen"]
        for name in site.trainers.keys() & saved["trainers"].keys():
            site.trainers[name].load_state(saved["trainers"][name])
            site.history[name] = saved["history"][name]


def _read_part(path: Path, first: dict[str, Any]) -> dict[str, Any]:
    if not path.exists():
        raise ArtefactError(
            f"the checkpoint part {path} is missing: delete the checkpoint and run the same command again"
        )
    state = read_checkpoint(path)
    if (state["fingerprint"], state["blocks_read"]) != (first["fingerprint"], first["blocks_read"]):
        raise ArtefactError(
            f"{path} is of another moment than its checkpoint: delete both and run the same command again"
        )
    return state


def remove_checkpoint(path: Path) -> None:
    """Removes a checkpoint, where there is one, with its parts."""
    path.unlink(missing_ok=True)
    _remove_parts(path, but=[])


def _remove_parts(path: Path, but: Collection[str]) -> None:
    for part in path.parent.glob(f"{glob.escape(path.stem)}.part*{path.suffix}"):
        if part.name not in but:
            part.unlink()
