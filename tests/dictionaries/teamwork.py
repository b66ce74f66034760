"""Trainings that several processes share, as functions that a process can find by name."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
from planted import bank, batch_topk, l1
from streams import PlantedStream

from reasondiff.config import Tracking
from reasondiff.dictionaries.sweep import Outputs, train_bank, train_bank_from_files
from reasondiff.dictionaries.team import ALONE, Team
from reasondiff.dictionaries.transcoding import train_transcoders_from_files

POINTS = {"btk": batch_topk(stale_after_tokens=3000), "l1": l1(), "alone": batch_topk(sides=(1,))}
BANK = bank(
    tokens=12_000, batch_tokens=200, buffer_tokens=900, layers=(1, 2), points=POINTS, checkpoint_minutes=10
)  # fmt: skip
NO_TRACKING = Tracking(kind="none", project="p", mode="offline")


class EventfulStream(PlantedStream):
    """Something happens before the block of number `at` is read, in the process `rank`."""

    def __init__(self, event: str | None, at: int, rank: int, team: Team):
        super().__init__(layers=(1, 2))
        self.event, self.at, self.is_here = event, at, rank == team.rank
        self.reads = []  # shared with the streams of `only`

    def read(self, rows):
        self.reads.append(rows)
        if self.is_here and len(self.reads) == self.at:
            if self.event == "error":
                raise ValueError("the planted error")
            if self.event == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.event == "preempt":
                os.kill(os.getppid(), signal.SIGTERM)
        return super().read(rows)


def train_planted(folder: str, event: str | None = None, at: int = 25, rank: int = 1, team: Team = ALONE) -> None:
    """A bank of two layers, L1 and BatchTopK. Each process leaves files with its number and how often it read; where
    something is to happen there is a checkpoint after every block."""
    torch.set_num_threads(1)
    Path(folder, f"pid{team.rank}").write_text(str(os.getpid()))
    stream = EventfulStream(event, at, rank, team)
    outputs = Outputs(folder, [1, 2], list(POINTS), 0)
    checkpoint = f"{folder}/checkpoint.safetensors"
    settings = BANK if event is None else BANK.model_copy(update={"checkpoint_minutes": 1e-9})
    train_bank(settings, "pair", outputs, lambda: stream, 200, NO_TRACKING, "code", checkpoint, None, team)
    Path(folder, f"read{team.rank}").write_text(str(len(stream.reads)))


def train_models(crosscoders: dict, transcoders: dict, team: Team = ALONE) -> None:
    """Crosscoders of two models, then transcoders of one, as the rules' scripts train them."""
    torch.set_num_threads(1)
    train_bank_from_files(**crosscoders, team=team)
    train_transcoders_from_files(**transcoders, team=team)
