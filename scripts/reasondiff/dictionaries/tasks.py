"""Which dictionaries of a job still have to be trained, and how does each come to its file?

A dictionary is finished when its file carries the fingerprint of exactly these settings, data, seed and code.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reasondiff.config import Schedule
from reasondiff.dictionaries.bank import BankTraining, Make, Site, remove_checkpoint
from reasondiff.dictionaries.planning import Size, announce, available_bytes, buffer_bytes, plan_passes
from reasondiff.dictionaries.team import ALONE, Team
from reasondiff.models.stream import ActivationStream, SiteStatistics, calibrate
from reasondiff.store import fingerprint, is_finished
from reasondiff.tracking import Tracker

log = logging.getLogger(__name__)

Key = tuple[int, str]
"""(layer, name)"""


@dataclass(frozen=True)
class Task:
    """One dictionary of a job. `files` are all that it leaves; the first holds the weights and the fingerprint."""

    layer: int
    name: str
    files: tuple[Path, ...]
    fingerprint: str
    weights: int
    latents: int

    @property
    def key(self) -> Key:
        return self.layer, self.name

    def is_whole(self) -> bool:
        return all(path.exists() for path in self.files) and is_finished(self.files[0], self.fingerprint)


Begin = Callable[[ActivationStream, dict[int, SiteStatistics]], Make]
"""(stream of a group's layers, statistics) -> how each of its dictionaries begins."""
Finish = Callable[[dict[Key, Task], dict[int, Site], dict[int, SiteStatistics]], None]
"""(tasks of a pass, its sites after training, statistics) -> writes the files of each task."""


def train_tasks(
    tasks: Sequence[Task],
    schedule: Schedule,
    seed: int,
    stream: ActivationStream,
    begin: Begin,
    finish: Finish,
    memory_gib: float | int | None,
    checkpoint: Path,
    open_tracker: Callable[[], Tracker],
    team: Team = ALONE,
) -> None:
    """Trains the unfinished tasks, in as many groups as the memory asks for, and writes each group when it is done.

    An interrupted training goes on from `checkpoint`, which is removed in the end. Each process of the `team` calls
    this with the same tasks, and trains and writes its share of them. How the tasks are grouped and shared out changes
    no weight.
    """
    whole = team.least(*(task.is_whole() for task in tasks))  # the same to all, whenever each has looked
    unfinished = [task for task, is_whole in zip(tasks, whole, strict=True) if not is_whole]
    log.info("train %s", [task.key for task in unfinished])
    log.info("keep %s", [task.key for task in tasks if task not in unfinished])
    if not unfinished:
        remove_checkpoint(checkpoint)  # of a job that was killed when it had just written its last file
        return
    statistics = calibrate(stream, stream.table.documents_of("calibrate"), stream.settings.calibration_tokens)
    (available,) = team.least(available_bytes(stream.device, memory_gib, team.size))
    passes = plan_passes([_size(task, schedule, stream) for task in unfinished], available, team.size)
    if team.rank == 0:
        announce(passes, available, schedule.tokens)
    by_key = {task.key: task for task in unfinished}
    with open_tracker() as tracker:
        for shares in passes:
            chosen = [[by_key[size.layer, size.name] for size in share] for share in shares]
            sites = _train_pass(chosen, schedule, seed, stream, statistics, begin, checkpoint, tracker, team)
            finish({task.key: task for task in chosen[team.rank]}, sites, statistics)
            del sites  # the next pass needs the memory
            team.wait()
            if team.rank == 0:
                remove_checkpoint(checkpoint)


def _size(task: Task, schedule: Schedule, stream: ActivationStream) -> Size:
    number_bytes = torch.finfo(stream.models[0].dtype).bits // 8
    buffer = buffer_bytes(schedule.buffer_tokens, stream.n_sides, stream.width, number_bytes)
    return Size(task.layer, task.name, task.weights, task.latents, schedule.batch_tokens, buffer)


def _train_pass(
    shares: Sequence[Sequence[Task]],
    schedule: Schedule,
    seed: int,
    stream: ActivationStream,
    statistics: dict[int, SiteStatistics],
    begin: Begin,
    checkpoint: Path,
    tracker: Tracker,
    team: Team,
) -> dict[int, Site]:
    """The sites of this process after one pass, of which `shares` are the tasks of each process."""
    todo: dict[int, list[str]] = {}
    for task in shares[team.rank]:
        todo.setdefault(task.layer, []).append(task.name)
    wanted = [sorted({task.layer for task in share}) for share in shares]

    def report(layer: int, name: str, step: int, metrics: dict[str, float]) -> None:
        tracker.log(f"layer{layer}/{name}", step, metrics)

    make = begin(stream.only(sorted(todo)), statistics)
    read = stream.only(sorted(set().union(*wanted)))
    training = BankTraining(schedule, seed, todo, read, statistics, make, report, team=team, wanted=wanted)
    prints = fingerprint(tasks=sorted([*task.key, task.fingerprint] for share in shares for task in share))
    training.run(stream.table.documents_of("train"), checkpoint, prints)
    return training.sites


def site_card(site: Site, name: str) -> dict[str, Any]:
    """What a dictionary's card says of its training: tokens seen, constants of the site, figures of the last batch."""
    last = site.history[name][-1] if site.history[name] else {}
    return {
        "tokens_seen": site.tokens_seen,
        "site": {
            "median_norm": site.statistics.median_norm.tolist(),
            "scale": site.statistics.scale.tolist(),
            "calibration_tokens": site.statistics.tokens,
        },
        "last_batch": {key: last[key] for key in ("loss", "fve", "l0") if key in last},
    }
