"""Do transcoders imitate their MLPs well enough to be read in their place?

Nats alone can be gamed: some layers cost nothing when they are ablated. So a layer is also judged by the share that it
recovers, and not at all where there is nothing to recover. Source: docs/methods.md §6.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from reasondiff.config import Gates, TranscoderGates
from reasondiff.report.judging import NOT_TESTABLE, gate_row
from reasondiff.report.transcoder_tables import SET, at_once, by_layer, is_informative, told
from reasondiff.report.wording import Number, is_missing, number

LAYER_GATES = {
    "transcoder_ce_increase": "Does the model keep its loss with this MLP replaced? (CE increase, nats)",
    "transcoder_recovered_mean": "How much of what mean ablation costs does the transcoder give back?",
    "transcoder_recovered_linear": "How much of what the best linear map costs does it give back?",
    "transcoder_dead": "Is the transcoder used? (dead latents)",
    "transcoder_dense": "Is it sparse? (latents that fire on over 10 % of tokens)",
}
SET_GATES = {
    "transcoder_min_problems": "Are there enough problems for an interval?",
    "transcoder_all_layers": "Does the model keep its loss with all MLPs of the set replaced? (CE increase, nats)",
    "transcoder_top1_excess": "Does it then agree with itself more often than with linear maps in their place? "
    "(top-1, lower end of the paired interval)",
}
QUESTIONS = {**LAYER_GATES, **SET_GATES}


def transcoder_rows(faithfulness: pd.DataFrame, gates: Gates) -> list[dict[str, Any]]:
    """Rows of the table of gates for every layer and set of `report.transcoder_tables.faithfulness`: its headline
    figures of the `report` part, sinks and first positions left alone."""
    rows: list[dict[str, Any]] = []
    for _, of_set in told(faithfulness).groupby(SET, sort=False) if len(faithfulness) else ():
        for row in by_layer(of_set).to_dict("records"):
            rows += _layer(row, gates.transcoders)
        for row in at_once(of_set).to_dict("records"):
            rows += _set(row, of_set, gates)
    return rows


def _layer(row: dict[str, Any], gates: TranscoderGates) -> list[dict[str, Any]]:
    of, n, latents = row["place"], row["n_spliced_problems"], row["n_latents"]
    cost = row["ce_increase_transcoder"]
    recovered = {floor: row[f"recovered_{floor}"] for floor in ("mean", "linear")}
    remarks = _remarks(row["ce_increase_mean_ablation"], row["ce_increase_linear"], gates)
    return [
        gate_row("transcoder_ce_increase", of, "at most", gates.ce_increase_nats, cost, n, "problems"),
        *(
            gate_row(
                f"transcoder_recovered_{floor}", of, "at least", getattr(gates, f"recovered_{floor}"), value, n,
                "problems", **remarks[floor],
            )
            for floor, value in recovered.items()
        ),
        gate_row("transcoder_dead", of, "at most", gates.dead_share, row["dead_share"], latents, "latents"),
        gate_row("transcoder_dense", of, "at most", gates.dense_share, row["dense_share"], latents, "latents"),
    ]  # fmt: skip


def _remarks(mean_nats: Number, linear_nats: Number, gates: TranscoderGates) -> dict[str, dict[str, str]]:
    """{floor: verdict and remark that go before the rule}; nothing where the floor costs enough to be judged by."""
    if not is_informative(mean_nats, gates):
        said = "uninformative: " + _costs("ablating", mean_nats)
        return {floor: {"verdict": NOT_TESTABLE, "remark": said} for floor in ("mean", "linear")}
    if not is_informative(linear_nats, gates):
        return {"mean": {}, "linear": {"verdict": NOT_TESTABLE, "remark": _costs("the linear map", linear_nats)}}
    return {"mean": {}, "linear": {}}


def _costs(what: str, nats: Number) -> str:
    return f"what {what} costs is not known" if is_missing(nats) else f"{what} costs {number(nats, 2)} nats"


def _set(row: dict[str, Any], of_set: pd.DataFrame, gates: Gates) -> list[dict[str, Any]]:
    of, n = row["place"], row["n_spliced_problems"]
    samples = of_set[["n_problems", "n_spliced_problems"]].to_numpy(dtype=float)
    known = samples[~pd.isna(samples)]
    fewest = float(known.min()) if len(known) else math.nan
    cost, limit = row["ce_increase_transcoder"], gates.transcoders.all_layers_ce_increase_nats
    return [
        gate_row("transcoder_min_problems", of, "at least", gates.min_problems, fewest, fewest, "problems"),
        gate_row("transcoder_all_layers", of, "at most", limit, cost, n, "problems"),
        gate_row("transcoder_top1_excess", of, "more than", 0.0, row["top1_excess_low"], n, "problems"),
    ]
