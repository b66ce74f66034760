"""Which tokens stand around a firing, and how does a latent fire on them?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from reasondiff.dictionaries.code import SparseCode, stable_order
from reasondiff.models.stream import Block
from reasondiff.text.tokens import TokenTable


@dataclass(frozen=True)
class Windows:
    """Stretches of text, each inside one document, as places in the token table: `centre` [window] is the token that
    the window stands around, `first` [window] its first token, `end` [window] the one after its last."""

    centre: Int[np.ndarray, " window"]
    first: Int[np.ndarray, " window"]
    end: Int[np.ndarray, " window"]

    def __len__(self) -> int:
        return len(self.centre)

    def lengths(self) -> Int[np.ndarray, " window"]:
        """Tokens of each window."""
        return self.end - self.first

    def tokens(self) -> Int[np.ndarray, " token"]:
        """The tokens of all windows, one window after the other."""
        return ranges(self.first, self.end)[1]


def ranges(
    first: Int[np.ndarray, " range"], end: Int[np.ndarray, " range"]
) -> tuple[Int[np.ndarray, " number"], Int[np.ndarray, " number"]]:
    """(which range, number) of all numbers from `first` to `end` - 1, range by range."""
    lengths = np.maximum(end - first, 0)
    which = np.repeat(np.arange(len(first)), lengths)
    before = np.cumsum(lengths) - lengths
    return which, np.arange(len(which)) - before[which] + first[which]


def windows_around(
    table: TokenTable, centre: Int[np.ndarray, " window"], before: int, after: int, context: int
) -> Windows:
    """`before` tokens before each of these tokens and `after` after it, inside its document (cut at `context`)."""
    document = document_of(table, centre)
    starts, ends = table.starts[document], table.starts[document + 1]
    first = np.maximum(centre - before, starts)
    return Windows(centre, first, np.minimum(centre + after + 1, np.minimum(ends, starts + context)))


def document_of(table: TokenTable, tokens: Integer[np.ndarray, "*tokens"]) -> Int[np.ndarray, "*tokens"]:
    """The document that each token of the table is in."""
    return np.searchsorted(table.starts, tokens, side="right") - 1


# ------------------------------------------------------------------------------------------- in a block


class WindowsByDocument:
    """Windows that are found again when their documents come by. Of each only the token that it stands around and its
    place in the text are kept: there are hundreds for a latent."""

    def __init__(self, table: TokenTable, tokens: Integer[np.ndarray, " window"], shape: tuple[int, int, int]):
        """`tokens`: what the windows stand around; `shape`: tokens before, tokens after, context."""
        self.table, self.shape = table, shape
        self.order = np.argsort(tokens, kind="stable").astype(np.int32)
        self.sorted = tokens[self.order].astype(np.uint32)

    def inside(self, block: Block) -> tuple[Int[np.ndarray, " found"], ...]:
        """(number of the window, its first row, the row after its last, the row it stands around) of all windows in a
        block's documents."""
        token = block.token.cpu().numpy()
        starts = np.flatnonzero(block.position.cpu().numpy() == 0)  # rows at which documents start
        first_token = token[starts]
        documents = block.document.cpu().numpy()[starts]
        low = np.searchsorted(self.sorted, first_token.astype(np.uint32))
        high = np.searchsorted(self.sorted, self.table.starts[documents + 1].astype(np.uint32))
        which, place = ranges(low, high)
        shift = (starts - first_token)[which]  # rows of a document run as its tokens do
        windows = windows_around(self.table, self.sorted[place].astype(np.int64), *self.shape)
        return self.order[place].astype(np.int64), windows.first + shift, windows.end + shift, windows.centre + shift


class Marks:
    """True or false for each window and latent, eight to a byte; true until a window's row is set."""

    def __init__(self, windows: int, latents: int, device: str):
        self.latents = latents
        self.bytes = torch.full((windows, -(-latents // 8)), 255, dtype=torch.uint8, device=device)
        self.values = 2 ** torch.arange(8, dtype=torch.uint8, device=device)

    def __len__(self) -> int:
        return len(self.bytes)

    def set(self, windows: Int[Tensor, " window"], marks: Bool[Tensor, "window latent"]) -> None:
        padded = torch.nn.functional.pad(marks, (0, 8 * self.bytes.shape[1] - self.latents))
        self.bytes[windows] = (padded.view(len(windows), self.bytes.shape[1], 8) * self.values).sum(
            2, dtype=torch.uint8
        )

    def of(self, latents: Int[Tensor, " latent"]) -> Bool[Tensor, "window latent"]:
        """The marks of some latents."""
        return self.bytes[:, latents // 8].bitwise_and(self.values[latents % 8]) > 0


def slices_of(
    low: Int[Tensor, " slice"], high: Int[Tensor, " slice"]
) -> tuple[Int[Tensor, " number"], Int[Tensor, " number"]]:
    """`ranges` on the device: (which slice, number) of all numbers from `low` to `high` - 1, slice by slice."""
    sizes = high - low
    which = torch.repeat_interleave(sizes)
    return which, torch.arange(len(which), device=which.device) - (sizes.cumsum(0) - high)[which]


class LatentRows:
    """The entries of a code in the order of latents, then rows: what a latent does in a range of rows is a slice."""

    def __init__(self, code: SparseCode):
        order = stable_order(code.latents, code.n_latents)
        self.n_rows = code.n_rows
        self.rows, self.values = code.rows[order], code.values[order].float()
        self.keys = code.latents[order] * self.n_rows + self.rows  # ascending

    def slices(
        self, latents: Int[Tensor, " query"], first: Int[Tensor, " query"], end: Int[Tensor, " query"]
    ) -> tuple[Int[Tensor, " query"], Int[Tensor, " query"]]:
        """(first entry, entry after the last) of each latent in its rows from `first` to `end` - 1."""
        base = latents * self.n_rows
        return torch.searchsorted(self.keys, base + first), torch.searchsorted(self.keys, base + end)

    def active(
        self, latents: Int[Tensor, " query"], first: Int[Tensor, " query"], end: Int[Tensor, " query"]
    ) -> Bool[Tensor, " query"]:
        """Whether each latent fires anywhere in its rows."""
        low, high = self.slices(latents, first, end)
        return high > low

    def activations(
        self, latents: Int[Tensor, " query"], first: Int[Tensor, " query"], end: Int[Tensor, " query"]
    ) -> tuple[Int[Tensor, " found"], Int[Tensor, " found"], Float[Tensor, " found"]]:
        """(query, rows after `first`, activation) of everything that is not zero."""
        low, high = self.slices(latents, first, end)
        query, entry = slices_of(low, high)
        return query, self.rows[entry] - first[query], self.values[entry]


def whole_documents(block: Block, tokens: int) -> list[Block]:
    """A block in pieces of whole documents, each of at most `tokens` tokens or of one document."""
    ends = np.append(np.flatnonzero(block.position.cpu().numpy() == 0)[1:], len(block.token)).tolist()
    cuts = [0]
    for before, end in zip([0, *ends], ends, strict=False):
        if end - cuts[-1] > tokens and before > cuts[-1]:
            cuts.append(before)
    cuts.append(len(block.token))
    return [_piece(block, slice(*cut)) for cut in zip(cuts, cuts[1:], strict=False)] if len(cuts) > 2 else [block]


def _piece(block: Block, part: slice) -> Block:
    activations = {layer: x[part] for layer, x in block.activations.items()}
    return Block(activations, block.token[part], block.document[part], block.position[part], block.kept[part])
