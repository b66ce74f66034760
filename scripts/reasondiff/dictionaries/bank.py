"""How do many dictionaries learn from one stream of activations, and go on after an interruption?

One truncated forward pass per model feeds a shuffle buffer per layer; every dictionary of a layer steps on the same
batches, be it a crosscoder or a transcoder. A checkpoint holds the buffers, all trainers and the place in the stream,
so that a run that was killed goes on bit for bit where it stood.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from reasondiff.config import Schedule
from reasondiff.dictionaries.schedule import total_steps
from reasondiff.job import progress
from reasondiff.models.load import ModelError
from reasondiff.models.stream import ActivationStream, Block, SiteStatistics, unmasked
from reasondiff.store import ArtefactError, replacing
from reasondiff.text.tokens import pack


@runtime_checkable
class Learner(Protocol):
    """A dictionary while it trains. `state` and `load_state` carry everything that the next `step` depends on."""

    steps: int

    def step(self, x: Float[Tensor, "token side unit"], measured: bool) -> dict[str, float]:
        """One optimiser step on normalised activations; figures of the batch if they are to be `measured`."""

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...


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
    ):
        self.schedule, self.seed, self.stream = schedule, seed, stream
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
        """Trains until every site has made its steps, writing `checkpoint` every `checkpoint_minutes`.

        A checkpoint with the same fingerprint is taken up; another one is ignored.

        Raises:
            ModelError: the training part of the text has no unmasked token.
            ArtefactError: the checkpoint cannot be read.
        """
        if checkpoint is not None:
            self._resume(checkpoint, fingerprint)
        saved = time.monotonic()
        per_block = self.stream.settings.batch_rows * self.stream.context
        expected = self.schedule.tokens // per_block - self.blocks_read  # a little more, for padding and masked tokens
        bar = progress(self._blocks(documents), "training", total=max(1, expected), unit="tokens", unit_scale=per_block)
        for block in bar:
            for layer, site in self.sites.items():
                self._feed(layer, site, block, bar)
            self.blocks_read += 1
            if all(self._steps(site) >= self.total_steps for site in self.sites.values()):
                return
            if checkpoint is not None and time.monotonic() - saved > 60 * self.schedule.checkpoint_minutes:
                self._save(checkpoint, fingerprint)
                saved = time.monotonic()

    @staticmethod
    def _steps(site: Site) -> int:
        return min(trainer.steps for trainer in site.trainers.values())

    def _blocks(self, documents: np.ndarray) -> Iterator[Block]:
        """Blocks from the place reached so far; each epoch has its own document order, from the seed alone."""
        skip, epoch = self.blocks_read, 0
        while True:
            order = np.random.default_rng([self.seed, epoch]).permutation(documents)
            count = 0
            for block in self._epoch(order, skip):
                count += 1
                if block is not None:
                    yield block
            if count == 0:
                raise ModelError("no training text: the `train` part is empty; use more text")
            if not any(site.buffer.filled or site.buffer.rounds for site in self.sites.values()):
                raise ModelError("every token of the `train` part is masked; check first_positions and foreign ids")
            skip, epoch = max(0, skip - count), epoch + 1

    def _epoch(self, order: np.ndarray, skip: int) -> Iterator[Block | None]:
        """Blocks of one epoch; the first `skip` come as None, packed but not read by the models."""
        packed = pack(self.stream.table, order, self.stream.context, self.stream.settings.batch_rows)
        for index, rows in enumerate(packed):
            yield None if index < skip else self.stream.read(rows)

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
        metrics = trainer.step(normalised, measured)
        if measured:
            row = {"step": step, "tokens": step * self.schedule.batch_tokens, **metrics}
            self.sites[layer].history[name].append(row)
            self.report(layer, name, step, metrics)
            bar.note(step=step, loss=metrics["loss"])

    # ------------------------------------------------------------------------------------------- resuming

    def _save(self, path: Path, fingerprint: str) -> None:
        state = {
            "fingerprint": fingerprint,
            "blocks_read": self.blocks_read,
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
        with replacing(path) as temporary:
            torch.save(state, temporary)

    def _resume(self, path: Path, fingerprint: str) -> None:
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location=self.stream.device, weights_only=True)
        except Exception as error:
            raise ArtefactError(
                f"the checkpoint {path} cannot be read ({type(error).__name__}: {error}). Delete it and run the same "
                "command again: its dictionaries are trained anew."
            ) from error
        if state["fingerprint"] != fingerprint:
            return
        self.blocks_read = state["blocks_read"]
        for layer, saved in state["sites"].items():
            site = self.sites[layer]
            site.buffer.load_state(saved["buffer"])
            site.history, site.tokens_seen = saved["history"], saved["tokens_seen"]
            for name, trainer_state in saved["trainers"].items():
                site.trainers[name].load_state(trainer_state)
