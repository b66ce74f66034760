"""On which windows is a latent silent although it might well have fired?

Windows are proposed before the text is read again, and only those in which the latent turns out to be active nowhere
are kept. Three kinds, from easy to hard: random windows, windows around the token the latent fires on most, and windows
in which its nearest neighbour fires.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int, Integer

from reasondiff.latents.neighbours import NONE
from reasondiff.latents.strongest import lots
from reasondiff.latents.windows import Marks, ranges, windows_around
from reasondiff.text.tokens import TokenTable

TRIES = 16  # windows proposed for each silent one that is wanted
PAIRS_AT_ONCE = 2**22
NEVER_DRAWN = 2**63 - 1


def possible_centres(
    table: TokenTable,
    documents: Int[np.ndarray, " document"],
    first_positions: int,
    foreign: Int[np.ndarray, " id"],
    context: int,
) -> Int[np.ndarray, " token"]:
    """The tokens of these documents that may be unmasked (sinks are found only when they are read), in order."""
    documents = np.sort(documents)
    starts = table.starts[documents]
    ends = np.minimum(table.starts[documents + 1], starts + context)
    tokens = ranges(starts + first_positions, ends)[1]
    return tokens[~np.isin(table.ids[tokens], foreign)]


def random_pool(centres: Int[np.ndarray, " token"], size: int, seed: int) -> Int[np.ndarray, " window"]:
    """`size` of these tokens (all, if they are fewer), drawn uniformly, in order."""
    drawn = np.random.default_rng(seed).choice(centres, size=min(size, len(centres)), replace=False)
    return np.sort(drawn)


def drawn_from_pool(
    active: Marks,
    pool: Int[np.ndarray, " window"],
    latents: Int[np.ndarray, " live"],
    wanted: int,
    seed: int,
    layer: int,
) -> pd.DataFrame:
    """For each of these latents up to `wanted` windows of the pool in which it is not `active`, drawn by lot: columns
    latent, token, place."""
    pieces = [(np.zeros(0, np.int64),) * 3]
    tokens = torch.tensor(pool).to(active.bytes.device)
    size = max(1, PAIRS_AT_ONCE // max(1, len(pool)))
    for first in range(0, len(latents), size):
        here = torch.tensor(latents[first : first + size]).to(active.bytes.device)
        lot = lots(seed, layer, here[:, None], tokens[None]).masked_fill_(active.of(here).T, NEVER_DRAWN)
        smallest = lot.topk(min(wanted, len(pool)), dim=1, largest=False, sorted=True)
        row, place = (smallest.values < NEVER_DRAWN).nonzero(as_tuple=True)
        window = smallest.indices[row, place].cpu().numpy()
        pieces.append((latents[first : first + size][row.cpu().numpy()], pool[window], place.cpu().numpy()))
    latent, token, place = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return pd.DataFrame({"latent": latent, "token": token, "place": place})


def same_token_windows(
    shown: pd.DataFrame,
    main_phase: Int[np.ndarray, " latent"],
    table: TokenTable,
    centres: Int[np.ndarray, " token"],
    shape: tuple[int, int, int],
    tries: int,
    seed: int,
    layer: int,
) -> pd.DataFrame:
    """For each latent up to `tries` windows around the token that most of its examples `shown` (columns latent, token)
    fire on, in the phase of most of its firings: columns latent, token, place (the order in which to try them).

    First windows as long as most of those shown, then others. Each latent begins at another place of a random order.
    `shape`: tokens before, tokens after, context.
    """
    fired_on = windows_around(table, shown["token"].to_numpy(), *shape)
    owner = shown["latent"].to_numpy()
    latents, wanted_id = most_frequent(owner, table.ids[fired_on.centre].astype(np.int64))
    _, wanted_length = most_frequent(owner, fired_on.lengths())
    lengths = windows_around(table, centres, *shape).lengths()
    kind = _kind(table.ids[centres], table.phases[centres])
    longest = shape[0] + shape[1] + 2
    mixed = lots(seed, layer, torch.zeros(1, dtype=torch.int64), torch.tensor(centres)).numpy()
    order = np.lexsort((mixed, lengths, kind))
    keys = (kind * longest + lengths)[order]
    wanted = _kind(wanted_id, main_phase[latents]) * longest  # of the shortest windows of that kind
    everything = _Span(np.searchsorted(keys, wanted), np.searchsorted(keys, wanted + longest))
    fitting = _Span(
        np.searchsorted(keys, wanted + wanted_length), np.searchsorted(keys, wanted + wanted_length, side="right")
    )
    start = lots(seed, layer, torch.tensor(latents), torch.zeros(1, dtype=torch.int64)).numpy() & NEVER_DRAWN
    row, place, found = _fitting_first(everything, fitting, start, tries)
    return pd.DataFrame({"latent": latents[row], "token": centres[order][found], "place": place})


def _kind(ids: Int[np.ndarray, " token"], phases: Integer[np.ndarray, " token"]) -> Int[np.ndarray, " token"]:
    return ids.astype(np.int64) * 256 + phases


@dataclass(frozen=True)
class _Span:
    """For each latent the numbers from `low` to `high` - 1."""

    low: Int[np.ndarray, " latent"]
    high: Int[np.ndarray, " latent"]

    def sizes(self) -> Int[np.ndarray, " latent"]:
        return self.high - self.low


def _fitting_first(
    everything: _Span, fitting: _Span, start: Int[np.ndarray, " latent"], tries: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, place, number): per latent (row) up to `tries` different numbers of its span `everything`, those of
    `fitting` (a part of it) first, each of the two read in a circle from `start`."""
    sizes = fitting.sizes()[:, None]
    others = everything.sizes()[:, None] - sizes
    before = (fitting.low - everything.low)[:, None]  # how many of the others come before the fitting ones
    place = np.arange(tries)[None]
    in_fitting = fitting.low[:, None] + (start[:, None] + place) % np.maximum(sizes, 1)
    turn = (start[:, None] % np.maximum(others, 1) + place - sizes) % np.maximum(others, 1)
    in_others = everything.low[:, None] + turn + np.where(turn >= before, sizes, 0)
    number = np.where(place < sizes, in_fitting, in_others)
    row, column = np.nonzero(place < sizes + others)
    return row, column, number[row, column]


def most_frequent(
    groups: Int[np.ndarray, " entry"], items: Int[np.ndarray, " entry"]
) -> tuple[Int[np.ndarray, " group"], Int[np.ndarray, " group"]]:
    """(groups, in order; the item that each has most often, the smallest of those that tie)."""
    order = np.lexsort((items, groups))
    groups, items = groups[order], items[order]
    runs = np.flatnonzero(np.append(True, (np.diff(groups) != 0) | (np.diff(items) != 0))[: len(groups)])
    counts = np.diff(np.append(runs, len(groups)))
    best = np.lexsort((items[runs], -counts, groups[runs]))
    found, first = np.unique(groups[runs][best], return_index=True)
    return found, items[runs][best][first]


def neighbour_windows(
    fired: pd.DataFrame, neighbour: Int[np.ndarray, " latent"], seed: int, layer: int
) -> pd.DataFrame:
    """For each latent the windows in which its nearest neighbour fires (`fired`: columns latent, token), in an order
    drawn by lot: columns latent, token, place."""
    own = fired[["latent", "token"]].drop_duplicates().sort_values(["latent", "token"])
    theirs, tokens = own["latent"].to_numpy(), own["token"].to_numpy()
    latents = np.flatnonzero(neighbour != NONE)
    low = np.searchsorted(theirs, neighbour[latents])
    high = np.searchsorted(theirs, neighbour[latents], side="right")
    row, place = ranges(low, high)
    latent, token = latents[row], tokens[place]
    lot = lots(seed, layer, torch.tensor(latent), torch.tensor(token)).numpy()
    order = np.lexsort((lot, latent))
    latent, token = latent[order], token[order]
    return pd.DataFrame(
        {"latent": latent, "token": token, "place": np.arange(len(latent)) - np.searchsorted(latent, latent)}
    )


def first_of_each(candidates: pd.DataFrame, wanted: int) -> pd.DataFrame:
    """Of each latent the first `wanted` candidates (columns latent, token, place), renumbered."""
    kept = candidates.sort_values(["latent", "place"], kind="stable")
    kept = kept.assign(place=kept.groupby("latent").cumcount())
    return kept[kept["place"] < wanted].reset_index(drop=True)
