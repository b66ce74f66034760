"""What is read of a part of the text to see which of many candidates tell a concept?

All unmasked tokens of the part: activations, the codes of all dictionaries of the site, and which concepts each token
belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reasondiff.dictionaries.code import SparseCode
from reasondiff.dictionaries.replacements import first_documents
from reasondiff.models.stream import ActivationStream, Block, SiteStatistics, unmasked
from reasondiff.text.concepts import mark_concepts
from reasondiff.text.tokens import PackedRows, pack

CHOOSE, SCORE = "choose", "score"
MIN_TOKENS, MIN_PROBLEMS = 20, 6
RESPONSES_AT_ONCE = 2**24  # encoder responses (token x latent) made together: 64 MiB in float32

Code = Callable[[Float[Tensor, "token side unit"], Tensor | None], SparseCode]
"""(activations, what else was read of the same tokens) -> the code of a dictionary."""
Read = Callable[[PackedRows], tuple[Block, Tensor | None]]
"""Packed rows -> (activations, something else that is known of the same tokens [token, ...])."""


@dataclass(frozen=True)
class ReadPart:
    """The unmasked tokens of one part, all on the CPU.

    `marks` [concept, token]; `marked_anywhere` [concept]: tokens of each concept, masked ones included; `problem`
    [token] counts the problems from 0; `x` raw activations; `centred`: normalised ones minus their mean, all sides in
    one row; `codes` by dictionary; `beside` [token, ...]: what else was read.
    """

    marks: Bool[np.ndarray, "concept token"]
    marked_anywhere: Int[np.ndarray, " concept"]
    problem: Int[np.ndarray, " token"]
    x: Float[Tensor, "token side unit"]
    centred: Float[Tensor, "token side_unit"]
    codes: Mapping[Any, SparseCode]
    beside: Tensor | None

    def __len__(self) -> int:
        return len(self.problem)

    @property
    def problems(self) -> int:
        return int(self.problem.max(initial=-1)) + 1


def read_part(
    part: str,
    stream: ActivationStream,
    layer: int,
    statistics: SiteStatistics,
    read: Read,
    coders: Mapping[Any, Code],
    widest: int,
    strings: Sequence[str],
    tokens: int,
) -> ReadPart:
    """The first documents of a part that hold at most `tokens` tokens. `widest` is the largest number of latents among
    the dictionaries of `coders`.

    Raises:
        ArtefactError: the part has no documents.
    """
    table = stream.table
    documents = first_documents(table, part, tokens, stream.context).documents
    marks = mark_concepts(table, strings, documents)
    token, x, beside = [], [], []
    for rows in pack(table, documents, stream.context, stream.settings.batch_rows):
        block, other = read(rows)
        kept, _ = unmasked(block, layer, statistics, stream.settings)
        token.append(block.token[kept].cpu())
        x.append(block.activations[layer][kept].float())
        if other is not None:
            beside.append(other[kept].float())
    of, activations, other = torch.cat(token).numpy(), torch.cat(x), torch.cat(beside) if beside else None
    pieces = torch.arange(len(of)).split(max(1, RESPONSES_AT_ONCE // max(1, widest)))
    codes = {
        name: _joined([code(activations[some], None if other is None else other[some]) for some in pieces])
        for name, code in coders.items()
    }
    centred = (activations - statistics.mean) * statistics.scale[:, None]
    document = np.searchsorted(table.starts, of, side="right") - 1
    return ReadPart(
        marks=marks[:, of],
        marked_anywhere=marks.sum(1),
        problem=np.unique(table.problem[document], return_inverse=True)[1],
        x=activations.cpu(),
        centred=centred.flatten(1).cpu(),
        codes=codes,
        beside=None if other is None else other.cpu(),
    )


def _joined(codes: Sequence[SparseCode]) -> SparseCode:
    """Codes of successive tokens as one, on the CPU."""
    starts = np.cumsum([0, *(code.n_rows for code in codes)]).tolist()
    rows = [code.rows + start for code, start in zip(codes, starts, strict=False)]
    parts = (rows, [code.latents for code in codes], [code.values for code in codes])
    return SparseCode(*(torch.cat(part).cpu() for part in parts), starts[-1], codes[0].n_latents)


def why_not_testable(choose: ReadPart, score: ReadPart, concept: int) -> str:
    """Why a concept cannot be looked for; empty if it can."""
    for part, name in ((choose, CHOOSE), (score, SCORE)):
        mark = part.marks[concept]
        count, others, masked = int(mark.sum()), int((~mark).sum()), int(part.marked_anywhere[concept] - mark.sum())
        if count < MIN_TOKENS:
            hidden = f" ({masked} more are masked)" if masked else ""
            return f"{count} unmasked tokens of `{name}` belong to it{hidden}; {MIN_TOKENS} are needed"
        if others < MIN_TOKENS:
            return f"{others} unmasked tokens of `{name}` do not belong to it; {MIN_TOKENS} are needed"
        if (problems := len(np.unique(part.problem[mark]))) < MIN_PROBLEMS:
            return f"its tokens in `{name}` are of {problems} problems; {MIN_PROBLEMS} are needed"
    return ""
