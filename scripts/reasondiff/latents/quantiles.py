"""Which firings show a latent at every strength, weak ones too?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from reasondiff.latents.strongest import lots, unpack_firings
from reasondiff.latents.windows import document_of
from reasondiff.text.tokens import TokenTable

FRESH, USED_DOCUMENT, SHOWN = 0, 1, 2  # the lower, the sooner a firing is taken
NOT_THERE = 3


@dataclass(frozen=True)
class Grouped:
    """Packed firings of some latents in rows of equal length: `latents` [row], `entries` [row, place], 0 where a
    latent has fewer."""

    latents: Int[np.ndarray, " row"]
    entries: Int[np.ndarray, "row place"]

    def values_and_tokens(self) -> tuple[Float[np.ndarray, "row place"], Int[np.ndarray, "row place"]]:
        """Tokens are meaningless where there is no firing."""
        values, tokens = unpack_firings(torch.from_numpy(self.entries))
        return values.numpy(), tokens.numpy()


def grouped(latents: Int[np.ndarray, " entry"], entries: Int[np.ndarray, " entry"], size: int) -> Grouped:
    """Entries that are ordered by latent as rows of `size`, in their order."""
    found, row = np.unique(latents, return_inverse=True)
    place = np.arange(len(latents)) - np.searchsorted(latents, latents)
    rows = np.zeros((len(found), size), dtype=np.int64)
    rows[row, place] = entries
    return Grouped(found, rows)


def quantile_examples(
    sample: Grouped, strongest: Grouped, table: TokenTable, quantiles: int, per_quantile: int, seed: int, layer: int
) -> tuple[Int[np.ndarray, " pick"], Int[np.ndarray, " pick"], Int[np.ndarray, " pick"]]:
    """(latents, quantile from 0 as the weakest, packed firings): of each latent up to `per_quantile` of its sampled
    firings from each of `quantiles` equal groups, by value.

    Drawn by lot: first from documents that no example of the latent is from yet, then from others, last of all
    firings that are among the strongest. Both arguments hold the same latents.
    """
    entries = np.sort(np.where(sample.entries == 0, np.iinfo(np.int64).max, sample.entries), axis=1)
    sizes = (sample.entries > 0).sum(1, keepdims=True)  # (row, 1)
    place = np.arange(entries.shape[1])[None]
    quantile = np.where(place < sizes, place * quantiles // np.maximum(sizes, 1), -1)
    _, tokens = Grouped(sample.latents, entries).values_and_tokens()
    lot = lots(seed, layer, torch.from_numpy(sample.latents)[:, None], torch.from_numpy(tokens)).numpy()
    documents = np.where(place < sizes, document_of(table, tokens), -1)
    cost = _cost(tokens, documents, strongest, table)
    picks = []
    for number in range(quantiles):
        for _ in range(per_quantile):
            row, column = _draw(np.where(quantile == number, cost, NOT_THERE), lot)
            picks.append((sample.latents[row], np.full(len(row), number), entries[row, column]))
            same = documents[row] == documents[row, column][:, None]
            cost[row] = np.where(same, np.maximum(cost[row], USED_DOCUMENT), cost[row])
            cost[row, column] = NOT_THERE
    latents, numbers, firings = (np.concatenate(column) for column in zip(*picks, strict=True))
    return latents, numbers, firings


def _cost(tokens: np.ndarray, documents: np.ndarray, strongest: Grouped, table: TokenTable) -> np.ndarray:
    """What speaks against showing each sampled firing beside the strongest ones."""
    cost = np.full(tokens.shape, FRESH, dtype=np.int8)
    _, shown = strongest.values_and_tokens()
    for column in range(shown.shape[1]):
        there = strongest.entries[:, column] > 0
        token = np.where(there, shown[:, column], -1)
        document = np.where(there, document_of(table, token), -2)
        cost = np.where(documents == document[:, None], np.maximum(cost, USED_DOCUMENT), cost)
        cost = np.where(tokens == token[:, None], SHOWN, cost)
    return cost


def _draw(cost: np.ndarray, lot: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns): in each row that has something, the smallest lot among the entries of lowest cost."""
    lowest = cost.min(axis=1, keepdims=True)
    column = np.where(cost == lowest, lot, np.iinfo(np.int64).max).argmin(axis=1)
    row = np.flatnonzero(lowest[:, 0] < NOT_THERE)
    return row, column[row]
