"""What do the figures on transcoders show in the study at hand? Captions state the finding, and n."""

from __future__ import annotations

import pandas as pd

from reasondiff.report.inputs import StudyParts, StudyTables
from reasondiff.report.transcoder_figures import points_of
from reasondiff.report.transcoder_findings import sample_words
from reasondiff.report.transcoder_tables import ALL, at_once, by_layer, is_informative, told
from reasondiff.report.wording import decimals, ends, interval, listed, number, percent, runs


def transcoder_captions(study: StudyParts, tables: StudyTables) -> dict[str, str]:
    """{figure name: caption} of the figures on transcoders."""
    rows = told(tables.summaries["transcoders"])
    return {
        "transcoder_sweep": _sweep(study, tables),
        "transcoder_layers": _layers(rows, study),
        "transcoders_at_once": _at_once(at_once(rows)),
    }


def _sweep(study: StudyParts, tables: StudyTables) -> str:
    points = points_of(tables.transcoder_sweep)
    if points.empty:
        return "No sweep was run."
    choice = tables.transcoder_choice
    ringed = ""
    if choice and choice["point"] in set(points["point"]):
        row = points.set_index("point").loc[choice["point"]]
        between = interval(row["recovered_low"], row["recovered_high"])
        ringed = f" Ringed: {choice['point']}, which recovers {decimals(row['ce_recovered'])} ({between}) at L0 "
        ringed += f"{decimals(row['l0'], 1)}; {percent(row['dead_share'])} dead, {percent(row['dense_share'])} dense."
    return (
        f"Each point by its L0. Left: the share of what mean ablation costs that the point recovers, over "
        f"{_pilot(study, tables.transcoder_sweep)}; bars are 95 % over problems.{ringed} Points of one k are drawn a "
        f"little apart. n = {number(points['n_problems'].max())} problems, {number(points['n_tokens'].max())} "
        "targets; one training of each point."
    )


def _pilot(study: StudyParts, sweep: pd.DataFrame) -> str:
    """`the informative pilot layers (0 and 5 of 0, 2 and 5), each replaced alone`."""
    rows = sweep.astype({"layer": str}).drop_duplicates("layer")
    rows = rows[rows["layer"] != ALL]
    kept = rows[[is_informative(cost, study.gates.transcoders) for cost in rows["mean_ablation_nats"]]]
    names = listed(kept["layer"]) or "none"
    return f"the informative pilot layers ({names} of {listed(rows['layer'])}), each replaced alone"


def _layers(rows: pd.DataFrame, study: StudyParts) -> str:
    alone = by_layer(rows)
    if alone.empty:
        return "No transcoder was evaluated."
    limits = study.gates.transcoders
    costs = {at: ends(alone[f"ce_increase_{at}"], number) for at in ("transcoder", "linear", "mean_ablation")}
    weak = alone[[not is_informative(cost, limits) for cost in alone["ce_increase_mean_ablation"]]]
    named = [f"{model} {runs({int(layer) for layer in rows['layer']})}" for model, rows in weak.groupby("model")]
    return (
        f"What the model loses when one layer's MLP is replaced: {costs['transcoder']} nats with a transcoder, "
        f"{costs['linear']} with the best linear map, {costs['mean_ablation']} with its mean. Grey: uninformative "
        f"layers, whose mean ablation costs under {limits.uninformative_nats:g} nats ({'; '.join(named) or 'none'}). "
        "Layers differ in what ablating them costs, so no trend over layers is read from this. "
        f"n = {sample_words(alone)}; 95 % over problems."
    )


def _at_once(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "No transcoder was evaluated."
    costs = [
        f"{row.set} {decimals(row.ce_increase_transcoder)} nats (linear maps {decimals(row.ce_increase_linear)})"
        for row in rows.itertuples()
    ]
    return (
        f"What the model loses when all MLPs of a set are replaced at once: {'; '.join(costs)}. "
        f"n = {sample_words(rows)}; 95 % over problems, one training per seed."
    )
