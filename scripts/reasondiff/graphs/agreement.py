"""Do models change as their graphs say, and better than plain guesses say?

Source: docs/methods.md §10.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.stats import spearmanr

from reasondiff.statistics import Estimate, bootstrap, ratio
from reasondiff.store import ArtefactError, read_table

PREDICTIONS = {
    "direct": "predicted_direct", "total": "predicted_total", "baseline_norm": "baseline_norm",
    "baseline_logit": "baseline_logit",
}  # fmt: skip
UNSIGNED = ("baseline_norm",)
"""Predictions that say how large a change is and not which way it goes: they are held against its size."""
FREEZINGS = {"frozen": "frozen_change", "free": "free_change"}
FLOOR_LOGITS = 1e-4
"""Changes predicted to be no larger count in no sign agreement: well above the rounding of float32 (2e-6 was seen)."""
MIN_PROMPTS = 6
"""With fewer no interval is given, and the prediction is not testable."""
ALL = "all"
COLUMNS = [
    "model", "seed", "phase", "chosen", "prediction", "freezing", "factor", "latents", "prompts",
    "slope", "slope_low", "slope_high", "r2", "r2_low", "r2_high", "sign_agreement", "sign_low", "sign_high",
    "spearman", "reason",
]  # fmt: skip


def read_interventions(paths: Iterable[str | Path]) -> pd.DataFrame:
    """The rows of all files of interventions, with the columns model, seed, prompt_id, target and phase that their
    cards say.

    Raises:
        ArtefactError: a file is missing, broken, or its card does not say what it is of.
    """
    tables = [_with_origin(read_table(path), path) for path in paths]
    # tables without rows have columns without a type, which would become the type of all
    filled = [table for table in tables if len(table)]
    return pd.concat(filled or tables[:1], ignore_index=True) if tables else pd.DataFrame()


def _with_origin(table: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    card = table.attrs.pop("card")
    try:
        of = {name: card["of"][name] for name in ("prompt_id", "target", "phase")}
        return table.assign(model=card["model"][0], seed=card["seed"], **of)
    except (KeyError, TypeError) as error:
        raise ArtefactError(
            f"the card of {path} does not say which model, seed and target it is of (no {error}): delete it, run again"
        ) from error


def agreement(interventions: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """How well each prediction agrees with the measured changes of the demeaned target logit: one row for each model,
    seed of transcoders, phase (and `all` of them together), kind of latents, prediction, freezing and factor.

    `slope`: measured on predicted, by least squares through the origin, since where no change is predicted none is
    expected; 1 where changes are as large as predicted, 0 where the prediction says nothing. `r2` is that line's share
    of the changes' variance, 1 - sum (y - slope x)^2 / sum (y - mean y)^2: at most 1, below 0 where one mean for all
    would do better. `sign_agreement`: the share, from 0 to 1 with 0.5 by chance, of changes that go the predicted way,
    among those predicted to be above `FLOOR_LOGITS`. `spearman`: the correlation of their ranks. A prediction of
    `UNSIGNED` has no sign agreement (NaN), and its other figures are those of the size of the change.

    Intervals (95 %) resample prompts with all their latents. Below `MIN_PROMPTS` prompts there are none, and `reason`
    says so; it is empty elsewhere. NaN where a figure is undefined: nothing predicted, or all changes alike.

    `interventions`: as `read_interventions` gives them.
    Raises:
        ValueError: a change or a prediction is not a finite number.
    """
    if not len(interventions):
        return pd.DataFrame({name: [] for name in COLUMNS})
    _refuse_unknown_changes(interventions)
    rows = []
    for key, table in _groups(interventions):
        for prediction, freezing in [(one, other) for one in PREDICTIONS for other in FREEZINGS]:
            figures = _judged(table, prediction, freezing, resamples, seed)
            rows.append({**key, "prediction": prediction, "freezing": freezing, **figures})
    return pd.DataFrame(rows)[COLUMNS]


def _groups(table: pd.DataFrame) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    """What some rows of the result are of, with its interventions: by model and seed, first those of all phases."""
    names = ["model", "seed", "phase", "chosen", "factor"]
    both = pd.concat([table.assign(phase=ALL), table], ignore_index=True)
    for key, part in sorted(both.groupby(names, sort=False), key=lambda group: group[0][:2]):
        yield dict(zip(names, key, strict=True)), part


def _refuse_unknown_changes(table: pd.DataFrame) -> None:
    for name in (*PREDICTIONS.values(), *FREEZINGS.values()):
        known = np.isfinite(table[name].to_numpy(dtype=np.float64))
        if not known.all():
            first = table.loc[~known, ["model", "seed", "prompt_id", "target"]].iloc[0].to_dict()
            raise ValueError(f"expected finite numbers, {int((~known).sum())} of {name} are not, first {first}")


# ------------------------------------------------------------------------------------------------ figures


def _judged(
    table: pd.DataFrame, prediction: str, freezing: str, resamples: int, seed: int
) -> dict[str, float | int | str]:
    predicted = table[PREDICTIONS[prediction]].to_numpy(dtype=np.float64)
    measured = table[FREEZINGS[freezing]].to_numpy(dtype=np.float64)
    units = table["prompt_id"].to_numpy()
    prompts = len(set(units))
    enough = prompts >= MIN_PROMPTS
    if prediction in UNSIGNED:
        measured = np.abs(measured)
        signs = Estimate(np.nan, np.nan, np.nan, 0)
    else:
        signs = bootstrap(_sums(_sign_terms(predicted, measured), units), ratio, resamples, seed, MIN_PROMPTS)
    terms = _line_terms(predicted, measured)
    slope, r2 = (bootstrap(_sums(terms, units), figure, resamples, seed, MIN_PROMPTS) for figure in (_slope, _r2))
    return {
        "latents": len(table), "prompts": prompts,
        "slope": slope.value, "slope_low": slope.low, "slope_high": slope.high,
        "r2": r2.value, "r2_low": r2.low, "r2_high": r2.high,
        "sign_agreement": signs.value, "sign_low": signs.low, "sign_high": signs.high,
        "spearman": rank_correlation(predicted, measured),
        "reason": "" if enough else f"not testable: {prompts} prompts, {MIN_PROMPTS} are needed",
    }  # fmt: skip


def _sums(terms: Float[np.ndarray, "row term"], units: Sequence[str] | np.ndarray) -> Float[np.ndarray, "unit term"]:
    """Terms summed over the rows of each unit."""
    _, unit = np.unique(units, return_inverse=True)
    sums = np.zeros((int(unit.max()) + 1, terms.shape[1]))
    np.add.at(sums, unit, terms)
    return sums


def _line_terms(x: Float[np.ndarray, " row"], y: Float[np.ndarray, " row"]) -> Float[np.ndarray, "row 5"]:
    return np.stack([np.ones_like(x), y, x * x, x * y, y * y], axis=1)


def _slope(sums: Float[np.ndarray, "resample 5"]) -> Float[np.ndarray, " resample"]:
    return sums[:, 3] / sums[:, 2]


def _r2(sums: Float[np.ndarray, "resample 5"]) -> Float[np.ndarray, " resample"]:
    n, y, _, xy, yy = sums.T
    return 1 - (yy - _slope(sums) * xy) / (yy - y * y / n)  # at the best slope, sum (y - slope x)^2 = yy - slope xy


def _sign_terms(predicted: Float[np.ndarray, " row"], measured: Float[np.ndarray, " row"]) -> np.ndarray:
    """[agrees, counts] of each row: [row, 2]."""
    counts: Bool[np.ndarray, " row"] = np.abs(predicted) > FLOOR_LOGITS
    return np.stack([counts & (np.sign(predicted) == np.sign(measured)), counts], axis=1).astype(np.float64)


def rank_correlation(first: Float[np.ndarray, " row"], second: Float[np.ndarray, " row"]) -> float:
    """Spearman's, from -1 to 1, equal values sharing their mean rank; NaN where one of them does not vary."""
    varies = all(len(one) and one.min() < one.max() for one in (first, second))
    return float(spearmanr(first, second).statistic) if varies else float("nan")
