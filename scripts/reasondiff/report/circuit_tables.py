"""Which rows do the page, its figures and its findings take from the tables on graphs and motifs?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from reasondiff.config import Motifs
from reasondiff.graphs.graph import PHASES
from reasondiff.motifs.verdicts import FOUND, NOT_FOUND, NOT_TESTABLE

TARGETS = tuple(PHASES)
COMPARISONS = {
    "reasoning_base": "Reasoning model against base",
    "think_answer": "Think phase against answer",
    "published": "Against published graphs",
    "correct_incorrect": "Correct against incorrect responses",
}
"""{name: title}, in the order of the page."""
SHOWN_MOTIFS = 8
FIGURES = [
    "probability",
    "feature_share", "replacement", "completeness", "tokens_via_features", "coverage", "included", "replaced_kl",
    "features", "nodes", "edges",
]  # fmt: skip
"""Columns of the summary whose medians the page shows."""


def traced(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of graphs that were made."""
    return summary[summary["status"] == "traced"] if len(summary) else summary


def with_costs(summary: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """The summary with the columns seconds and peak_memory_gib of each graph; NaN where they are not known."""
    key, figures = ["model", "seed", "prompt_id", "target"], ["seconds", "peak_memory_gib"]
    if costs.empty:
        return summary.assign(**dict.fromkeys(figures, np.nan))
    return summary.merge(costs[[*key, *figures]], on=key, how="left")


def by_target(summary: pd.DataFrame) -> pd.DataFrame:
    """One row per model, seed and target: `asked`, `graphs` (made), `failed`, `explaining` (which the gates let
    through), medians of `FIGURES`, and `agreeing`, the share of graphs at whose position the model says the same with
    all MLPs replaced."""
    rows = []
    for key, asked in summary.groupby(["model", "seed", "target"], sort=False) if len(summary) else ():
        made = traced(asked)
        row = dict(zip(("model", "seed", "target"), key, strict=True))
        row |= {"asked": len(asked), "graphs": len(made), "failed": int((asked["status"] == "failed").sum())}
        row |= {"explaining": int(made["explains"].astype(bool).sum())}
        row |= {name: made[name].median() if len(made) else np.nan for name in FIGURES}
        rows.append(row | {"agreeing": made["replaced_top1"].astype(float).mean() if len(made) else np.nan})
    columns = ["model", "seed", "target", "asked", "graphs", "failed", "explaining", *FIGURES, "agreeing"]
    frame = pd.DataFrame(rows, columns=columns)
    order = [(row.model, row.seed, _place(row.target)) for row in frame.itertuples()]
    return frame.iloc[sorted(range(len(frame)), key=order.__getitem__)]


def _place(target: str) -> int:
    return TARGETS.index(target) if target in TARGETS else len(TARGETS)


def headline_agreement(agreement: pd.DataFrame) -> pd.DataFrame:
    """Of the table on interventions the rows over all phases, of ablations."""
    if agreement.empty:
        return agreement
    return agreement[(agreement["phase"] == "all") & (agreement["factor"] == 0)]


def headline_profiles(profiles: pd.DataFrame, motifs: Motifs) -> pd.DataFrame:
    """Effect sizes under our own null at the reported thresholds, of motifs that say something: neither fixed by the
    null nor following from others (those have no p)."""
    if profiles.empty:
        return profiles
    node_share, edge_share = motifs.thresholds[0]
    rows = profiles[(profiles["null"] == "typed") & np.isclose(profiles["node_share"], node_share)]
    rows = rows[np.isclose(rows["edge_share"], edge_share)]
    return rows[rows["log_ratio"].notna() & rows["p_adjusted"].notna()]


def shown_motifs(profiles: pd.DataFrame, most: int = SHOWN_MOTIFS) -> list[str]:
    """The motifs whose effects are largest anywhere, counted in half widths of their intervals; at most `most`."""
    known = profiles[profiles["low"].notna()] if len(profiles) else profiles
    if known.empty:
        return []
    half = ((known["high"] - known["low"]) / 2).clip(lower=1e-9)
    strength = (known["log_ratio"].abs() / half).groupby(known["motif"]).max()
    return list(strength.sort_values(ascending=False, kind="stable").head(most).index)


def of_comparison(comparisons: pd.DataFrame, name: str) -> pd.DataFrame:
    return comparisons[comparisons["comparison"] == name] if len(comparisons) else comparisons


def judged(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that are tests; others describe (how well groups match)."""
    return rows[rows["measure_family"] != "match"] if len(rows) else rows


def counts(rows: pd.DataFrame) -> dict[str, int]:
    """{verdict: rows} of a comparison's tests."""
    said = judged(rows)["verdict"].value_counts() if len(rows) else {}
    return {verdict: int(said.get(verdict, 0)) for verdict in (FOUND, NOT_FOUND, NOT_TESTABLE)}


def figures_of_circuits(has_graphs: bool, has_motifs: bool, has_comparisons: bool) -> dict[str, tuple[str, str]]:
    """{name: (kind, what it is of)} of the figures on circuits."""
    kinds: Sequence[str] = ("graph_scores", "interventions") if has_graphs else ()
    found = {kind: (kind, "") for kind in kinds}
    if has_motifs and has_comparisons:
        found["motif_profiles"] = ("motif_profiles", "")
    if has_comparisons:
        found |= {f"comparison_{name}": ("comparison", name) for name in COMPARISONS}
    return found
