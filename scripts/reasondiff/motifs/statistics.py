"""How far is an observed count from what a null expects, and how sure is that?

Source: docs/methods.md §11.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

DEPENDENT = 1e-8
"""A direction in which the counts, each scaled to a standard deviation of 1, vary less than this share of the direction
in which they vary most is none: it is the size of rounding errors."""


@dataclass(frozen=True)
class Deviation:
    """Observed counts beside those of the graphs of a null."""

    mean: Float[np.ndarray, " motif"]
    sd: Float[np.ndarray, " motif"]
    states: Int[np.ndarray, " motif"]
    """Different counts among the graphs of the null."""
    log_ratio: Float[np.ndarray, " motif"]
    """ln((observed + 0.5) / (mean + 0.5)): 0 as expected, ln 2 twice as many."""
    delta: Float[np.ndarray, " motif"]
    """(observed - mean) / (observed + mean + 4), from -1 to 1 (Milo et al. 2004, Science 303)."""
    z: Float[np.ndarray, " motif"]
    """(observed - mean) / sd; NaN with too few states, of which no spread can be told."""
    p: Float[np.ndarray, " motif"]
    """Two-sided, see `two_sided_p`."""
    effective_samples: Float[np.ndarray, " motif"]
    """See `effective_samples`."""


def deviation(
    observed: Int[np.ndarray, " motif"],
    counts: Int[np.ndarray, "sample motif"],
    stretch: Int[np.ndarray, " sample"],
    min_states: int,
) -> Deviation:
    """Where observed counts lie among those of a null."""
    mean, sd = counts.mean(axis=0), counts.std(axis=0, ddof=1)
    states = 1 + (np.diff(np.sort(counts, axis=0), axis=0) != 0).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where((states >= min_states) & (sd > 0), (observed - mean) / sd, np.nan)
    return Deviation(
        mean,
        sd,
        states,
        log_ratio=np.log((observed + 0.5) / (mean + 0.5)),
        delta=(observed - mean) / (observed + mean + 4),
        z=z,
        p=two_sided_p(observed, counts),
        effective_samples=effective_samples(counts, stretch),
    )


def two_sided_p(
    observed: Int[np.ndarray, " motif"], counts: Int[np.ndarray, "sample motif"]
) -> Float[np.ndarray, " motif"]:
    """Twice the smaller of (r + 1) / (n + 1) for r of n graphs with at least, or with at most, the observed count; at
    most 1. Ties count against the observed graph: never below `tie_broken_p`, and 1 where all counts are equal."""
    above, below = (counts >= observed).sum(axis=0), (counts <= observed).sum(axis=0)
    return np.minimum(1.0, 2 * (np.minimum(above, below) + 1) / (len(counts) + 1))


def tie_broken_p(
    observed: Int[np.ndarray, " motif"], counts: Int[np.ndarray, "sample motif"], rng: np.random.Generator
) -> Float[np.ndarray, " motif"]:
    """The share of the n + 1 graphs, the observed one among them, that hold more than the observed graph, ties broken
    at random: uniform from 0 to 1 under the null, where the observed graph is one draw among the others."""
    more, equal = (counts > observed).sum(axis=0), (counts == observed).sum(axis=0) + 1
    return (more + rng.random(len(observed)) * equal) / (len(counts) + 1)


def rank(counts: Int[np.ndarray, "sample motif"]) -> int:
    """In how many independent directions the counts vary: the numerical rank of their covariance (`DEPENDENT`)."""
    centred = counts - counts.mean(axis=0)
    spread = np.sqrt((centred**2).mean(axis=0))
    if not (spread > 0).any():
        return 0
    sizes = np.linalg.svd(centred[:, spread > 0] / spread[spread > 0], compute_uv=False)
    return int((sizes > DEPENDENT * sizes[0]).sum())


def effective_samples(
    counts: Int[np.ndarray, "sample motif"], stretch: Int[np.ndarray, " sample"]
) -> Float[np.ndarray, " motif"]:
    """How many independent graphs would tell the mean count as well, from 1 to the number of graphs.

    n / (1 + 2 sum of the autocorrelations along the chains), the sum running while that of two neighbouring lags is
    above 0 (Geyer 1992, Statistical Science 7). That graphs of different chains share an ancestor is not seen by it,
    nor is it by the published nulls that their graphs all start from the observed one. NaN where counts do not vary.
    """
    n, motifs = counts.shape
    centred = counts - counts.mean(axis=0)
    variance = (centred**2).mean(axis=0)
    time, growing = np.full(motifs, -1.0), variance > 0
    for lag in range(0, n - 1, 2):
        first, second = (_autocovariance(centred, stretch, one) for one in (lag, lag + 1))
        if not growing.any() or np.isnan(second).any():
            break
        both = np.divide(first + second, variance, out=np.zeros(motifs), where=growing)
        growing &= both > 0
        time[growing] += 2 * both[growing]
    found = np.divide(n, time, out=np.full(motifs, float(n)), where=time > 0)
    return np.where(variance > 0, np.clip(found, 1, n), np.nan)


def _autocovariance(
    centred: Float[np.ndarray, "sample motif"], stretch: Int[np.ndarray, " sample"], lag: int
) -> Float[np.ndarray, " motif"]:
    """Mean product of counts `lag` apart on one chain; NaN without such."""
    together = stretch[: len(stretch) - lag] == stretch[lag:]
    if not together.any():
        return np.full(centred.shape[1], np.nan)
    return (centred[: len(centred) - lag] * centred[lag:])[together].mean(axis=0)
