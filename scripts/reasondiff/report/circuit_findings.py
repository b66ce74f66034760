"""What may be said of graphs, interventions and comparisons? A sentence whose gate fails says "not found"."""

from __future__ import annotations

from typing import Any

import pandas as pd

from reasondiff.report.blocks import Finding
from reasondiff.report.circuit_tables import (
    COMPARISONS,
    FOUND,
    NOT_FOUND,
    NOT_TESTABLE,
    counts,
    headline_agreement,
    judged,
    of_comparison,
    traced,
)
from reasondiff.report.inputs import StudyParts, StudyTables
from reasondiff.report.wording import ONE_CHAIN, decimals, ends, interval, is_missing, listed, number

NAMED = 3  # measures that a sentence names


def circuit_findings(study: StudyParts, tables: StudyTables) -> list[Finding]:
    """What was found: whether graphs explain and predict, then the four comparisons."""
    found = _explanations(study, tables) if study.graphs and len(tables.graph_summary) else []
    found += _predictions(tables) if study.graphs and len(tables.graph_interventions) else []
    if study.comparisons is None:
        return found
    return found + [_compared(name, study, tables) for name in COMPARISONS]


def _explanations(study: StudyParts, tables: StudyTables) -> list[Finding]:
    made, gates = traced(tables.graph_summary), study.gates.graphs
    explaining = int(made["explains"].astype(bool).sum()) if len(made) else 0
    sentence = (
        f"{explaining} of {len(made)} graphs pass the gate (feature share at least {gates.feature_share:g}, coverage "
        f"at least {gates.coverage:g})"
    )
    if len(made):
        share = made["feature_share"]
        sentence += (
            f": latents carry {decimals(share.median(), 2)} of the last hop's influence at the median graph "
            f"({ends(share, lambda value: decimals(value, 2))})"
        )
    without = len(tables.graph_summary) - len(made)
    agreeing = made["replaced_top1"].astype(float).mean() if len(made) else float("nan")
    control = (
        f"the model with all MLPs replaced: KL {number(made['replaced_kl'].median(), 2)} nats at the median position, "
        f"the same first choice in {decimals(agreeing, 2)} of them"
        if len(made)
        else "none"
    )
    sample = f"{len(made)} graphs of {made['prompt_id'].nunique() if len(made) else 0} prompts; {without} were not made"
    return [Finding("Attribution graphs: do they explain?", sentence + ".", control, sample, ONE_CHAIN)]


def _predictions(tables: StudyTables) -> list[Finding]:
    rows = headline_agreement(tables.graph_interventions)
    rows = rows[rows["chosen"] == "stratified"]
    found = []
    for (model, seed), mine in rows.groupby(["model", "seed"], sort=False):
        by = {(row.freezing, row.prediction): row for row in mine.itertuples()}
        if not {("frozen", "total"), ("free", "total")} <= set(by):
            continue
        frozen, free = by["frozen", "total"], by["free", "total"]
        sentence = (
            f"A latent of {model} (seed {seed}) that is ablated moves the target logit the way the graph predicts in "
            f"{_signs(frozen)} of cases with attention, norms and gates frozen (slope {_slope(frozen)}, R² "
            f"{decimals(frozen.r2, 2)}), and in {_signs(free)} with nothing frozen (slope {_slope(free)}, R² "
            f"{decimals(free.r2, 2)})."
        )
        beside = [
            f"{freezing}: {_beside(by[freezing, name], said)}"
            for freezing in ("frozen", "free")
            for name, said in BASELINES.items()
            if (freezing, name) in by
        ]
        sample = f"{number(free.latents)} latents of {number(free.prompts)} prompts; interval over prompts"
        about = f"{model}, seed {seed}: does the model change as its graphs predict?"
        found.append(Finding(about, sentence, "; ".join(beside) or "none", sample))
    return found


def _signs(row: Any) -> str:
    return f"{decimals(row.sign_agreement, 2)} ({interval(row.sign_low, row.sign_high, places=2)})"


def _slope(row: Any) -> str:
    return f"{decimals(row.slope, 2)}, {interval(row.slope_low, row.slope_high, places=2)}"


BASELINES = {
    "direct": "direct edge alone",
    "baseline_logit": "activation × logit effect",
    "baseline_norm": "activation × norm",
}


def _beside(row: Any, said: str) -> str:
    sign = "" if is_missing(row.sign_agreement) else f", sign {decimals(row.sign_agreement, 2)}"
    return f"{said}: R² {decimals(row.r2, 2)}{sign}"


def _compared(name: str, study: StudyParts, tables: StudyTables) -> Finding:
    rows = of_comparison(tables.comparisons, name)
    nulls = listed(dict.fromkeys(judged(rows)["null"].dropna())) if len(rows) else ""
    tested = judged(rows)
    tested = tested[tested["verdict"] != NOT_TESTABLE] if len(tested) else tested
    n = ends(tested["n"], number) if len(tested) else "0"
    sample = f"{n} prompts; {len(tested)} tests, p adjusted over all of them; {ONE_CHAIN}"
    return Finding(f"Circuits: {COMPARISONS[name].lower()}", sentence_of(name, rows, study), nulls or "none", sample)


def sentence_of(name: str, rows: pd.DataFrame, study: StudyParts) -> str:
    """One honest sentence on a comparison: what differs beyond the null, by how much, or that nothing is found."""
    told = counts(rows)
    if not told[FOUND] and not told[NOT_FOUND]:
        reasons = listed(dict.fromkeys(judged(rows)["reason"].dropna())) if len(rows) else ""
        return f"Not testable: {reasons or 'there is nothing to compare'}."
    tested = told[FOUND] + told[NOT_FOUND]
    if not told[FOUND]:
        return f"Not found: none of {tested} measures differs beyond its null{_smallest(rows)}."
    hits = judged(rows)
    hits = hits[hits["verdict"] == FOUND].sort_values("p_adjusted", kind="stable")
    named = "; ".join(_measure(row) for row in hits.head(NAMED).itertuples())
    more = f" and {len(hits) - NAMED} more" if len(hits) > NAMED else ""
    return f"{told[FOUND]} of {tested} measures differ beyond their null: {named}{more}."


def _measure(row: Any) -> str:
    change = f"{row.difference:+.2f}".replace("-", "−")
    return (
        f"{row.measure} {change} ({interval(row.low, row.high, places=2)}; n = {row.n:.0f}, adjusted p = "
        f"{number(row.p_adjusted, 2)}; null {number(row.null_difference, 2)})"
    )


def _smallest(rows: pd.DataFrame) -> str:
    known = judged(rows)["p_adjusted"].dropna()
    return f" (smallest adjusted p {number(known.min(), 2)})" if len(known) else ""
