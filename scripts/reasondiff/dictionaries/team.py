"""How do the processes of one training read a text together, each a share of it, and all see the same activations?

The rows of a text are packed alike everywhere. Of every few blocks of rows each process has its models read one, and
hands the activations of every layer to those that train a dictionary there. So all of them see the blocks that one
process alone would see, in its order, and none exchanges gradients.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from reasondiff.models.stream import ActivationStream, Block
from reasondiff.text.tokens import PackedRows


class OutOfTouch(RuntimeError):
    """Another process of the team is gone, so that this one can do nothing more. Why is for that one to say."""


@dataclass(frozen=True)
class Team:
    """Process number `rank` of `size`; of one alone nothing is ever sent."""

    rank: int = 0
    size: int = 1

    def least(self, *numbers: float | int) -> list[float]:
        """The smallest that any process gives, number by number. All must call it equally often: they wait here for one
        another."""
        if self.size == 1:
            return [float(number) for number in numbers]
        together = torch.tensor(numbers, dtype=torch.float64)
        with _in_touch():
            dist.all_reduce(together, dist.ReduceOp.MIN)
        return together.tolist()

    def wait(self) -> None:
        """Until all processes have come here."""
        self.least(0)

    def read(
        self, stream: ActivationStream, packed: Iterable[PackedRows], wanted: Sequence[Collection[int]]
    ) -> Iterator[Block]:
        """The block of each of these packed rows, in order, with the layers that this process wants; `wanted` are the
        layers that each process of the team wants. All have to take as many blocks."""
        waiting = iter(packed)
        while rows := list(itertools.islice(waiting, self.size)):
            own = stream.read(rows[self.rank]).activations if self.rank < len(rows) else {}
            for reader, its_rows in enumerate(rows):
                if reader == self.rank:
                    self._hand_out(own, wanted)
                    activations = {layer: own[layer] for layer in sorted(wanted[self.rank])}
                else:
                    activations = self._take(stream, its_rows, sorted(wanted[self.rank]), reader)
                yield stream.block(its_rows, activations)

    def _hand_out(self, activations: dict[int, Tensor], wanted: Sequence[Collection[int]]) -> None:
        _exchange(
            dist.P2POp(dist.isend, activations[layer], other)
            for other in range(self.size)
            if other != self.rank
            for layer in sorted(wanted[other])
        )

    def _take(self, stream: ActivationStream, rows: PackedRows, layers: list[int], reader: int) -> dict[int, Tensor]:
        tokens = int((rows.document >= 0).sum())
        found = {layer: stream.room(tokens) for layer in layers}
        _exchange(dist.P2POp(dist.irecv, found[layer], reader) for layer in layers)
        return found


ALONE = Team()


def _exchange(operations: Iterable[dist.P2POp]) -> None:
    if waiting := list(operations):
        with _in_touch():
            for work in dist.batch_isend_irecv(waiting):
                work.wait()


@contextlib.contextmanager
def _in_touch() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise OutOfTouch(f"another process is gone ({error})") from error
