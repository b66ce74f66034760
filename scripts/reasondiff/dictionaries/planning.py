"""Which dictionaries fit into memory together, and how many passes over the text does that make?

Source: docs/architecture.md, "Banks".
"""

from __future__ import annotations

import bisect
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

GIB = 2**30
BYTES_PER_WEIGHT = 16  # fp32: the weight, its gradient, Adam's two moments
RESERVED_SHARE = 0.1  # of the free memory, for what is not counted here


class PlanError(ValueError):
    """One dictionary alone does not fit the memory; the message says what would."""


@dataclass(frozen=True)
class Size:
    """The memory of one dictionary in training.

    `weights` it has; `latents` and the `batch_tokens` of a step; `buffer_bytes` of its layer's shuffle buffer, which
    all dictionaries of the layer share.
    """

    layer: int
    name: str
    weights: int
    latents: int
    batch_tokens: int
    buffer_bytes: int

    def kept_bytes(self) -> int:
        """Held all through the training."""
        return self.weights * BYTES_PER_WEIGHT + 8 * self.latents

    def working_bytes(self) -> int:
        """Held during a step, one dictionary after the other: responses, as much again to rank them, and once more
        where stale latents are revived or the code is dense."""
        return 3 * 4 * self.batch_tokens * self.latents


def crosscoder_weights(latents: int, sides: int, width: int) -> int:
    """Weights of a crosscoder of so many activations side by side, biases apart."""
    return 2 * latents * sides * width


def transcoder_weights(latents: int, width: int) -> int:
    """Weights of a transcoder with its skip, biases apart."""
    return 2 * latents * width + width * width


def buffer_bytes(buffer_tokens: int, sides: int, width: int, number_bytes: int) -> int:
    """Memory of a layer's shuffle buffer."""
    return buffer_tokens * sides * width * number_bytes


def group_bytes(sizes: Sequence[Size]) -> int:
    """Memory of some dictionaries that are trained together."""
    buffers = {size.layer: size.buffer_bytes for size in sizes}
    return (
        sum(size.kept_bytes() for size in sizes)
        + sum(buffers.values())
        + max((size.working_bytes() for size in sizes), default=0)
    )


def plan(sizes: Sequence[Size], available_bytes: float | int) -> list[list[Size]]:
    """The dictionaries in groups, each of which fits: in order of layer, a new group where the next would not fit.

    Raises:
        PlanError: a dictionary does not fit even alone.
    """
    groups: list[list[Size]] = []
    for size in sorted(sizes, key=lambda size: size.layer):
        if group_bytes([size]) > available_bytes:
            raise PlanError(
                f"layer {size.layer}, {size.name!r} alone takes {group_bytes([size]) / GIB:.3g} GiB, and "
                f"{available_bytes / GIB:.3g} GiB may be taken: fewer latents, a smaller `buffer_tokens` or "
                "`batch_tokens`, or a larger `memory_gib` would do"
            )
        if not groups or group_bytes([*groups[-1], size]) > available_bytes:
            groups.append([])
        groups[-1].append(size)
    return groups


def plan_passes(sizes: Sequence[Size], available_bytes: float | int, processes: int) -> list[list[list[Size]]]:
    """[pass over the text][process]: the dictionaries that each process trains, where each may take so many bytes.

    Raises:
        PlanError: a dictionary does not fit even alone.
    """
    groups = plan(sizes, available_bytes)
    passes = (groups[first : first + processes] for first in range(0, len(groups), processes))
    return [share_out(list(itertools.chain.from_iterable(some)), processes) for some in passes]


def share_out(sizes: Sequence[Size], processes: int) -> list[list[Size]]:
    """For each process its dictionaries, in order of layer, such that the one that takes most takes as little as can
    be: neighbours stay together, since a layer's buffer is kept wherever one of its dictionaries is trained."""
    least, most = max((group_bytes([size]) for size in sizes), default=0), group_bytes(sizes)
    enough = bisect.bisect_left(range(least, most), True, key=lambda room: len(plan(sizes, room)) <= processes)
    shares = plan(sizes, least + enough)
    return shares + [[] for _ in range(processes - len(shares))]


def announce(passes: Sequence[Sequence[Sequence[Size]]], available_bytes: float | int, tokens: int) -> None:
    """Logs passes, processes and GiB before anything is trained."""
    count = sum(len(share) for shares in passes for share in shares)
    log.info(
        "%d dictionaries in %d group(s) of one pass over %s tokens each; %.3g GiB may be taken",
        count, len(passes), f"{tokens:,}", available_bytes / GIB,
    )  # fmt: skip
    for number, shares in enumerate(passes, start=1):
        for rank, share in enumerate(shares):
            layers = ", ".join(map(str, sorted({size.layer for size in share}))) or "none"
            where = f"group {number}" if len(shares) == 1 else f"group {number}, process {rank}"
            log.info(
                "%s: %d dictionaries of layer(s) %s, %.3g GiB", where, len(share), layers, group_bytes(share) / GIB
            )


def available_bytes(device: str, memory_gib: float | int | None, processes: int = 1) -> float | int:
    """What each of so many processes may take: `memory_gib` of its card, or what is free there less a reserve; on the
    CPU its part of that, since they share the memory."""
    import torch  # here alone: costs are reckoned with this module where there is no torch

    on_card = device.startswith("cuda")
    sharing = 1 if on_card else processes
    if memory_gib is not None:
        return memory_gib * GIB / sharing
    free = torch.cuda.mem_get_info(device)[0] if on_card else _free_host_bytes()
    return free * (1 - RESERVED_SHARE) / sharing


def _free_host_bytes() -> float | int:
    """Free memory of this machine or of the container it is, whichever is less; no limit where neither is known."""
    found = []
    memory = Path("/proc/meminfo")
    if memory.exists():
        lines = dict(line.split(":", 1) for line in memory.read_text().splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    group = Path("/sys/fs/cgroup")
    if (group / "memory.max").exists() and (limit := (group / "memory.max").read_text().strip()) != "max":
        found.append(int(limit) - int((group / "memory.current").read_text()))
    return min(found, default=float("inf"))
