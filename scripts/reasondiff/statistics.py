"""How sure is a figure, when tokens of one problem are not independent?

Everything here resamples *units* (problems, usually) with their sums, never tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval (NaN where there are too few units) and the number of units."""

    value: float
    low: float
    high: float
    n: int


@functools.lru_cache(maxsize=8)
def resample_weights(units: int, resamples: int, seed: int) -> Float[np.ndarray, "resample unit"]:
    """How often each unit is drawn in each bootstrap resample. Many figures of one table share the draws."""
    draws = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=resamples)
    weights = draws.astype(np.float64)
    weights.flags.writeable = False  # it is shared by every caller
    return weights


def bootstrap(
    sums: Float[np.ndarray, "unit quantity"],
    figure: Callable[[Float[np.ndarray, "resample quantity"]], Float[np.ndarray, " resample"]],
    resamples: int,
    seed: int,
    min_units: int = 6,
) -> Estimate:
    """`figure` of the summed quantities, with a percentile interval over units.

    `sums` holds per unit the quantities that add up over units (errors, counts). No interval is given below
    `min_units` units. Units whose quantities are all zero do not count.

    Source: docs/methods.md §5.
    """
    sums = np.asarray(sums, dtype=np.float64)
    sums = sums[(sums != 0).any(axis=1)]
    if not len(sums):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(figure(sums.sum(0, keepdims=True))[0])
    if len(sums) < min_units:
        return Estimate(value, float("nan"), float("nan"), len(sums))
    with np.errstate(invalid="ignore", divide="ignore"):
        figures = figure(resample_weights(len(sums), resamples, seed) @ sums)
    low, high = np.nanpercentile(figures, [2.5, 97.5])
    return Estimate(value, float(low), float(high), len(sums))


def mean_of_units(values: Float[np.ndarray, " unit"], resamples: int, seed: int, min_units: int = 6) -> Estimate:
    """The mean over units with its interval, as `bootstrap`."""
    return bootstrap(np.stack([values, np.ones(len(values))], axis=1), ratio, resamples, seed, min_units)


def adjusted(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Benjamini and Hochberg's adjusted p over the tests that have one; NaN for the others."""
    from scipy.stats import false_discovery_control

    known = ~np.isnan(p)
    result = np.full(len(p), np.nan)
    if known.any():
        result[known] = false_discovery_control(p[known])
    return result


def ratio(sums: Float[np.ndarray, "resample 2"]) -> Float[np.ndarray, " resample"]:
    """First quantity over the second."""
    return sums[:, 0] / sums[:, 1]


def one_minus_ratio(sums: Float[np.ndarray, "resample 2"]) -> Float[np.ndarray, " resample"]:
    """1 - first quantity over the second."""
    return 1 - sums[:, 0] / sums[:, 1]
