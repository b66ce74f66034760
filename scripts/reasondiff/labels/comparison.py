"""Are some latents better described by their labels than others?

Each function takes label scores of many dictionaries, one below the other, with the columns that their paths say: pair
(or model), text, layer, point and seed. Latents are the unit: intervals resample them, and do not cover training a
dictionary again. Texts, points and seeds of a pair are pooled: pass the rows of one where that is not wanted.

Source: docs/methods.md §9.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from reasondiff.latents.counts import LEANING_DELTA
from reasondiff.statistics import mean_of_units

MIN_LATENTS = 6
CALIPER = float(np.log(2.0))
"""Matched latents differ by at most a factor of two in firing rate, and by at most that in maximum activation."""
HEADLINE = {"detection": "all", "fuzzing": "wrong_tokens"}
"""The kind of negatives that a task's headline figure is against."""

_PATH = ("pair", "model", "text", "layer", "point", "seed")
_FIGURES = ["value", "low", "high", "n_latents", "n_windows", "reason"]
_ASKED = ["measure", "task", "negatives"]

Split = Literal["all", "tag", "layer", "phase"]
Side = Literal["reasoning", "base"]


def summary(scores: pd.DataFrame, split: Split, resamples: int, seed: int) -> pd.DataFrame:
    """Mean balanced accuracy over latents, one row for each pair (or model), measure, task, kind of negatives, control
    and group, a group being the latents of one tag, layer or phase, or all.

    `low` and `high`: 95 % over latents. `n_windows`: answered passages of all of them. With fewer than 6 latents the
    figures are NaN and `reason` says so. Latents without a score (no answer, no windows of a side) do not count.
    """
    owner = _owner(scores)
    scored = scores[scores["balanced_accuracy"].notna()]
    scored = scored.assign(split=split, group="all" if split == "all" else scored[split].astype(str))
    return _means(scored, "balanced_accuracy", owner, resamples, seed)


def against_control(
    scores: pd.DataFrame, control: Literal["shuffled", "top_token"], resamples: int, seed: int, split: Split = "all"
) -> pd.DataFrame:
    """Mean over latents of the score with their own label minus that with the control's, latent by latent; one row for
    each pair (or model), measure, task, kind of negatives and group.

    Above 0 a label says more of its latent than the control does. Figures as in `summary`.
    """
    owner, path = _owner(scores), _path(scores)
    identity = list(dict.fromkeys([*path, "layer", "latent", *_ASKED]))
    own = scores[scores["control"] == "own"]
    other = scores.loc[scores["control"] == control, [*identity, "balanced_accuracy"]]
    both = own.merge(other, on=identity, suffixes=("", "_control"), validate="one_to_one")
    both["difference"] = both["balanced_accuracy"] - both["balanced_accuracy_control"]
    both = both[both["difference"].notna()]
    both = both.assign(control=control, split=split, group="all" if split == "all" else both[split].astype(str))
    return _means(both, "difference", owner, resamples, seed)


def _means(latents: pd.DataFrame, quantity: str, owner: str, resamples: int, seed: int) -> pd.DataFrame:
    """Mean of a column over the latents of each pair (or model), question, control and group."""
    columns = [owner, *_ASKED, "control", "split", "group"]
    rows = []
    for key, table in latents.groupby(columns, sort=True):
        windows = int(table["n_positive"].sum() + table["n_negative"].sum())
        figures = mean_over_latents(table[quantity], resamples, seed)
        rows.append({**dict(zip(columns, key, strict=True)), **figures, "n_windows": windows})
    return pd.DataFrame(rows, columns=[*columns, *_FIGURES])


def mean_over_latents(values: Iterable[float], resamples: int, seed: int) -> dict[str, float | int | str]:
    """value, low, high, n_latents and reason: the mean with its 95 % bootstrap interval; NaN and the reason below 6."""
    values = np.array(list(values), dtype=np.float64)
    if len(values) < MIN_LATENTS:
        reason = f"too few: {len(values)} latents, {MIN_LATENTS} are needed"
        return {"value": np.nan, "low": np.nan, "high": np.nan, "n_latents": len(values), "reason": reason}
    found = mean_of_units(values, resamples, seed, MIN_LATENTS)
    return {"value": found.value, "low": found.low, "high": found.high, "n_latents": found.n, "reason": ""}


# ------------------------------------------------------------------------------------------------ exclusive and shared

MATCHED_COLUMNS = [
    "pair", "side", *_ASKED, "exclusive", "shared", "difference", "low", "high", "n_matched", "n_exclusive",
    "n_shared", "reason",
]  # fmt: skip


def exclusive_against_shared(
    scores: pd.DataFrame, firing: pd.DataFrame, resamples: int, seed: int, side: Side = "reasoning"
) -> pd.DataFrame:
    """Are the labels of latents that belong to one model better or worse than those of shared ones that fire alike?
    One row for each pair, measure, task and kind of negatives.

    Each exclusive latent is matched with a shared one of the same dictionary, none used twice, that differs by less
    than a factor of two in firing rate and in maximum activation. `exclusive` and `shared` are mean scores (own label)
    of the matched, `difference` the first minus the second, with its 95 % interval over matched couples; above 0
    exclusive latents are the more interpretable (or better fitted). NaN and `reason` below 6 couples. `n_exclusive` and
    `n_shared` count what there was to match. Exclusive are the tags `reasoning_only` or `base_only`; with a column
    `delta` in `scores`, all latents that lean that far (Delta below 0.3, or above 0.7).

    `firing`: firing tables with the same path columns.
    Raises:
        ValueError: a scored latent is not in the firing tables.
    """
    own = scores[(scores["control"] == "own") & scores["balanced_accuracy"].notna()]
    identity = [*(name for name in _path(scores) if name != "layer"), "layer", "latent"]
    joined = own.merge(firing[[*identity, "rate", "max_activation"]], on=identity, how="left", validate="many_to_one")
    if joined["rate"].isna().any():
        first = joined.loc[joined["rate"].isna(), identity].iloc[0].to_dict()
        raise ValueError(f"expected every scored latent in the firing tables, {first} is not: run collect_examples")
    joined = joined.assign(exclusive=is_exclusive(joined, side), shared=joined["tag"] == "shared")
    rows = []
    for key, table in joined.groupby(["pair", *_ASKED], sort=True):
        rows.append(
            {**dict(zip(["pair", *_ASKED], key, strict=True)), "side": side, **_compared(table, resamples, seed)}
        )
    return pd.DataFrame(rows, columns=MATCHED_COLUMNS)


def is_exclusive(scores: pd.DataFrame, side: Side) -> np.ndarray:
    """True for latents of one model: by Delta where the table has it, else by tag."""
    if "delta" in scores:
        delta = scores["delta"].to_numpy(dtype=np.float64)
        return delta < LEANING_DELTA if side == "reasoning" else delta > 1 - LEANING_DELTA
    return (scores["tag"] == f"{side}_only").to_numpy()


def _compared(table: pd.DataFrame, resamples: int, seed: int) -> dict[str, float | int | str]:
    couples = np.array(list(_couples(table)), dtype=np.float64).reshape(-1, 2)
    found = mean_over_latents(couples[:, 0] - couples[:, 1], resamples, seed)
    known = found["n_latents"] >= MIN_LATENTS
    reason = str(found["reason"]).replace("latents", "matched latents")
    return {
        "exclusive": couples[:, 0].mean() if known else np.nan, "shared": couples[:, 1].mean() if known else np.nan,
        "difference": found["value"], "low": found["low"], "high": found["high"], "n_matched": len(couples),
        "n_exclusive": int(table["exclusive"].sum()), "n_shared": int(table["shared"].sum()), "reason": reason,
    }  # fmt: skip


def _couples(table: pd.DataFrame) -> Iterator[tuple[float, float]]:
    """Scores of an exclusive latent and of its shared one, dictionary by dictionary."""
    for _, dictionary in table.groupby(_path(table), sort=True):
        dictionary = dictionary.sort_values("latent", kind="stable")
        exclusive, shared = dictionary[dictionary["exclusive"]], dictionary[dictionary["shared"]]
        for i, j in match(_logs(exclusive), _logs(shared), CALIPER):
            yield exclusive["balanced_accuracy"].iloc[i], shared["balanced_accuracy"].iloc[j]


def _logs(table: pd.DataFrame) -> np.ndarray:
    with np.errstate(divide="ignore"):  # a rate of 0 matches nothing
        return np.log(table[["rate", "max_activation"]].to_numpy(dtype=np.float64))


def match(first: np.ndarray, second: np.ndarray, caliper: float) -> list[tuple[int, int]]:
    """Couples (i, j) of rows within `caliper` in every column, none used twice: as many as can be, and of those the
    ones with the least sum of distances.

    Source: optimal matching, Rosenbaum 1989, Journal of the American Statistical Association 84, 1024-1032.
    """
    if not len(first) or not len(second):
        return []
    with np.errstate(invalid="ignore"):
        apart = np.abs(first[:, None, :] - second[None, :, :])  # [first, second, column]
    near = (apart <= caliper).all(-1)
    distance = np.sqrt((np.where(near[..., None], apart, 0) ** 2).sum(-1))
    too_far = 1 + distance.sum()  # one couple more is worth any distances
    rows, columns = linear_sum_assignment(np.where(near, distance, too_far))
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if near[i, j]]


# ------------------------------------------------------------------------------------------------ columns


def _owner(scores: pd.DataFrame) -> str:
    """`pair` for crosscoders, `model` for transcoders."""
    owners = [name for name in ("pair", "model") if name in scores]
    if len(owners) != 1:
        raise ValueError(f"expected label scores with the column pair or the column model, came {list(scores.columns)}")
    return owners[0]


def _path(scores: pd.DataFrame) -> list[str]:
    return [name for name in _PATH if name in scores]
