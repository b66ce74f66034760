"""Which motifs do the graphs of a group hold more or less often than a null expects, and how sure is that?

A group is the graphs of one source and phase. The effect is the mean log ratio over prompts, a prompt's being the mean
over its graphs, with an interval bootstrapped over prompts.

The p of a group joins the empirical p of its graphs. Prompts of one kind get much the same graph from one model, so
these depend on one another in ways that nobody knows, and what adds up evidence (Fisher's or Stouffer's sum, flipping
signs) would count one chance deviation many times; a log ratio is moreover below 0 on average for a rare motif that
its null explains. Twice the median p is a p whatever the dependence: if p_i <= t happens with probability t each, the
expected share of them that are is t, so that half of them are with probability 2 t at most (Markov's inequality).

Source: docs/methods.md §11; Rüger 1978, Metrika 25, 171-178; Vovk and Wang 2020, Biometrika 107, 791-808.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from reasondiff.motifs.measures import identified, is_claimed
from reasondiff.motifs.verdicts import mean_over_prompts
from reasondiff.statistics import adjusted

GROUP = ["source", "model", "seed", "phase", "node_share", "edge_share", "null", "family", "motif"]
FAMILY = ["source", "node_share", "edge_share", "null"]
"""Benjamini and Hochberg's correction covers all motifs of all phases of one source under one null at one threshold."""
COLUMNS = [
    *GROUP, "prompts", "graphs", "log_ratio", "low", "high", "delta", "p", "p_adjusted", "sign_stable", "rank",
    "mobility", "states",
]  # fmt: skip


def profiles(motifs: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """One row per source, phase, threshold, null and motif.

    `motifs`: motif tables one below the other. `log_ratio` and `delta` are means over prompts, `low` and `high` the
    95 % interval of the first (NaN below 6 prompts). Rows of graphs without a log ratio do not count. `p`: see above,
    in the direction that at least half of the prompts agree in, from 0 to 1; `p_adjusted` over `FAMILY`, NaN for
    motifs that the null determines and untyped triads that follow from another. `sign_stable`: whether the log ratio
    has one sign at all thresholds at which its null was drawn (None where that is one). `rank` and `states` are
    medians over graphs, `mobility` is a mean.

    A log ratio says little of a motif that the null expects less than about 5 times: its mean is then below 0 by some
    1 / (2 expected) even if the null holds.
    """
    known = identified(motifs[motifs["log_ratio"].notna()])
    known = known.assign(seed=known["seed"].astype("Int64"), claimed=is_claimed(known))
    known = known.assign(weight=_weights(known))
    rows = [_profile(key, table, resamples, seed) for key, table in known.groupby(GROUP, sort=True, dropna=False)]
    table = pd.DataFrame(rows, columns=[*COLUMNS, "claimed"])
    if len(table):
        claimed = table["p"].where(table["claimed"].astype(bool)).astype(np.float64)
        families = table.groupby(FAMILY, sort=False).ngroup()
        table["p_adjusted"] = claimed.groupby(families).transform(lambda p: adjusted(p.to_numpy()))
        table["sign_stable"] = _sign_stable(table)
    return table[COLUMNS]


def _weights(motifs: pd.DataFrame) -> pd.Series:
    """Of each graph within its group: equal for all prompts, equal for the graphs of a prompt; they sum to 1."""
    prompts = motifs.groupby(GROUP, dropna=False)["prompt_id"].transform("nunique")
    graphs = motifs.groupby([*GROUP, "prompt_id"], dropna=False)["prompt_id"].transform("size")
    return 1 / (prompts * graphs)


def _profile(key: tuple, table: pd.DataFrame, resamples: int, seed: int) -> dict:
    by_prompt = table.groupby("prompt_id")[["log_ratio", "delta"]].mean()
    found = mean_over_prompts(by_prompt["log_ratio"].to_numpy(np.float64), resamples, seed)
    return {
        **dict(zip(GROUP, key, strict=True)),
        "prompts": found.n, "graphs": len(table), "log_ratio": found.value, "low": found.low, "high": found.high,
        "delta": by_prompt["delta"].mean(), "p": joint_p(table), "claimed": bool(table["claimed"].iloc[0]),
        "rank": table["rank"].median(), "mobility": table["mobility"].mean(), "states": table["states"].median(),
    }  # fmt: skip


def joint_p(graphs: pd.DataFrame) -> float:
    """Twice the weighted median of the graphs' two-sided p in one direction, for the better of the two directions.

    In a direction a graph has its p where it deviates that way, and 1 else. No graph deviates both ways, so that the
    chances of the two directions add up to that of one p, and looking in both costs nothing. Columns: p, log_ratio,
    weight (sums to 1). Graphs without p count as 1.
    """
    p, sign = graphs["p"].fillna(1.0).to_numpy(np.float64), np.sign(graphs["log_ratio"].to_numpy(np.float64))
    weight = graphs["weight"].to_numpy(np.float64)
    medians = [_median(np.where(sign == direction, p, 1.0), weight) for direction in (1, -1)]
    return float(min(1.0, 2 * min(medians)))


def _median(values: np.ndarray, weights: np.ndarray) -> float:
    """The least value that half of the weight does not exceed."""
    order = np.argsort(values, kind="stable")
    place = np.searchsorted(np.cumsum(weights[order]), 0.5 * weights.sum() - 1e-9)
    return float(values[order][place])


def _sign_stable(table: pd.DataFrame) -> pd.Series:
    """Whether each row's group has log ratios of one sign, and not 0, at every threshold of its source and null."""
    across = [name for name in GROUP if name not in ("node_share", "edge_share")]
    threshold = table.groupby(["node_share", "edge_share"]).ngroup()
    asked = threshold.groupby([table["source"], table["null"]]).transform("nunique")
    sign = np.sign(table["log_ratio"])
    group = table.assign(sign=sign).groupby(across, dropna=False)["sign"]
    stable = (group.transform("nunique") == 1) & (sign != 0) & (group.transform("size") == asked)
    return stable.astype(object).where(asked > 1, None)
