"""Which firings of each latent are kept while text streams by, so that memory does not grow with it?

Of each latent two short lists live on the device: its strongest firings, one of a document, and a uniform sample of
all of its firings. A firing is one number that holds its value and its token, so that ranking numbers ranks firings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reasondiff.dictionaries.code import SparseCode, stable_order

Rank = Callable[[Int[Tensor, " entry"], Int[Tensor, " entry"]], Int[Tensor, " entry"]]

LAST_TOKEN = 2**32 - 1  # the largest index of a token that a packed firing can hold
NEVER = -(2**63)  # ranks below everything


# ------------------------------------------------------------------------------------------- firings


@dataclass(frozen=True)
class Firings:
    """Firings of whole documents, ordered by latent; of each latent those of a document stand together, in the order
    of its tokens. `tokens` and `documents` index the token table."""

    latents: Int[Tensor, " firing"]
    tokens: Int[Tensor, " firing"]
    documents: Int[Tensor, " firing"]
    values: Float[Tensor, " firing"]

    def __len__(self) -> int:
        return len(self.latents)

    def only(self, kept: Bool[Tensor, " firing"]) -> Firings:
        """Those marked in `kept`."""
        return Firings(self.latents[kept], self.tokens[kept], self.documents[kept], self.values[kept])

    def runs(self) -> Int[Tensor, " firing"]:
        """The number, from 0, of the run of equal (latent, document) that each firing is in."""
        starts = torch.ones(len(self), dtype=torch.bool, device=self.latents.device)
        starts[1:] = (self.latents[1:] != self.latents[:-1]) | (self.documents[1:] != self.documents[:-1])
        return starts.cumsum(0) - 1


def firings_of(code: SparseCode, tokens: Int[Tensor, " token"], documents: Int[Tensor, " token"]) -> Firings:
    """The firings of a code whose rows are these tokens of these (whole) documents."""
    order = stable_order(code.latents, code.n_latents)  # the code is ordered by token; each latent's firings stay so
    rows = code.rows[order]
    return Firings(code.latents[order], tokens[rows], documents[rows], code.values[order].float())


def pack_firings(values: Float[Tensor, " firing"], tokens: Int[Tensor, " firing"]) -> Int[Tensor, " firing"]:
    """One number per firing: larger for larger values (which are positive), and for earlier tokens where they tie."""
    bits = values.view(torch.int32).long()  # of positive floats the bits are ordered as the floats are
    return (bits << 32) | (LAST_TOKEN - tokens)


def unpack_firings(entries: Int[Tensor, "*entries"]) -> tuple[Float[Tensor, "*entries"], Int[Tensor, "*entries"]]:
    """(values, tokens) of packed firings."""
    values = (entries >> 32).to(torch.int32).view(torch.float32)
    return values, LAST_TOKEN - (entries & LAST_TOKEN)


# ------------------------------------------------------------------------------------------- lots


def scramble(numbers: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """Random-looking int64 numbers, different ones for different `numbers`: SplitMix64.

    Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
    """
    mixed = numbers + _signed(0x9E3779B97F4A7C15)
    mixed = (mixed ^ _shifted(mixed, 30)) * _signed(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ _shifted(mixed, 27)) * _signed(0x94D049BB133111EB)
    return mixed ^ _shifted(mixed, 31)


def _signed(constant: int) -> int:
    return constant - 2**64 if constant >= 2**63 else constant


def _shifted(numbers: Int[Tensor, "..."], places: int) -> Int[Tensor, "..."]:
    """Shifted to the right with zeros coming in; int64 alone would repeat its sign."""
    return (numbers >> places) & ((1 << (64 - places)) - 1)


def lots(seed: int, layer: int, latents: Int[Tensor, "..."], tokens: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """A lot for each (latent, token), int64, no two tokens of a latent having the same. The smallest ones are drawn:
    which are, does not depend on the order in which tokens come."""
    start = scramble(scramble(torch.tensor(seed, device=latents.device)) ^ layer)
    return scramble(scramble(start ^ latents) ^ tokens)


# ------------------------------------------------------------------------------------------- keeping


class Keeper:
    """Of each latent the `size` entries with the highest rank among all that were offered.

    `rank` gives int64 ranks of entries; those of one latent must differ. Entries wait until there are as many as are
    kept, and are then ranked together, so that memory stays below three times latents x size (and one batch).
    """

    def __init__(self, latents: int, size: int, rank: Rank, device: str):
        self.n_latents, self.size, self.rank = latents, size, rank
        self.latents = torch.empty(0, dtype=torch.int64, device=device)  # (kept,), ascending
        self.entries = torch.empty(0, dtype=torch.int64, device=device)  # (kept,), the highest ranks of a latent first
        self.floor = torch.full((latents,), NEVER, dtype=torch.int64, device=device)  # what a newcomer must exceed
        self.waiting: list[tuple[Tensor, Tensor]] = []
        self.n_waiting = 0

    def promising(self, latents: Int[Tensor, " entry"], entries: Int[Tensor, " entry"]) -> Bool[Tensor, " entry"]:
        """False for entries that cannot be kept any more."""
        return self.rank(latents, entries) > self.floor[latents]

    def offer(self, latents: Int[Tensor, " entry"], entries: Int[Tensor, " entry"]) -> None:
        """Takes entries into account, each offered once."""
        kept = self.promising(latents, entries)
        self.waiting.append((latents[kept], entries[kept]))
        self.n_waiting += len(self.waiting[-1][0])
        if self.n_waiting > self.n_latents * self.size:
            self._settle()

    def kept(self) -> tuple[Int[Tensor, " kept"], Int[Tensor, " kept"]]:
        """(latents, entries), ordered by latent, the highest rank first."""
        self._settle()
        return self.latents, self.entries

    def _settle(self) -> None:
        latents = torch.cat([self.latents, *(latents for latents, _ in self.waiting)])
        entries = torch.cat([self.entries, *(entries for _, entries in self.waiting)])
        self.waiting, self.n_waiting = [], 0
        ranks = self.rank(latents, entries)
        order = falling_order(ranks)
        order = order[stable_order(latents[order], self.n_latents)]
        latents, entries, ranks = latents[order], entries[order], ranks[order]
        place = places(latents)
        self.latents, self.entries = latents[place < self.size], entries[place < self.size]
        last = place == self.size - 1
        self.floor[latents[last]] = ranks[last]


def falling_order(numbers: Int[Tensor, " entry"]) -> Int[Tensor, " entry"]:
    """The order from the largest to the smallest number, those that tie in any order."""
    if numbers.device.type != "cpu":
        return numbers.argsort(descending=True)
    return torch.from_numpy(np.argsort(~numbers.numpy()))


def places(groups: Int[Tensor, " entry"]) -> Int[Tensor, " entry"]:
    """The place, from 0, of each entry in its run of equal `groups`, which ascend."""
    return torch.arange(len(groups), device=groups.device) - torch.searchsorted(groups, groups)


class Shortlist:
    """Of each latent the `strongest` firings, one of a document, and `sampled` ones drawn uniformly from all.

    Of equal values the earlier token in the token table goes first. Documents must be offered whole.
    """

    def __init__(self, latents: int, strongest: int, sampled: int, seed: int, layer: int, device: str):
        def by_lot(latents: Tensor, entries: Tensor) -> Tensor:
            return ~lots(seed, layer, latents, unpack_firings(entries)[1])  # the smallest lot ranks highest

        self.strongest = Keeper(latents, strongest, lambda _, entries: entries, device)
        self.sample = Keeper(latents, sampled, by_lot, device)

    def add(self, firings: Firings) -> None:
        """Takes the firings of some whole documents into account."""
        entries = pack_firings(firings.values, firings.tokens)
        self.sample.offer(firings.latents, entries)
        hopeful = self.strongest.promising(firings.latents, entries)
        self.strongest.offer(*best_of_documents(firings.only(hopeful), entries[hopeful]))


def best_of_documents(
    firings: Firings, entries: Int[Tensor, " firing"]
) -> tuple[Int[Tensor, " run"], Int[Tensor, " run"]]:
    """(latents, entries): the highest entry of each latent in each document."""
    runs = firings.runs()
    n_runs = int(runs[-1]) + 1 if len(runs) else 0
    best = entries.new_full((n_runs,), NEVER).scatter_reduce(0, runs, entries, "amax")
    return entries.new_zeros(n_runs).scatter(0, runs, firings.latents), best
