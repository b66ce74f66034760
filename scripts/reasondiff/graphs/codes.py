"""What do the transcoders of a model and the crosscoders of a pair that it is in do on the same tokens?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from scipy.sparse import csr_array, vstack
from torch import Tensor

from reasondiff.dictionaries.code import SparseCode
from reasondiff.dictionaries.crosscoder import Crosscoder
from reasondiff.dictionaries.transcoder import Transcoder
from reasondiff.graphs.links import Codes
from reasondiff.job import progress
from reasondiff.models.stream import ActivationStream, Block, SiteStatistics, unmasked
from reasondiff.store import ArtefactError

MIN_TOKENS = 10_000
RESPONSES_AT_ONCE = 2**26  # encoder responses (token x latent) made together: 256 MiB in float32


def read_codes(
    mlps: ActivationStream,
    blocks: ActivationStream,
    mlp_statistics: Mapping[int, SiteStatistics],
    block_statistics: Mapping[int, SiteStatistics],
    transcoders: Mapping[int, Transcoder],
    crosscoders: Mapping[int, Mapping[str, Crosscoder]],
    tokens: int,
) -> dict[int, Codes]:
    """{layer: codes} of the first documents of the part `report` that hold so many unmasked tokens at every layer, or
    of all.

    `mlps` reads the MLPs of one model and `blocks` the blocks of a pair, that model being one of the two, at the layers
    of `crosscoders`; a token is left out where either masks it. Memory: 8 bytes for each token and latent that fires.

    Raises:
        ValueError: the streams do not read the same text in the same way, or the pair lacks the model.
        ArtefactError: there are under 10,000 unmasked tokens.
    """
    _refuse_other_text(mlps, blocks)
    documents = mlps.table.documents_of("report")
    parts = {layer: _Parts([], [], {name: [] for name in known}) for layer, known in crosscoders.items()}
    seen = dict.fromkeys(parts, 0)
    both = zip(mlps(documents), blocks(documents), strict=True)
    for mlp_block, block in progress(both, "codes in report", unit="block"):
        for layer, part in parts.items():
            kept = unmasked(mlp_block, layer, mlp_statistics[layer], mlps.settings)[0]
            kept &= unmasked(block, layer, block_statistics[layer], blocks.settings)[0]
            part.add(mlp_block, block, kept, layer, transcoders[layer], crosscoders[layer])
            seen[layer] += int(kept.sum())
        if min(seen.values(), default=tokens) >= tokens:
            break
    if few := {layer: count for layer, count in seen.items() if count < MIN_TOKENS}:
        raise ArtefactError(
            f"links need {MIN_TOKENS} unmasked held-out tokens at every layer; by layer there are {few}. Raise "
            f"graphs.links.tokens (it is {tokens}); if the part `report` of the text holds no more, use more text or a "
            "larger split.shares.report"
        )
    return {layer: part.joined() for layer, part in parts.items()}


@dataclass(frozen=True)
class _Parts:
    """Codes of one layer, block by block."""

    document: list[np.ndarray]
    transcoder: list[csr_array]
    crosscoders: dict[str, list[csr_array]]

    @torch.no_grad()
    def add(
        self,
        mlp_block: Block,
        block: Block,
        kept: Bool[Tensor, " token"],
        layer: int,
        transcoder: Transcoder,
        crosscoders: Mapping[str, Crosscoder],
    ) -> None:
        widest = max(transcoder.n_latents, *(one.n_latents for one in crosscoders.values()))
        for rows in kept.nonzero().squeeze(1).split(max(1, RESPONSES_AT_ONCE // widest)):
            self.document.append(block.document[rows].cpu().numpy())
            self.transcoder.append(_sparse(transcoder.encode(mlp_block.activations[layer][rows, 0].float())))
            x = block.activations[layer][rows].float()
            for name, one in crosscoders.items():
                self.crosscoders[name].append(_sparse(one.encode(x[:, one.sides])))

    def joined(self) -> Codes:
        crosscoders = {name: vstack(parts, format="csr") for name, parts in self.crosscoders.items()}
        return Codes(np.concatenate(self.document), vstack(self.transcoder, format="csr"), crosscoders)


def _sparse(code: SparseCode) -> csr_array:
    rows, latents, values = (part.cpu().numpy() for part in (code.rows, code.latents, code.values))
    ends = np.searchsorted(rows, np.arange(code.n_rows + 1))
    return csr_array((values, latents.astype(np.int32), ends), shape=(code.n_rows, code.n_latents))


def _refuse_other_text(mlps: ActivationStream, blocks: ActivationStream) -> None:
    for what, one, other in (
        ("ids", mlps.table.ids_digest(), blocks.table.ids_digest()),
        ("foreign ids", mlps.foreign.tolist(), blocks.foreign.tolist()),
        ("settings", mlps.settings, blocks.settings),
        ("context", mlps.context, blocks.context),
    ):
        if one != other:
            raise ValueError(f"transcoders and crosscoders must read the same tokens; their streams' {what} differ")
    model, pair = mlps.infos[0], {info.weights_digest: info.name for info in blocks.infos}
    if model.weights_digest not in pair:
        raise ValueError(
            f"the transcoders read {model.name}, the crosscoders {', '.join(pair.values())}: latents are linked only "
            "to crosscoders of a pair that their model is in"
        )
