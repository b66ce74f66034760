"""Which latent tells a concept best, and what does it stand beside?

Everything was picked on the part `choose` and is reported on `score`; where a baseline was tried in several models,
the one that was better on `choose` is shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import pandas as pd

from reasondiff.report.wording import is_missing

Figure = Literal["f1", "auroc"]
PLACE = ["of", "text", "layer"]
DICTIONARY = [*PLACE, "point", "seed"]
BASELINES = {
    "neuron": "neuron",
    "random direction": "random",
    "untrained dictionary": "untrained",
    "probe": "probe",
}
"""{kind in the table: name in the columns}."""
COLUMNS = [
    *DICTIONARY, "concept", "tag", "latent", "threshold", "candidates", "f1", "f1_low", "f1_high",
    "n_positive", "n_tokens", "n_problems", "reason",
]  # fmt: skip
OPEN, ABOVE, BELOW = "open", "above", "below"


def all_concepts(crosscoders: pd.DataFrame, transcoders: pd.DataFrame) -> pd.DataFrame:
    """Both tables below each other, with the column `of` (pair or model)."""
    parts = [crosscoders.assign(of=crosscoders["pair"]), transcoders.assign(of=transcoders["model"])]
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["concept", "kind", "tag", *PLACE])


def beside_baselines(concepts: pd.DataFrame, by: Figure) -> pd.DataFrame:
    """One row per dictionary, tag and concept: the best latent by the figure `by` (F1, or AUROC with its own pick) and
    under the names of `BASELINES` the same figure of each baseline with its interval; NaN where there is none."""
    picked = concepts[concepts["picked_by"].isna() | (concepts["picked_by"] == by)] if len(concepts) else concepts
    rows, latents = [], []
    baselines: dict[tuple, list[dict[str, Any]]] = {}
    for row in picked.to_dict("records"):
        if row["kind"] == "latent":
            latents.append(row)
        else:
            baselines.setdefault((*(row[at] for at in PLACE), row["concept"], row["kind"]), []).append(row)
    for row in latents:
        told = {name: row[name] for name in ("concept", "tag", "threshold", "candidates", "reason", *DICTIONARY)}
        told |= {name: row[name] for name in ("n_positive", "n_tokens", "n_problems")}
        told |= {"latent": row["unit"], **_figure(row, by, by)}
        for kind, name in BASELINES.items():
            told |= _figure(
                _best(baselines.get((*(row[at] for at in PLACE), row["concept"], kind), []), row, by), by, name
            )
        rows.append(told)
    named = [f"{name}{end}" for name in BASELINES.values() for end in ("", "_low", "_high")]
    names = [name.replace("f1", by) for name in COLUMNS]
    return pd.DataFrame(rows, columns=[*names, *named])


def _best(rows: Iterable[dict[str, Any]], latent: Mapping[str, Any], by: Figure) -> dict[str, Any]:
    """The row of a baseline that was best on `choose`, of those for the latent's dictionary or for all of them; the
    first of equals, and nothing of none."""
    mine = [row for row in rows if all(is_missing(row[at]) or row[at] == latent[at] for at in ("point", "seed"))]
    chosen = f"{by}_choose"
    return max(mine, key=lambda row: -math.inf if is_missing(row[chosen]) else row[chosen], default={})


def _figure(row: dict[str, Any], by: Figure, name: str) -> dict[str, Any]:
    return {f"{name}{end}": row.get(f"{by}{end}", float("nan")) for end in ("", "_low", "_high")}


def stands(row: Any, by: Figure, baseline: str) -> str:
    """Whether the latent's interval lies above the baseline's, below it, or leaves the question open."""
    low, high = getattr(row, f"{by}_low"), getattr(row, f"{by}_high")
    other_low, other_high = getattr(row, f"{baseline}_low"), getattr(row, f"{baseline}_high")
    if low > other_high:
        return ABOVE
    return BELOW if high < other_low else OPEN


def is_testable(row: Any, by: Figure) -> bool:
    """Whether latent and best neuron both have an interval."""
    return not any(is_missing(getattr(row, name)) for name in (f"{by}_low", "neuron_low"))


def tally(frame: pd.DataFrame, by: Figure, baselines: Sequence[str] = tuple(BASELINES.values())) -> pd.DataFrame:
    """One row per dictionary of a table of `beside_baselines`: `testable` concepts of `concepts`, and for each baseline
    in how many of those it was measured in (`neuron_n`) the latent stands above and below it."""
    rows = []
    for key, group in frame.groupby(DICTIONARY, sort=False):
        tested = [row for row in group.itertuples() if is_testable(row, by)]
        told = {**dict(zip(DICTIONARY, key, strict=True)), "concepts": len(group), "testable": len(tested)}
        for baseline in baselines:
            known = [row for row in tested if not is_missing(getattr(row, f"{baseline}_low"))]
            verdicts = [stands(row, by, baseline) for row in known]
            told |= {f"{baseline}_{verdict}": verdicts.count(verdict) for verdict in (ABOVE, BELOW)}
            told[f"{baseline}_n"] = len(known)
        rows.append(told)
    counted = [f"{baseline}_{end}" for baseline in baselines for end in (ABOVE, BELOW, "n")]
    return pd.DataFrame(rows, columns=[*DICTIONARY, "concepts", "testable", *counted])
