"""Are the study's own instruments good enough to be believed: pass, fail, or not testable?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from reasondiff.config import Gates, Pair
from reasondiff.latents.counts import DICTIONARY
from reasondiff.report.judging import COLUMNS, NOT_TESTABLE, gate_row
from reasondiff.report.transcoder_gates import transcoder_rows

UNINFORMATIVE_NATS = 0.02
"""A site whose mean ablation costs less says nothing about recovery. Source: docs/methods.md §6."""
QUESTIONS = {
    "foreign_share": "Do both models know the tokens they read?",
    "nats_per_byte_gap": "Does each model read well under the declared tokenizer?",
    "min_problems": "Are there enough problems for an interval?",
    "fve": "Does the dictionary explain the activations of each model?",
    "dead_share": "Is the dictionary used? (dead latents)",
    "dense_share": "Is it sparse? (latents that fire on over 10 % of tokens)",
    "spliced_kl_recovered": "Does the model still work with the reconstruction in place? (against mean ablation)",
}


def judge_gates(
    quality: pd.DataFrame,
    checks: pd.DataFrame,
    alignment: Iterable[Mapping],
    transcoders: pd.DataFrame,
    pairs: Mapping[str, Pair],
    gates: Gates,
    scale: str,
) -> pd.DataFrame:
    """One row per gate and thing it is asked of. `quality` is `report.tables.quality`; `checks` the tokenizer check
    with the column text; `alignment` reports with the keys pair and text; `transcoders` is
    `report.transcoder_tables.faithfulness`. Of several models the worst is shown.

    Dictionaries of one model alone are baselines and pass no gate. `scale` labels the whole: tiny or real.
    """
    rows = [
        *(_foreign(report, gates) for report in alignment),
        *(row for name, pair in pairs.items() for row in _reading(name, pair, checks, gates)),
    ]
    for key, table in quality.groupby(DICTIONARY, sort=False):
        if len(table) == len(pairs[key[0]].models):
            rows += _dictionary("{}/{}/layer{}/{}/seed{}".format(*key), table, gates)
    rows += transcoder_rows(transcoders, gates)
    return pd.DataFrame([{"model": "", "remark": "", **row, "scale": scale} for row in rows], columns=COLUMNS)


def _foreign(report: Mapping, gates: Gates) -> dict:
    of = f"{report['pair']}/{report['text']}"
    return gate_row(
        "foreign_share", of, "at most", gates.foreign_share, report["foreign_share"], report["tokens"], "tokens"
    )


def _reading(name: str, pair: Pair, checks: pd.DataFrame, gates: Gates) -> Iterable[dict]:
    """How much worse the pair's worst reader does under the declared tokenizer than under its best one (fp32)."""
    for text in pair.texts:
        gaps = {}
        for model in pair.models if len(checks) else ():
            mine = checks[(checks["model"] == model) & (checks["text"] == text) & (checks["dtype"] == "float32")]
            declared = mine[(mine["tokenizer"] == pair.tokenizer) & mine["readable"].astype(bool)]
            if len(declared) and mine["tokenizer"].nunique() > 1:
                gap = declared["nats_per_byte"].iloc[0] - mine["nats_per_byte"].min()
                gaps[model] = (float(gap), int(declared["n_problems"].iloc[0]))
        worst = max(gaps, key=lambda model: gaps[model][0], default="")
        value, n = gaps.get(worst, (float("nan"), 0))
        remark = "" if gaps else "the study has one readable tokenizer: nothing to compare with"
        of = f"{name}/{text}"
        threshold = gates.nats_per_byte_gap
        yield gate_row("nats_per_byte_gap", of, "at most", threshold, value, n, "problems", model=worst, remark=remark)


def _dictionary(of: str, table: pd.DataFrame, gates: Gates) -> list[dict]:
    first = table.iloc[0]
    fewest = table[["n_problems", "n_problems_response"]].min(axis=None)
    return [
        gate_row("min_problems", of, "at least", gates.min_problems, fewest, fewest, "problems"),
        _worst("fve", of, gates.fve, table, "fve", "n_problems"),
        gate_row("dead_share", of, "at most", gates.dead_share, first["dead_share"], first["n_latents"], "latents"),
        gate_row("dense_share", of, "at most", gates.dense_share, first["dense_share"], first["n_latents"], "latents"),
        _recovered(of, table, gates),
    ]


def _worst(gate: str, of: str, threshold: float, table: pd.DataFrame, column: str, n: str, **more: str) -> dict:
    """The model with the lowest figure; not testable as soon as one model has none."""
    missing = table[table[column].isna()]
    worst = missing.iloc[0] if len(missing) else table.loc[table[column].idxmin()]
    return gate_row(gate, of, "at least", threshold, worst[column], worst[n], "problems", model=worst["model"], **more)


def _recovered(of: str, table: pd.DataFrame, gates: Gates) -> dict:
    costs = table["mean_ablation_kl_response"]
    row = _worst(
        "spliced_kl_recovered", of, gates.spliced_kl_recovered, table, "kl_recovered_response", "n_problems_response"
    )
    if (costs < UNINFORMATIVE_NATS).any():
        remark = f"mean ablation costs {costs.min():.3g} nats only: there is little to recover"
        return {**row, "verdict": NOT_TESTABLE, "remark": remark}
    return row
