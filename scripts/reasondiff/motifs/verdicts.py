"""Is a difference between two groups of graphs more than chance, and more than its null shows?

Prompts are the units. Exchanging the labels of one prompt changes the sign of all its differences at once, so whatever
dependence there is among graphs of one prompt, or among measures, stays as it is.

Source: docs/methods.md §12; Berger 1982, Technometrics 24, 295-300 (two conditions tested together).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from reasondiff.statistics import Estimate, bootstrap, mean_of_units

FOUND, NOT_FOUND, NOT_TESTABLE = "found", "not found", "not testable"
MIN_PROMPTS = 6
"""With fewer no interval is given and nothing is tested: even if all agree, p is above .05."""
_EQUAL = 1e-9  # figures that differ by less than this share of the largest count as equal


def relabellings(prompts: int, permutations: int, seed: int) -> Float[np.ndarray, "relabelling prompt"]:
    """Signs +1 (labels as they are) and -1 (exchanged) per prompt; the first row leaves all as they are.

    All 2^prompts of them where these are no more than `permutations` + 1, else `permutations` random ones after the
    first. In either case the share of rows that reach a figure of the first is a p-value that is never 0.
    """
    if prompts < 60 and 2**prompts <= permutations + 1:
        numbers = np.arange(2**prompts)[:, None]
        return 1.0 - 2.0 * (numbers >> np.arange(prompts) & 1)
    drawn = np.random.default_rng(seed).integers(0, 2, (permutations, prompts))
    return 1.0 - 2.0 * np.concatenate([np.zeros((1, prompts), dtype=drawn.dtype), drawn])


def smallest_p(prompts: int, permutations: int) -> float:
    """The two-sided p that `prompts` differences of one sign get."""
    return min(1.0, 2 / min(2.0**prompts, permutations + 1))


def chance(
    difference: Float[np.ndarray, "prompt measure"],
    null: Float[np.ndarray, "prompt measure"],
    signs: Float[np.ndarray, "relabelling prompt"],
    size: Float[np.ndarray, "prompt measure"] | None = None,
    null_size: Float[np.ndarray, "prompt measure"] | None = None,
) -> Float[np.ndarray, " measure"]:
    """Two-sided p that the mean `difference` is no further from 0 than the mean `null` difference, in (0, 1].

    With null differences of 0 it is the p of a sign-flip test. Else two one-sided tests, of difference - null and of
    difference + null, must both say so (the larger of their p counts): a difference as large as the null's, with the
    same or the opposite sign, is not beyond it. With `size` (and `null_size`) the figure is not a mean but the
    intercept of a line on them: the difference at equal size. Prompts with a NaN take no part in that measure; a
    measure without any prompt, or whose line is not determined, gets NaN.

    The test is exact where differences are symmetric about 0 when there is nothing to find, as they are when labels
    can be exchanged within a prompt. At equal size it is what is left beside a line through 0 that changes sign, while
    sizes stay: exchanging both would compare the intercept with those of sizes that differ less on average, which are
    much surer, and find what is not there (Freedman and Lane 1983, Journal of Business and Economic Statistics 1).
    """
    usable = np.isfinite(difference) & np.isfinite(null)
    if size is not None:
        usable &= np.isfinite(size) & np.isfinite(null_size)
    d, n = (np.where(usable, values, 0.0) for values in (difference, null))
    x, m = (np.zeros_like(d) if values is None else np.where(usable, values, 0.0) for values in (size, null_size))
    beyond, towards = (_figures(d + sign * n, x + sign * m, usable.sum(0), signs) for sign in (-1, 1))
    above = np.maximum(_share_reached(beyond), _share_reached(towards))
    below = np.maximum(_share_reached(-beyond), _share_reached(-towards))
    return np.where(np.isnan(beyond[0]) | np.isnan(towards[0]), np.nan, np.minimum(1, 2 * np.minimum(above, below)))


def _figures(
    y: Float[np.ndarray, "prompt measure"],
    x: Float[np.ndarray, "prompt measure"],
    counts: np.ndarray,
    signs: Float[np.ndarray, "relabelling prompt"],
) -> Float[np.ndarray, "relabelling measure"]:
    """Intercept of y on x (the mean of y where x is 0 throughout) for each relabelling; NaN where it is not determined.

    The same as: y = slope x + rest through 0, then for each row of signs the intercept of slope x + signs rest on x.
    An intercept is a weighted sum that is 0 for x itself.
    """
    sum_x, squares = x.sum(0), (x * x).sum(0)
    flat, spread = squares == 0, counts * squares - sum_x**2
    with np.errstate(invalid="ignore", divide="ignore"):
        rest = y - np.where(flat, 0.0, x * (x * y).sum(0) / squares)
        weights = np.where(flat, 1 / counts, (squares - x * sum_x) / spread)
        undetermined = (counts == 0) | (~flat & (spread <= _EQUAL * counts * squares))
        return np.where(undetermined, np.nan, signs @ (weights * rest))


def _share_reached(figures: Float[np.ndarray, "relabelling measure"]) -> Float[np.ndarray, " measure"]:
    """Share of relabellings whose figure is at least that of the first."""
    scale = np.abs(figures).max(0)
    return (figures >= figures[0] - _EQUAL * scale).mean(0)


def under_exchanged_labels(
    difference: Float[np.ndarray, "prompt measure"], signs: Float[np.ndarray, "relabelling prompt"]
) -> Float[np.ndarray, "3 measure"]:
    """Mean, 2.5 % and 97.5 % point of the mean difference when labels are exchanged within prompts."""
    usable = np.isfinite(difference)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = signs @ np.where(usable, difference, 0.0) / usable.sum(0)
    return np.concatenate([means.mean(0, keepdims=True), np.percentile(means, [2.5, 97.5], axis=0)])


def mean_over_prompts(values: Float[np.ndarray, " prompt"], resamples: int, seed: int) -> Estimate:
    """Mean with its 95 % interval, bootstrapped over prompts; NaN do not count, and no interval below 6."""
    known = values[np.isfinite(values)]
    return mean_of_units(known, resamples, seed, MIN_PROMPTS)


def at_equal_size(
    difference: Float[np.ndarray, " prompt"], size: Float[np.ndarray, " prompt"], resamples: int, seed: int
) -> Estimate:
    """Intercept of the differences on the differences in size, with its 95 % interval, bootstrapped over prompts."""
    known = np.isfinite(difference) & np.isfinite(size)
    y, x = difference[known], size[known]
    return bootstrap(np.stack([np.ones(len(y)), x, y, x * x, x * y], axis=1), _intercept, resamples, seed, MIN_PROMPTS)


def _intercept(sums: Float[np.ndarray, "resample 5"]) -> Float[np.ndarray, " resample"]:
    n, x, y, xx, xy = sums.T
    return np.where(xx == 0, y / n, (y * xx - x * xy) / (n * xx - x * x))
