"""What is gathered of the latents of one dictionary while its text is read twice?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reasondiff.config import Examples
from reasondiff.dictionaries.code import SparseCode
from reasondiff.latents.example_rows import example_table, filled, in_order, rows_of
from reasondiff.latents.example_table import ROWS_PER_GROUP, SILENT
from reasondiff.latents.firing import FiringTally
from reasondiff.latents.negatives import (
    TRIES,
    drawn_from_pool,
    first_of_each,
    neighbour_windows,
    same_token_windows,
)
from reasondiff.latents.neighbours import nearest_neighbours
from reasondiff.latents.quantiles import grouped, quantile_examples
from reasondiff.latents.strongest import Keeper, Shortlist, firings_of, unpack_firings
from reasondiff.latents.windows import (
    LatentRows,
    Marks,
    WindowsByDocument,
    document_of,
    slices_of,
    windows_around,
)
from reasondiff.models.stream import Block
from reasondiff.text.tokens import TokenTable

ROWS_AT_ONCE = 8 * ROWS_PER_GROUP  # of the table of examples


class FirstReading:
    """How often each latent fires, and a shortlist of its firings in the part that is being read."""

    def __init__(self, latents: int, layer: int, table: TokenTable, context: int, settings: Examples, device: str):
        """`context`: where documents are cut."""
        self.n_latents, self.layer, self.device = latents, layer, device
        self.table, self.context, self.settings = table, context, settings
        self.tally = FiringTally(latents, table, device)
        self.shortlist = self._empty()
        self.rows: list[pd.DataFrame] = []

    def _empty(self) -> Shortlist:
        settings = self.settings
        return Shortlist(self.n_latents, settings.strongest, settings.sampled, settings.seed, self.layer, self.device)

    def add(self, piece: Block, code: SparseCode, kept: Int[Tensor, " kept"]) -> None:
        """Takes the code of the unmasked tokens of some whole documents into account; `kept` are their rows."""
        tokens, documents = piece.token[kept], piece.document[kept]
        firings = firings_of(code, tokens, documents)
        self.tally.add(firings, tokens, documents)
        self.shortlist.add(firings)

    def end_part(self, part: str) -> None:
        """Chooses the examples of a part, of which everything has been read; the shortlist begins anew."""
        settings = self.settings
        latents, entries = _kept(self.shortlist.strongest)
        strongest = grouped(latents, entries, settings.strongest)
        sample = grouped(*_kept(self.shortlist.sample), settings.sampled)
        place = np.arange(len(latents)) - np.searchsorted(latents, latents)
        self.rows.append(_firing_rows(part, "strongest", latents, place, entries))
        picks = quantile_examples(
            sample, strongest, self.table, settings.quantiles, settings.per_quantile, settings.seed, self.layer
        )
        self.rows.append(_firing_rows(part, "quantile", *picks))
        self.shortlist = self._empty()


def _kept(keeper: Keeper) -> tuple[Int[np.ndarray, " kept"], Int[np.ndarray, " kept"]]:
    latents, entries = keeper.kept()
    return latents.cpu().numpy(), entries.cpu().numpy()


def _firing_rows(part: str, kind: str, latents: np.ndarray, place: np.ndarray, entries: np.ndarray) -> pd.DataFrame:
    values, tokens = unpack_firings(torch.tensor(entries))
    return rows_of(part, kind, latents, place, tokens.numpy(), values.numpy())


class SecondReading:
    """What each latent does inside the windows chosen for it, and on which of the proposed windows it is silent."""

    def __init__(
        self,
        first: FirstReading,
        directions: Float[Tensor, "latent out"],
        centres: Int[np.ndarray, " token"],
        pool: Int[np.ndarray, " window"],
    ):
        """`centres`: the tokens of the part `score` that may be unmasked; `pool`: those that random windows are
        drawn from."""
        self.first, self.settings, self.table, self.pool = first, first.settings, first.table, pool
        self.device = first.device
        live = first.tally.firings() > 0
        self.live = np.flatnonzero(live)
        self.neighbour, self.cosine = nearest_neighbours(directions, live)

        self.rows = pd.concat(first.rows, ignore_index=True)
        first.rows.clear()
        self.candidates = self._proposed(centres)
        self.silent = np.zeros(len(self.candidates), dtype=bool)
        # a window of the pool whose centre turns out to be masked counts as one that every latent is active in
        self.pool_active = Marks(len(pool), first.n_latents, self.device)
        self.entries: list[tuple[np.ndarray, ...]] = []  # (row, offset, activation) of what is not zero
        columns = (self.rows["token"], self.candidates["token"], pool)
        self.of_rows, self.of_candidates, self.of_pool = (
            WindowsByDocument(self.table, np.asarray(tokens), self._shape) for tokens in columns
        )
        self.row_latents, self.candidate_latents = (
            torch.tensor(frame["latent"].to_numpy()).to(self.device) for frame in (self.rows, self.candidates)
        )

    @property
    def _shape(self) -> tuple[int, int, int]:
        """Tokens before, tokens after, and where documents are cut."""
        return self.settings.before, self.settings.after, self.first.context

    def documents_to_read(self) -> Bool[np.ndarray, " document"]:
        """Which documents of the table have to be read again."""
        needed = np.zeros(len(self.table), dtype=bool)
        for tokens in (self.rows["token"], self.candidates["token"], self.pool):
            needed[document_of(self.table, np.asarray(tokens))] = True
        return needed

    def _proposed(self, centres: Int[np.ndarray, " token"]) -> pd.DataFrame:
        """Windows that stand around a token or belong to a neighbour: columns kind, latent, token, place."""
        settings, first = self.settings, self.first
        tries = TRIES * settings.negatives
        shown, fired = (self.rows[self.rows["part"] == part] for part in (0, 1))
        around = same_token_windows(
            shown, first.tally.main_phase(), self.table, centres, self._shape, tries, settings.seed, first.layer
        )
        theirs = neighbour_windows(fired, self.neighbour, settings.seed, first.layer)
        theirs = theirs[theirs["place"] < tries]
        kinds = [around.assign(kind=SILENT.index("same_token")), theirs.assign(kind=SILENT.index("neighbour"))]
        small = {"latent": np.int32, "token": np.uint32, "place": np.int16, "kind": np.int8}
        return pd.concat([frame.astype(small) for frame in kinds], ignore_index=True)

    # ------------------------------------------------------------------------------------------- reading

    def add(self, piece: Block, code: SparseCode, kept: Int[Tensor, " kept"]) -> None:
        """Looks into the windows that lie in some whole documents, of which this is the code of the unmasked tokens;
        `kept` are their rows."""
        code = SparseCode(kept[code.rows], code.latents, code.values, len(piece.token), code.n_latents)
        unmasked = torch.zeros(len(piece.token), dtype=torch.bool, device=kept.device)
        unmasked[kept] = True
        of_latents = LatentRows(code)
        self._add_rows(piece, of_latents)
        self._add_candidates(piece, of_latents, unmasked)
        self._add_pool(piece, code, unmasked)

    def _add_rows(self, piece: Block, of_latents: LatentRows) -> None:
        found, first, end, _ = map(self._tensor, self.of_rows.inside(piece))
        query, offset, value = of_latents.activations(self.row_latents[found].long(), first, end)
        entries = (found[query].int(), offset.short(), value)  # the half of what is kept at the published sizes
        self.entries.append(tuple(part.cpu().numpy() for part in entries))

    def _add_candidates(self, piece: Block, of_latents: LatentRows, unmasked: Tensor) -> None:
        found, first, end, centre = map(self._tensor, self.of_candidates.inside(piece))
        active = of_latents.active(self.candidate_latents[found].long(), first, end)
        self.silent[found.cpu().numpy()] = (unmasked[centre] & ~active).cpu().numpy()

    def _add_pool(self, piece: Block, code: SparseCode, unmasked: Tensor) -> None:
        found, first, end, centre = map(self._tensor, self.of_pool.inside(piece))
        active = (~unmasked[centre])[:, None].repeat(1, code.n_latents)
        low, high = torch.searchsorted(code.rows, first), torch.searchsorted(code.rows, end)
        window, entry = slices_of(low, high)
        active[window, code.latents[entry]] = True
        self.pool_active.set(found, active)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.tensor(array).to(self.device)

    # ------------------------------------------------------------------------------------------- the tables

    def examples(self, words: Sequence[str], model: str) -> Iterator[pa.Table]:
        """The table of examples, ordered as it is written, in pieces: whole it is many times what led to it."""
        rows = pd.concat([self.rows, *self._silent_rows()], ignore_index=True)
        order = in_order(rows)
        rows = rows.iloc[order]
        number = np.empty(len(order), dtype=np.int32)  # where each row has gone
        number[order] = np.arange(len(order), dtype=np.int32)
        row, offset, activation = (np.concatenate(column) for column in zip(*[_NOTHING, *self.entries], strict=True))
        row = number[row]
        by_row = np.argsort(row, kind="stable")
        row, offset, activation = row[by_row], offset[by_row], activation[by_row]
        for first in range(0, len(rows), ROWS_AT_ONCE):
            piece = rows.iloc[first : first + ROWS_AT_ONCE]
            own = slice(*np.searchsorted(row, [first, first + len(piece)]))
            windows = windows_around(self.table, piece["token"].to_numpy(), *self._shape)
            activations = filled(windows, piece["value"].to_numpy(), row[own] - first, offset[own], activation[own])
            yield example_table(self.first.layer, piece, windows, activations, self.table, words, model)

    def _silent_rows(self) -> list[pd.DataFrame]:
        settings, first = self.settings, self.first
        random = drawn_from_pool(self.pool_active, self.pool, self.live, settings.negatives, settings.seed, first.layer)
        found = {"random": random}
        for kind in ("same_token", "neighbour"):
            own = self.silent & (self.candidates["kind"] == SILENT.index(kind)).to_numpy()
            found[kind] = first_of_each(self.candidates[own], settings.negatives)
        return [
            rows_of("score", kind, *(rows[name].to_numpy() for name in ("latent", "place", "token")))
            for kind, rows in found.items()
        ]

    def firing(self) -> pd.DataFrame:
        """How each latent fires, and who its neighbour is."""
        return self.first.tally.table(self.first.layer, self.neighbour, self.cosine)


_NOTHING = (np.zeros(0, np.int32), np.zeros(0, np.int16), np.zeros(0, np.float32))
