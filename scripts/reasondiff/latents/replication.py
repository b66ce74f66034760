"""Does a latent come back when its dictionary is trained again from another seed?

A latent's partner in another dictionary is the one whose decoder rows, all models' side by side, point most alike. It
came back where the two directions are alike *and* the two fire alike: directions alone are alike by chance in narrow
models, firing alone where two latents read one token.

Source: docs/methods.md §4; Paulo and Belrose 2025, arXiv 2501.16615 (seeds of one dictionary share few latents).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasondiff.config import Replication
from reasondiff.dictionaries.code import SparseCode, per_latent_sum
from reasondiff.dictionaries.crosscoder import Crosscoder
from reasondiff.latents.verdicts import NOT_REPLICATED, NOT_TESTABLE, REPLICATED

_ROWS_AT_ONCE = 4096


def directions(crosscoder: Crosscoder) -> Float[Tensor, "latent model_unit"]:
    """Decoder rows of all models side by side, in normalised units, at length 1 (0 where there is no row)."""
    rows = crosscoder.normalised_decoder().transpose(0, 1).flatten(1)
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-30)


def best_partners(
    own: Float[Tensor, "latent unit"], other: Float[Tensor, "partner unit"]
) -> tuple[Int[Tensor, " latent"], Float[Tensor, " latent"]]:
    """(partner, cosine) of each row; a few rows at a time, so that no [F, F] matrix is held."""
    found = [(rows @ other.T).max(dim=1) for rows in own.split(_ROWS_AT_ONCE)]
    return torch.cat([best.indices for best in found]), torch.cat([best.values for best in found])


def values_at(code: SparseCode, rows: Int[Tensor, " entry"], latents: Int[Tensor, " entry"]) -> Float[Tensor, " entry"]:
    """What a code has at some places, 0 where it is silent. Its own entries are ordered by token and latent."""
    if not len(code):
        return code.values.new_zeros(len(rows))
    keys, wanted = code.rows * code.n_latents + code.latents, rows * code.n_latents + latents
    place = torch.searchsorted(keys, wanted).clamp_max(len(keys) - 1)
    return torch.where(keys[place] == wanted, code.values[place], 0)


class ReplicaSums:
    """Running sums for the latents of some dictionaries that differ in their seed alone, on the same tokens."""

    def __init__(self, crosscoders: Mapping[str, Crosscoder]):
        self.names = list(crosscoders)
        self.tokens = 0
        rows = {name: directions(crosscoder) for name, crosscoder in crosscoders.items()}
        self.found = {
            (name, other): best_partners(rows[name], rows[other])
            for name in self.names
            for other in self.names
            if other != name
        }
        self.random = {pair: _by_chance(rows[pair[0]], rows[pair[1]]) for pair in self.found}
        zeros = {name: torch.zeros(len(rows[name]), dtype=torch.float64, device=rows[name].device) for name in rows}
        self.total, self.square = ({name: zero.clone() for name, zero in zeros.items()} for _ in range(2))
        self.product = {pair: zeros[pair[0]].clone() for pair in self.found}

    def add(self, codes: Mapping[str, SparseCode]) -> None:
        """Adds the codes of one batch of tokens."""
        self.tokens += codes[self.names[0]].n_rows
        for name in self.names:
            values = codes[name].values.double()
            self.total[name] += per_latent_sum(codes[name], values)
            self.square[name] += per_latent_sum(codes[name], values.square())
        for (name, other), (partner, _) in self.found.items():
            own = codes[name]
            theirs = values_at(codes[other], own.rows, partner[own.latents]).double()
            self.product[name, other] += per_latent_sum(own, own.values.double() * theirs)

    def correlation(self, name: str, other: str) -> Float[Tensor, " latent"]:
        """Pearson's correlation of each latent with its partner over all tokens; NaN where one of them is silent."""
        partner, _ = self.found[name, other]
        spread = lambda of: self.tokens * self.square[of] - self.total[of].square()  # noqa: E731
        covered = self.tokens * self.product[name, other] - self.total[name] * self.total[other][partner]
        scale = spread(name) * spread(other)[partner]
        return torch.where(scale > 0, covered / scale.clamp_min(1e-300).sqrt(), torch.nan)

    def columns(
        self, name: str, firings: Int[np.ndarray, " latent"], settings: Replication, min_firings: int
    ) -> dict[str, np.ndarray]:
        """Of each latent of one dictionary: `replicas`, in how many of the `replica_seeds` others it came back; the
        median `replica_cosine` and `replica_correlation` of its partners; and the verdict `replication`.

        `replicated`: in every other seed. `not_testable`: fewer seeds than `settings.seeds`, or fewer firings than
        `min_firings`.
        """
        others = [other for other in self.names if other != name]
        cosine = np.stack([self.found[name, other][1].cpu().numpy() for other in others])
        correlation = np.stack([self.correlation(name, other).cpu().numpy() for other in others])
        back = (cosine >= settings.cosine) & (correlation >= settings.correlation)  # NaN is not back
        return columns_of(back.sum(0), len(others), cosine, correlation, firings, settings, min_firings)

    def random_cosine(self, name: str) -> float:
        """Median cosine of a latent's partner where directions are alike by chance alone."""
        return float(np.median([value for (own, _), value in self.random.items() if own == name]))


def columns_of(
    replicas: Int[np.ndarray, " latent"],
    seeds: int,
    cosine: Float[np.ndarray, "seed latent"],
    correlation: Float[np.ndarray, "seed latent"],
    firings: Int[np.ndarray, " latent"],
    settings: Replication,
    min_firings: int,
) -> dict[str, np.ndarray]:
    """The columns of `ReplicaSums.columns` from figures of each other seed; for no other seed all of them empty."""
    testable = (firings >= min_firings) & (seeds + 1 >= settings.seeds)
    verdict = np.where(replicas == seeds, REPLICATED, NOT_REPLICATED)
    silent = np.isnan(correlation).all(0) if seeds else np.ones(len(firings), dtype=bool)
    middle = np.full(len(firings), np.nan)
    if seeds:
        middle[~silent] = np.nanmedian(correlation[:, ~silent], axis=0)
    return {
        "replicas": replicas,
        "replica_seeds": np.full(len(firings), seeds),
        "replica_cosine": np.median(cosine, axis=0) if seeds else np.full(len(firings), np.nan),
        "replica_correlation": middle,
        "replication": np.where(testable, verdict, NOT_TESTABLE),
    }


def alone(firings: Int[np.ndarray, " latent"], settings: Replication, min_firings: int) -> dict[str, np.ndarray]:
    """The same columns for a dictionary of a single seed."""
    none = np.zeros((0, len(firings)))
    return columns_of(np.zeros(len(firings), dtype=int), 0, none, none, firings, settings, min_firings)


def _by_chance(own: Float[Tensor, "latent unit"], other: Float[Tensor, "partner unit"]) -> float:
    """Median cosine of the best partner after the other's units have changed places at random."""
    shuffled = torch.randperm(other.shape[1], generator=torch.Generator().manual_seed(0)).to(other.device)
    return float(best_partners(own, other[:, shuffled])[1].median())


def siblings(names: Sequence[str]) -> list[list[str]]:
    """Paths `.../point/seedN/file` of dictionaries in groups that differ in the seed alone."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rsplit("/", 2)[0], []).append(name)
    return list(groups.values())
