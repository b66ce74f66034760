"""Which tables does the page show that no stage wrote?

Each function takes the long tables of the stages, with the columns that their paths say (`report.sites.joined`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from reasondiff.config import Pair
from reasondiff.latents import ranking
from reasondiff.latents.counts import DICTIONARY
from reasondiff.latents.verdicts import verdicts
from reasondiff.statistics import bootstrap, ratio

SITE = ["pair", "text", "layer"]
SPLICED_PHASES = ("think", "answer", "response")
SPLICED = {"kl": "kl_nats", "ce_increase": "ce_increase_nats", "kl_recovered": "kl_recovered"}
SHARES = ("dead_share", "rare_share", "dense_share", "dead_rate_bound")

FIDELITY_COLUMNS = [
    *SITE, "model", "kind", "point", "seed", "at", "l0", "fve", "low", "high", "n_problems", "n_tokens",
]  # fmt: skip
CHANGE_COLUMNS = [
    "pair", "first", "other", "elicitation", "decoding", "temperature", "problems_from", "quantity", "before",
    "after", "change", "low", "high", "n_problems",
]  # fmt: skip


def fidelity(evaluations: pd.DataFrame, baselines: pd.DataFrame, pairs: Mapping[str, Pair]) -> pd.DataFrame:
    """Explained variance (unmasked tokens, `report` part) of dictionaries and baselines, one row per site, model and
    operating point.

    `kind`: crosscoder, alone (a dictionary that reads one model only), pca, linear (from the other models). `at`:
    `threshold` (the dictionary's own) or the L0 it is compared at; `l0` is the measured one at the threshold.
    Source: docs/methods.md §5.
    """
    rows = []
    for key, table in evaluations.groupby(DICTIONARY, sort=False):
        facts = dict(zip(DICTIONARY, key, strict=True))
        measured = _one(table, "l0", "pair", at="threshold")["value"]
        fve = _headline(table)
        kind = "crosscoder" if fve["model"].nunique() == len(pairs[key[0]].models) else "alone"
        for row in fve.itertuples():
            l0 = measured if row.at == "threshold" else float(row.at.removeprefix("l0="))
            rows.append({**facts, "kind": kind, "l0": l0, **_fve(row)})
    for key, table in baselines.groupby(SITE, sort=False):
        for row in _headline(table).itertuples():
            kind, l0 = ("pca", float(row.at[3:])) if row.at.startswith("pca") else ("linear", np.nan)
            rows.append({**dict(zip(SITE, key, strict=True)), "kind": kind, "l0": l0, **_fve(row)})
    return pd.DataFrame(rows, columns=FIDELITY_COLUMNS)


def _headline(table: pd.DataFrame) -> pd.DataFrame:
    wanted = (table["quantity"] == "fve") & (table["part"] == "report") & (table["phase"] == "all")
    return table[wanted & (table["mask"] == "unmasked")]


def _fve(row) -> dict:
    figures = {"fve": row.value, "low": row.low, "high": row.high, "n_problems": row.n, "n_tokens": row.n_tokens}
    return {"model": row.model, "at": row.at, **figures}


def _one(table: pd.DataFrame, quantity: str, model: str, **where: str) -> dict:
    """The one row of a long table that says `quantity` of `model`; NaN figures where it is not there."""
    chosen = (table["quantity"] == quantity) & (table["model"] == model)
    where = {"part": "report", "phase": "all", "mask": "unmasked", **where}
    for column, value in where.items():
        chosen &= table[column] == value
    names = ["value", "low", "high", "n", "n_tokens"]
    return table.loc[chosen, names].iloc[0].to_dict() if chosen.any() else dict.fromkeys(names, np.nan)


def quality(evaluations: pd.DataFrame, baselines: pd.DataFrame) -> pd.DataFrame:
    """One wide row per dictionary and model: explained variance (with and without sinks, per phase, on the held-out
    family), sparsity, dead, rare and dense shares, and what splicing the reconstruction costs beside mean ablation.

    Source: docs/methods.md §5.
    """
    floors = {key: table for key, table in baselines.groupby(SITE, sort=False)}
    rows = []
    for key, table in evaluations.groupby(DICTIONARY, sort=False):
        for model in table.loc[table["quantity"] == "fve", "model"].unique():
            floor = floors.get(key[:3], table.iloc[:0])
            rows.append({**dict(zip(DICTIONARY, key, strict=True)), "model": model, **_quality(table, floor, model)})
    return pd.DataFrame(rows, columns=None if rows else [*DICTIONARY, "model"])


def _quality(table: pd.DataFrame, floor: pd.DataFrame, model: str) -> dict:
    at = {"at": "threshold"}
    headline = _one(table, "fve", model, **at)
    row = {"fve": headline["value"], "fve_low": headline["low"], "fve_high": headline["high"]}
    row |= {"n_problems": headline["n"], "n_tokens": headline["n_tokens"]}
    row["fve_with_sinks"] = _one(table, "fve", model, mask="all", **at)["value"]
    row["fve_family"] = _one(table, "fve", model, part="family", **at)["value"]
    for phase in ("prompt", "think", "answer", "text"):
        row[f"fve_{phase}"] = _one(table, "fve", model, phase=phase, **at)["value"]
    row["l0"] = _one(table, "l0", "pair", **at)["value"]
    row["l0_training"] = _one(table, "l0", "pair", at="training_rule")["value"]
    row |= {share: _one(table, share, "pair", **at)["value"] for share in SHARES}
    row["n_latents"] = _one(table, "dead_share", "pair", **at)["n"]
    for phase in SPLICED_PHASES:
        row |= _spliced(table, floor, model, phase)
    return row


def _spliced(table: pd.DataFrame, floor: pd.DataFrame, model: str, phase: str) -> dict:
    row = {}
    for name, quantity in SPLICED.items():
        found = _one(table, quantity, model, phase=phase, at="threshold")
        row |= {f"{name}_{phase}{end and '_'}{end}": found[end or "value"] for end in ("", "low", "high")}
    row[f"n_problems_{phase}"], row[f"n_targets_{phase}"] = found["n"], found["n_tokens"]
    for at in ("mean_ablation", "identity"):
        for name in ("kl", "ce_increase"):
            row[f"{at}_{name}_{phase}"] = _one(floor, SPLICED[name], model, phase=phase, at=at)["value"]
    return row


# ------------------------------------------------------------------------------------------------ accuracy


def accuracy_changes(
    responses: pd.DataFrame, pairs: Mapping[str, Pair], min_problems: int, resamples: int, seed: int
) -> pd.DataFrame:
    """How accuracy and answer length (tokens) differ within a pair, problem by problem, where both models were asked
    in the same way; one row per elicitation, decoding, origin of the problems and quantity.

    The change (other minus first) has its 95 % interval over problems; it does not cover retraining.
    """
    rows = []
    for name, pair in pairs.items() if len(responses) else ():
        first = _by_problem(responses[responses["model"] == pair.models[0]])
        other = _by_problem(responses[responses["model"] == pair.models[-1]])
        both = first.add_suffix("_before").join(other.add_suffix("_after"), how="inner")
        for key, group in both.groupby(level=list(range(len(ASKED))), sort=False):
            facts = {"pair": name, "first": pair.models[0], "other": pair.models[-1]}
            facts |= dict(zip(ASKED, key, strict=True))
            for quantity, column in (("accuracy", "correct"), ("tokens", "tokens")):
                before, after = group[f"{column}_before"], group[f"{column}_after"]
                sums = np.stack([after - before, np.ones(len(group))], axis=1)
                change = bootstrap(sums, ratio, resamples, seed, min_problems)
                figures = {"change": change.value, "low": change.low, "high": change.high, "n_problems": change.n}
                rows.append({**facts, "quantity": quantity, "before": before.mean(), "after": after.mean(), **figures})
    return pd.DataFrame(rows, columns=CHANGE_COLUMNS)


ASKED = ["elicitation", "decoding", "temperature", "problems_from"]


def _by_problem(responses: pd.DataFrame) -> pd.DataFrame:
    """Mean correctness and length per way of asking and problem."""
    figures = responses[["correct", "tokens"]].astype(float)
    return figures.groupby([responses[name] for name in [*ASKED, "problem"]], sort=False).mean()


# ------------------------------------------------------------------------------------------------ latents


def ranked(latents: pd.DataFrame, side: str, rows: int) -> pd.DataFrame:
    """`latents.ranking.ranked` of one dictionary's latents, with the column `verdict`."""
    chosen = ranking.ranked(latents, side, rows)
    return chosen.assign(verdict=verdicts(chosen))
