"""What do the label scores of all dictionaries say together, and are exclusive latents better described than shared?

Each function takes the long tables of the stages, with the columns that their paths say (`report.sites.joined`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from reasondiff.config import Pair
from reasondiff.labels.comparison import MATCHED_COLUMNS, against_control, exclusive_against_shared, summary
from reasondiff.latents.counts import DICTIONARY

SPLITS = ("all", "tag", "layer", "phase")
ASKED = ["measure", "task", "negatives"]
FIGURES = ["value", "low", "high", "n_latents", "n_windows", "reason"]
SUMMARY_COLUMNS = ["kind", "of", *ASKED, "control", "split", "group", *FIGURES]
COMPARISON_COLUMNS = ["by", *MATCHED_COLUMNS]
DIFFERENCES = {"shuffled": "own - shuffled", "top_token": "own - top_token"}
"""The difference to each control, as the column `control` of a summary names it."""
BY_TAG, BY_DELTA = "tag", "delta"


def label_summary(crosscoders: pd.DataFrame, transcoders: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Mean label scores and their differences to the controls, for each pair and model and, in them, for each tag,
    layer and phase (`split` and `group`); unit: latents.

    `control`: own, shuffled, top_token, or one of `DIFFERENCES` (latent by latent). Figures as in
    `labels.comparison.summary`.
    """
    parts = []
    for kind, owner, scores in (("crosscoder", "pair", crosscoders), ("transcoder", "model", transcoders)):
        for split in SPLITS if len(scores) else ():
            found = [summary(scores, split, resamples, seed)]
            for control, name in DIFFERENCES.items():
                found.append(against_control(scores, control, resamples, seed, split).assign(control=name))
            parts += [table.rename(columns={owner: "of"}).assign(kind=kind) for table in found if len(table)]
    return pd.concat(parts, ignore_index=True)[SUMMARY_COLUMNS] if parts else pd.DataFrame(columns=SUMMARY_COLUMNS)


def label_comparison(
    scores: pd.DataFrame, latents: pd.DataFrame, firing: pd.DataFrame, resamples: int, seed: int
) -> pd.DataFrame:
    """Exclusive latents of either side against shared ones that fire alike, pair by pair; `by`: exclusive by `tag`, or
    by `delta` (all that lean to the model). Columns as in `labels.comparison.exclusive_against_shared`.

    `scores`, `latents` and `firing` are of crosscoders.
    """
    if scores.empty:
        return pd.DataFrame(columns=COMPARISON_COLUMNS)
    deltas = latents[[*DICTIONARY, "latent", "delta"]]
    leaning = scores.merge(deltas, on=[*DICTIONARY, "latent"], how="left", validate="many_to_one")
    parts = []
    for by, given in ((BY_TAG, scores), (BY_DELTA, leaning)):
        for side in ("reasoning", "base"):
            parts.append(exclusive_against_shared(given, firing, resamples, seed, side).assign(by=by))
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)[COMPARISON_COLUMNS]


# ------------------------------------------------------------------------------------------------ who labelled what

LABELLED_COLUMNS = [
    "of", "text", "layer", "point", "seed", "provider", "model", "asked", "labelled", "failed", "no_examples",
    "pages", "graphs", "sampled", "requests", "input_tokens", "output_tokens", "dollars",
]  # fmt: skip


def labelled(labels: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per dictionary: by whom its latents were labelled, how many got words, and what that took."""
    rows = []
    for found in labels:
        row = {name: found[name] for name in ("of", "text", "layer", "point", "seed", "provider", "model")}
        row |= {name: found["usage"][name] for name in ("requests", "input_tokens", "output_tokens", "dollars")}
        status = [latent["status"] for latent in found["latents"]]
        row |= {"asked": len(status), "labelled": status.count("labelled"), "failed": status.count("failed")}
        why = [latent["why"] for latent in found["latents"]]
        row |= {"pages": why.count("page"), "graphs": why.count("graph"), "sampled": why.count("sample")}
        rows.append({**row, "no_examples": status.count("no examples")})
    return pd.DataFrame(rows, columns=LABELLED_COLUMNS)


def failures(labels: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The latents without a label, with the reason."""
    rows = [
        {"of": found["of"], "layer": latent["layer"], "point": found["point"], "latent": latent["latent"]}
        | {"status": latent["status"], "reason": latent["reason"]}
        for found in labels
        for latent in found["latents"]
        if latent["status"] != "labelled"
    ]
    return pd.DataFrame(rows, columns=["of", "layer", "point", "latent", "status", "reason"])


# ------------------------------------------------------------------------------------------------ side by side

TAG_ORDER = ("reasoning_only", "base_only", "shared", "other", "dead", "transcoder")
PHASE_ORDER = ("template", "prompt", "think", "answer", "text")
SIDE_BY_SIDE = {"own": "own", "shuffled": "shuffled", "top_token": "top_token"}
SIDE_BY_SIDE |= {"own - shuffled": "beyond_shuffled", "own - top_token": "beyond_top_token"}
ROW = ["kind", "of", *ASKED, "split", "group"]


def beside_controls(found: pd.DataFrame, pairs: Mapping[str, Pair]) -> pd.DataFrame:
    """A summary with one row for each group: its figures as `own`, `own_low`, `shuffled`, ..., `beyond_shuffled`,
    ..., `beyond_top_token`; NaN where there were too few latents or the control was not asked.

    Effect pairs first, then controls, then models; groups in the order all, tags, layers, phases. `n_latents` and
    `n_windows` are of the own labels, `n_compared` the latents that have a shuffled label too.
    """
    found = found.astype({"group": str})
    sides = found[found["control"] == "own"].set_index(ROW)[["n_latents", "n_windows"]]
    for control, name in SIDE_BY_SIDE.items():
        rows = found[found["control"] == control].set_index(ROW)
        sides = sides.join(rows[["value", "low", "high"]].set_axis([name, f"{name}_low", f"{name}_high"], axis=1))
        if control == "own - shuffled":
            sides = sides.join(rows["n_latents"].rename("n_compared"))
    sides = sides.reset_index()
    owners = sorted(pairs, key=lambda name: pairs[name].role != "effect")
    ranks = [owners.index(of) if of in owners else len(owners) for of in sides["of"]]
    order = sides.assign(rank=ranks, place=[_place(row.split, row.group) for row in sides.itertuples()])
    order = order.sort_values(["rank", "of", *ASKED, "place"], kind="stable")
    return sides.loc[order.index].reset_index(drop=True)


def _place(split: str, group: str) -> tuple[int, int]:
    orders = {"tag": TAG_ORDER, "phase": PHASE_ORDER}
    if split in orders:
        return SPLITS.index(split), orders[split].index(group)
    return SPLITS.index(split), int(group) if split == "layer" else 0
