"""In which layers did training move the residual stream, and how far?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from reasondiff.models.stream import ActivationStream, SiteStatistics, unmasked
from reasondiff.statistics import bootstrap, ratio

MEASURES = ("l2", "relative_l2", "cosine", "norm_ratio")


def measure_divergence(
    stream: ActivationStream,
    statistics: dict[int, SiteStatistics],
    documents: np.ndarray,
    tokens: int,
    suggest: int,
    seed: int,
) -> pd.DataFrame:
    """Distance between the first model of the pair and each other one, at every layer of the stream.

    One row per layer, other model, token mask (`all`, `unmasked`): mean L2 of the difference; relative L2 (mean
    norm of the difference over mean norm of the first model); mean cosine; mean norm of the other model over that of
    the first; each with its 95 % interval over problems, and `suggested` (rank 1 to `suggest` by relative L2 on
    unmasked tokens, 0 otherwise).

    At `upper_layers` and on unmasked tokens also `centred_cosine`, the mean cosine of the activations less their mean,
    and `turned_cosine`, the same after the orthogonal map that brings the first model's nearest to the other's, fitted
    on other problems; NaN elsewhere. Equal: nothing was turned. A turned or mirrored residual stream has the first near
    0 and the second near 1; unrelated ones have both low.

    Source: docs/methods.md §5.
    """
    table = stream.table
    n_problems = int(table.problem.max()) + 1
    others = range(1, len(stream.infos))
    # [problem, (tokens, |difference|, |first|, cosine, |other|)] for each layer, other model, mask
    sums = {
        (layer, other, mask): np.zeros((n_problems, 5))
        for layer in stream.layers
        for other in others
        for mask in ("all", "unmasked")
    }
    turns = {(layer, other): _Turn(stream.width) for layer in upper_layers(stream.layers) for other in others}
    seen = 0
    for block in stream(documents):
        problem = table.problem[block.document.cpu().numpy()]
        for layer, x in block.activations.items():
            kept, _ = unmasked(block, layer, statistics[layer], stream.settings)
            for other in others:
                figures = _figures(x[:, 0].double(), x[:, other].double())
                for mask, chosen in {"all": slice(None), "unmasked": kept.cpu().numpy()}.items():
                    np.add.at(sums[layer, other, mask], problem[chosen], figures[chosen])
                if (layer, other) in turns:
                    centred = (x - statistics[layer].mean.to(x))[kept].float()
                    turns[layer, other].add(centred[:, 0], centred[:, other], problem[kept.cpu().numpy()] % 2)
        seen += len(problem)
        if seen >= tokens:
            break
    rows = []
    for (layer, other, mask), part in sums.items():
        turn = turns.get((layer, other)) if mask == "unmasked" else None
        cosines = dict(zip(("centred_cosine", "turned_cosine"), turn.cosines() if turn else (np.nan,) * 2, strict=True))
        rows.append(_row(layer, stream.infos[other].name, mask, part, seed) | cosines)
    return _with_suggestions(pd.DataFrame(rows), suggest)


def upper_layers(layers: Sequence[int]) -> list[int]:
    """The layers at about 1/2, 2/3 and 5/6 of the way up, where studies look."""
    return sorted({layers[min(round(len(layers) * share), len(layers) - 1)] for share in (1 / 2, 2 / 3, 5 / 6)})


class _Turn:
    """Collects what tells whether one residual stream is the other one turned, in two halves of the problems.

    Source: Schönemann, "A generalized solution of the orthogonal Procrustes problem" (1966).
    """

    def __init__(self, width: int):
        self.products = torch.zeros(2, width, width)  # sums over tokens of first x other, both of unit length
        self.tokens = [0, 0]

    def add(self, first: torch.Tensor, other: torch.Tensor, half: np.ndarray) -> None:
        """Centred activations [token, unit] of both models; `half` [token] is 0 or 1."""
        first, other = (torch.nn.functional.normalize(x, dim=1) for x in (first, other))
        self.products = self.products.to(first.device)
        for number in (0, 1):
            chosen = torch.from_numpy(np.flatnonzero(half == number)).to(first.device)
            self.products[number] += first[chosen].T @ other[chosen]
            self.tokens[number] += len(chosen)

    def cosines(self) -> tuple[float, float]:
        """(mean cosine, mean cosine of one half of the problems after the best orthogonal map of the other half)."""
        if not all(self.tokens):
            return np.nan, np.nan
        left, _, right = torch.linalg.svd(self.products)
        maps = left @ right  # [half, unit, unit]
        turned = (maps.flip(0) * self.products).sum()  # each half under the map of the other
        total = sum(self.tokens)
        return float(self.products.diagonal(dim1=1, dim2=2).sum()) / total, float(turned) / total


def _figures(first: torch.Tensor, other: torch.Tensor) -> np.ndarray:
    """[token, (1, |difference|, |first|, cosine, |other|)]"""
    cosine = torch.nn.functional.cosine_similarity(first, other, dim=1)
    columns = [torch.ones_like(cosine), (other - first).norm(dim=1), first.norm(dim=1), cosine, other.norm(dim=1)]
    return torch.stack(columns, dim=1).cpu().numpy()


def _row(layer: int, model: str, mask: str, sums: np.ndarray, seed: int) -> dict:
    columns = {"l2": (1, 0), "relative_l2": (1, 2), "cosine": (3, 0), "norm_ratio": (4, 2)}
    row = {"layer": layer, "model": model, "mask": mask, "n_tokens": int(sums[:, 0].sum())}
    for measure in MEASURES:
        estimate = bootstrap(sums[:, list(columns[measure])], ratio, 500, seed)
        row |= {measure: estimate.value, f"{measure}_low": estimate.low, f"{measure}_high": estimate.high}
        row["n_problems"] = estimate.n
    return row


def _with_suggestions(table: pd.DataFrame, suggest: int) -> pd.DataFrame:
    """Ranks layers by relative L2 (summed over the other models) on unmasked tokens."""
    ranked = table[table["mask"] == "unmasked"].groupby("layer")["relative_l2"].sum().sort_values(ascending=False)
    ranks = {layer: rank for rank, layer in enumerate(ranked.index[:suggest], start=1)}
    return table.assign(suggested=table["layer"].map(ranks).fillna(0).astype(int))
