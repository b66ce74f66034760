"""How many latents belong to one model only, and how many more than in the control pair?

Source: docs/methods.md §1 (nulls), §4 (tags).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from reasondiff.config import Pair
from reasondiff.latents.verdicts import ABSENT, NOT_REPLICATED, REPLICATED, verdicts
from reasondiff.statistics import Estimate

DICTIONARY = ["pair", "text", "layer", "point", "seed"]
TAGS_OF_LIVE = ("reasoning_only", "base_only", "shared", "other")
SCALINGS = ("specific", "not_specific", "undetermined")
LEANING_DELTA = 0.3
"""A latent leans to the reasoning model below it and to the base above 1 - it; exclusive ones lean as well."""
MIN_LATENTS = 6  # fewer: no interval

COLUMNS = [
    *DICTIONARY, "role", "control", "group", "latents", "live", "dead", "count", "share", "share_low", "share_high",
    "control_live", "control_count", "control_share", "excess", "excess_low", "excess_high",
]  # fmt: skip


def count_latents(latents: pd.DataFrame, pairs: Mapping[str, Pair]) -> pd.DataFrame:
    """One row per dictionary and group of latents, beside the same group of the control pair's dictionary.

    `latents` are latent tables one below the other with the columns pair, text, layer, point, seed. Groups: the tags
    of live latents; `reasoning_only.*` and `base_only.*` split four ways into `template` (flagged) and, among the
    rest, the verdict of latent scaling; `*_leaning`; `*.absent`, those that may be called absent from the other
    model; `*.replicated` and `*.not_replicated`, by whether they came back in the dictionaries of other seeds.
    `share` is of the live latents (0 to 1) with its Wilson 95 % interval; `excess` is the share minus the control's,
    with Newcombe's hybrid interval. The unit is the latent of one dictionary: retraining a dictionary or a model is
    not covered. NaN without a control dictionary of the same text, layer, point and seed, and for intervals below six
    live latents.
    """
    groups = {key: _group_counts(table) for key, table in latents.groupby(DICTIONARY, sort=False)}
    sizes = {key: _sizes(table) for key, table in latents.groupby(DICTIONARY, sort=False)}
    rows = []
    for key, counts in groups.items():
        control = pairs[key[0]].control
        null = (control, *key[1:])
        facts = dict(zip(DICTIONARY, key, strict=True)) | {"role": pairs[key[0]].role, "control": control}
        for group, count in counts.items():
            beside = (groups[null][group], sizes[null]["live"]) if null in groups else None
            rows.append({**facts, "group": group, **sizes[key], **_figures(count, sizes[key]["live"], beside)})
    return pd.DataFrame(rows, columns=COLUMNS)


NULL_COLUMNS = [
    *DICTIONARY, "null", "null_pair", "group", "live", "count", "null_live", "null_count", "excess", "excess_low",
    "excess_high", "status",
]  # fmt: skip


def against_nulls(latents: pd.DataFrame, pairs: Mapping[str, Pair]) -> pd.DataFrame:
    """One row per dictionary of an effect pair, group of latents and null: the share of live latents in excess of that
    of the null pair's dictionary of the same text, layer, point and seed, with Newcombe's interval.

    `status` is `tested`, or why it cannot be: `not testable: ...`; then the excess is NaN and nothing is imputed.
    """
    by_key = dict(iter(latents.groupby(DICTIONARY, sort=False)))
    groups = {key: _group_counts(table) for key, table in by_key.items()}
    live = {key: _sizes(table)["live"] for key, table in by_key.items()}
    rows = []
    for key, counts in groups.items():
        if pairs[key[0]].role != "effect":
            continue
        for null, pair in pairs[key[0]].all_nulls().items():
            beside = (pair, *key[1:])
            facts = dict(zip(DICTIONARY, key, strict=True)) | {"null": null, "null_pair": pair, "live": live[key]}
            for group, count in counts.items():
                theirs = (groups[beside][group], live[beside]) if beside in groups else None
                rows.append(facts | {"group": group, "count": count} | _excess(count, live[key], theirs))
    return pd.DataFrame(rows, columns=NULL_COLUMNS)


def _excess(count: int, live: int, null: tuple[int, int] | None) -> dict[str, float | int | str]:
    if null is None:
        return {"status": "not testable: the null pair has no dictionary of this text, layer, point and seed"}
    known = {"null_count": null[0], "null_live": null[1]}
    if (fewest := min(live, null[1])) < MIN_LATENTS:
        return known | {"status": f"not testable: {fewest} live latents, expected {MIN_LATENTS} or more"}
    excess = newcombe(wilson(count, live), wilson(*null))
    return known | {
        "excess": excess.value, "excess_low": excess.low, "excess_high": excess.high, "status": "tested",
    }  # fmt: skip


def _sizes(table: pd.DataFrame) -> dict[str, int]:
    dead = int((table["tag"] == "dead").sum())
    return {"latents": len(table), "live": len(table) - dead, "dead": dead}


def _group_counts(table: pd.DataFrame) -> dict[str, int]:
    """{group: latents of one dictionary in it}, the same groups for every dictionary."""
    live = table[table["tag"] != "dead"]
    absent = verdicts(live) == ABSENT
    counts = {tag: int((live["tag"] == tag).sum()) for tag in TAGS_OF_LIVE}
    for tag in ("reasoning_only", "base_only"):
        tagged = live[live["tag"] == tag]
        flagged = tagged["template"].astype(bool)
        counts[f"{tag}.absent"] = int((absent & (live["tag"] == tag)).sum())
        counts[f"{tag}.template"] = int(flagged.sum())
        counts |= _came_back(tag, tagged)
        for scaling in SCALINGS:
            counts[f"{tag}.{scaling}"] = int((~flagged & (tagged["scaling"] == scaling)).sum())
    leaning = {"reasoning": live["delta"] < LEANING_DELTA, "base": live["delta"] > 1 - LEANING_DELTA}
    for side, leans in leaning.items():
        counts[f"{side}_leaning"] = int(leans.sum())
        counts[f"{side}_leaning.absent"] = int((leans & absent).sum())
        counts |= _came_back(f"{side}_leaning", live[leans])
    return counts


def _came_back(group: str, latents: pd.DataFrame) -> dict[str, int]:
    """Those of a group that came back in every other seed, and those that did not; neither where it cannot be told."""
    said = {f"{group}.{verdict}": verdict for verdict in (REPLICATED, NOT_REPLICATED)}
    return {name: int((latents["replication"] == verdict).sum()) for name, verdict in said.items()}


def _figures(count: int, live: int, control: tuple[int, int] | None) -> dict[str, float | int]:
    share = wilson(count, live)
    row = {"count": count, "share": share.value, "share_low": share.low, "share_high": share.high}
    if control is None:
        return row
    null = wilson(*control)
    excess = newcombe(share, null)
    row |= {"control_count": control[0], "control_live": control[1], "control_share": null.value}
    return row | {"excess": excess.value, "excess_low": excess.low, "excess_high": excess.high}


def wilson(count: int, total: int) -> Estimate:
    """count / total with its Wilson 95 % interval; NaN ends below `MIN_LATENTS`, all NaN for nothing."""
    if total < MIN_LATENTS:
        return Estimate(count / total if total else math.nan, math.nan, math.nan, total)
    interval = binomtest(count, total).proportion_ci(method="wilson")
    return Estimate(count / total, float(interval.low), float(interval.high), total)


def newcombe(first: Estimate, second: Estimate) -> Estimate:
    """first - second of two independent proportions, with the interval that joins their own two intervals.

    Source: Newcombe 1998, Statistics in Medicine 17, 873-890, method 10.
    """
    difference = first.value - second.value
    below = np.hypot(first.value - first.low, second.high - second.value)
    above = np.hypot(first.high - first.value, second.value - second.low)
    return Estimate(difference, float(difference - below), float(difference + above), min(first.n, second.n))
