"""Which latent of one transcoder is which of another, of the same layer?

Two answers. *By index*, where one began its training as the other and has kept its numbering. *Matched* by what latents
read and write, where neither did: seed against seed there is nothing else, and a comparison of models has to be made in
the same way as what it is held against. In either, a latent that has become another one has no partner.

The similarity of two latents is the mean of the cosines of their decoder rows and of their encoder rows.

Source: docs/methods.md §12; Paulo and Belrose 2025, arXiv 2501.16615 (matching across seeds).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from reasondiff.dictionaries.transcoder import Transcoder
from reasondiff.graphs.wiring import NO_PARTNER, Correspondence, LayerCorrespondence

log = logging.getLogger(__name__)

MIN_SIMILARITY = 0.5
"""Of matched latents. Random directions in d dimensions have 0 +- 1 / sqrt(2 d): 7 standard deviations at d = 96."""
SIMILARITIES_AT_ONCE = 2**26  # 256 MiB in float32


def by_index(first: Mapping[int, Transcoder], second: Mapping[int, Transcoder]) -> Correspondence | None:
    """Latent j of the one set with latent j of the other, unless another latent of the other is more similar to it.

    None, with a warning, where at some layer that is so for half of the latents or more: then neither set began as the
    other, or too little has stayed.

    Raises:
        ValueError: the sets have other layers, or their transcoders another width.
    """
    found = {}
    for layer, (one, other) in _layers(first, second).items():
        nearest = _nearest(_directions(one), _directions(other))
        partner = np.where(nearest == np.arange(len(nearest)), nearest, NO_PARTNER)
        found[layer] = _with_norms(partner, one, other)
        kept, writing = (partner != NO_PARTNER).sum(), (found[layer].first_norm > 0).sum()
        log.info("layer %d: %d of %d latents are most similar to the one of their index", layer, kept, writing)
        if kept <= writing / 2:
            log.warning("layer %d: indices do not correspond (they do for %d of %d latents)", layer, kept, writing)
            return None
    return found


def matched(first: Mapping[int, Transcoder], second: Mapping[int, Transcoder]) -> Correspondence:
    """The couples, none used twice, with the largest sum of similarities, among those that are similar enough.

    Raises:
        ValueError: the sets have other layers, or their transcoders another width.
    """
    found = {}
    for layer, (one, other) in _layers(first, second).items():
        found[layer] = _with_norms(match(_directions(one), _directions(other), MIN_SIMILARITY), one, other)
        kept, writing = (found[layer].partner != NO_PARTNER).sum(), (found[layer].first_norm > 0).sum()
        log.info("layer %d: %d of %d latents have a partner", layer, kept, writing)
    return found


def match(
    first: Float[Tensor, "latent unit"], second: Float[Tensor, "second_latent unit"], least: float
) -> Int[np.ndarray, " latent"]:
    """For each row of `first` its partner in `second`, -1 for none: of all ways to couple rows one to one whose inner
    product is at least `least` (above 0) the one with the largest sum.

    Only couples above the limit are held, and each group that they connect is solved on its own: the same as one
    assignment over the whole [latent, second_latent] matrix, whose time grows with the third power of its size.
    """
    rows, columns, values = (np.concatenate(part) for part in zip(*_couples(first, second, least), strict=True))
    sizes = (len(first), len(second))
    links = coo_array((np.ones(len(rows)), (rows, columns + sizes[0])), shape=(sum(sizes), sum(sizes)))
    group = connected_components(links, directed=False)[1][rows]
    order = np.argsort(group, kind="stable")
    borders = np.flatnonzero(np.diff(group[order], prepend=-1, append=-1)) if len(rows) else []
    partner = np.full(sizes[0], NO_PARTNER)
    for start, end in zip(borders[:-1], borders[1:], strict=True):
        chosen = order[start:end]
        own, other = _assigned(rows[chosen], columns[chosen], values[chosen])
        partner[own] = other
    return partner


def _couples(first: Tensor, second: Tensor, least: float) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(rows, columns, inner products) of all couples above the limit, some rows at a time."""
    for start, similarity in _products(first, second):
        rows, columns = (similarity >= least).nonzero(as_tuple=True)
        yield (rows + start).cpu().numpy(), columns.cpu().numpy(), similarity[rows, columns].double().cpu().numpy()


def _nearest(first: Tensor, second: Tensor) -> Int[np.ndarray, " latent"]:
    """The row of `second` with the largest inner product with each row of `first`; -1 where none is above 0."""
    best = [similarity.max(1) for _, similarity in _products(first, second)]
    return np.concatenate([torch.where(one.values > 0, one.indices, NO_PARTNER).cpu().numpy() for one in best])


def _products(first: Tensor, second: Tensor) -> Iterator[tuple[int, Float[Tensor, "row second_latent"]]]:
    """(first row, inner products) of some rows at a time."""
    at_once = max(1, SIMILARITIES_AT_ONCE // max(1, len(second)))
    for start in range(0, len(first), at_once):
        yield start, first[start : start + at_once] @ second.T


def _assigned(rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) of the best assignment within one group; couples that are not listed are worth 0."""
    own, row = np.unique(rows, return_inverse=True)
    other, column = np.unique(columns, return_inverse=True)
    worth = np.zeros((len(own), len(other)))
    worth[row, column] = values
    chosen = linear_sum_assignment(worth, maximize=True)
    real = worth[chosen] > 0
    return own[chosen[0][real]], other[chosen[1][real]]


def _layers(
    first: Mapping[int, Transcoder], second: Mapping[int, Transcoder]
) -> dict[int, tuple[Transcoder, Transcoder]]:
    if set(first) != set(second):
        raise ValueError(f"one set has transcoders at layers {sorted(first)}, the other at {sorted(second)}")
    for layer in first:
        if first[layer].width != second[layer].width:
            widths = (first[layer].width, second[layer].width)
            raise ValueError(f"layer {layer}: latents of width {widths[0]} cannot be told among those of {widths[1]}")
    return {layer: (first[layer], second[layer]) for layer in sorted(first)}


def _directions(transcoder: Transcoder) -> Float[Tensor, "latent unit"]:
    """Rows whose inner products are similarities; zero for a latent that writes nothing."""
    decoder, encoder = (torch.nn.functional.normalize(part) for part in (transcoder.decoder, transcoder.encoder))
    writes = decoder.any(1, keepdim=True)
    return torch.cat([decoder, encoder * writes], dim=1) / 2**0.5


def _with_norms(partner: Int[np.ndarray, " latent"], first: Transcoder, second: Transcoder) -> LayerCorrespondence:
    norms = (one.decoder.norm(dim=1).double().cpu().numpy() for one in (first, second))
    return LayerCorrespondence(partner, *norms)
