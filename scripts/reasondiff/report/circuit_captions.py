"""What do the figures on circuits show in the study at hand? The finding, computed from the data, and n."""

from __future__ import annotations

from reasondiff.report.circuit_findings import sentence_of
from reasondiff.report.circuit_tables import (
    COMPARISONS,
    headline_agreement,
    headline_profiles,
    of_comparison,
    shown_motifs,
    traced,
)
from reasondiff.report.inputs import StudyParts, StudyTables
from reasondiff.report.wording import decimals, ends, number


def circuit_captions(study: StudyParts, tables: StudyTables) -> dict[str, str]:
    """{figure name: caption}."""
    said = {}
    if study.graphs:
        said |= {"graph_scores": _scores(study, tables), "interventions": _interventions(tables)}
    if study.comparisons:
        said["motif_profiles"] = _motifs(study, tables)
        said |= {f"comparison_{name}": _comparison(name, study, tables) for name in COMPARISONS}
    return said


def _scores(study: StudyParts, tables: StudyTables) -> str:
    made = traced(tables.graph_summary)
    if made.empty:
        return "No graph was made."
    return (
        f"What latents carry in each graph (a dot; bars are medians): n = {len(made):,} graphs of "
        f"{made['prompt_id'].nunique()} prompts. Median feature share {decimals(made['feature_share'].median(), 2)}; "
        f"the dotted line is the gate at {study.gates.graphs.feature_share:g}."
    )


def _interventions(tables: StudyTables) -> str:
    shown = headline_agreement(tables.graph_interventions)
    if shown.empty:
        return "No intervention was made."
    total = shown[(shown["prediction"] == "total") & (shown["chosen"] == "stratified")]
    frozen, free = (total[total["freezing"] == freezing] for freezing in ("frozen", "free"))

    def two(value: float) -> str:
        return decimals(value, 2)

    return (
        "Latents ablated in the model itself: measured change of the target logit on what the graph predicts (all "
        "paths, the direct edge) and on two baselines. All paths: sign agreement "
        f"{ends(frozen['sign_agreement'], two)} frozen, {ends(free['sign_agreement'], two)} free; slope "
        f"{ends(frozen['slope'], two)} and {ends(free['slope'], two)}. n = {ends(total['latents'], number)} latents of "
        f"{ends(total['prompts'], number)} prompts a row; 95 % intervals over prompts."
    )


def _motifs(study: StudyParts, tables: StudyTables) -> str:
    shown = headline_profiles(tables.motif_profiles, study.motifs)
    names = shown_motifs(shown)
    if not names:
        return "No motif has an interval."
    shown = shown[shown["motif"].isin(names)]
    return (
        f"The {len(names)} motifs that stand out most, beside our null (typed, {study.motifs.samples} graphs each): "
        f"mean over prompts of ln(observed / null) with 95 % intervals; n = {ends(shown['prompts'], number)} prompts a "
        "mark."
    )


def _comparison(name: str, study: StudyParts, tables: StudyTables) -> str:
    rows = of_comparison(tables.comparisons, name)
    told = rows["n"].dropna() if len(rows) else []
    n = f"n = {ends(told, number)} prompts; 95 % intervals over prompts." if len(told) else ""
    return f"{COMPARISONS[name]}. {sentence_of(name, rows, study)} {n}".strip()
