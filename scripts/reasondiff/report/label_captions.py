"""What do the figures on labels and on known concepts show in the study at hand?"""

from __future__ import annotations

from reasondiff.report.concept_tables import all_concepts, beside_baselines, tally
from reasondiff.report.inputs import StudyParts, StudyTables
from reasondiff.report.label_figures import by_tag, first_dictionaries
from reasondiff.report.wording import ends, listed, number


def label_captions(study: StudyParts, tables: StudyTables) -> dict[str, str]:
    """{figure name: caption}."""
    said = {"label_scores": _scores(tables)}
    return {**said, "concepts": _concepts(tables)} if study.concepts is not None else said


def _scores(tables: StudyTables) -> str:
    shown = by_tag(tables.summaries["label_summary"])
    own = shown[shown["control"] == "own"]
    if own.empty:
        return "No tag has enough scored labels (6 latents) for an interval."
    compared = tables.summaries["label_summary"]
    compared = compared[(compared["split"] == "tag") & (compared["task"] == "detection")]
    compared = compared[(compared["negatives"] == "all") & (compared["control"] == "own - shuffled")]
    above, known = int((compared["low"] > 0).sum()), int(compared["low"].notna().sum())
    n = ends(own["n_latents"], number)
    return (
        f"Label scores by tag ({listed(own['measure'].unique())}): detection, filled for the latents' own labels, open "
        f"for the controls. Own labels score above shuffled ones in {above} of {known} groups, by the interval of the "
        f"difference. n = {n} latents; 95 % over latents."
    )


def _concepts(tables: StudyTables) -> str:
    found = all_concepts(tables.concepts, tables.transcoder_concepts.iloc[:0])
    shown = first_dictionaries(found)
    if shown.empty:
        return "No concept was measured in a crosscoder."
    f1 = beside_baselines(found, "f1")
    counted = tally(f1[f1["tag"] == "all"], "f1").merge(
        shown[["of", "text", "layer", "point", "seed"]].drop_duplicates()
    )
    told = [
        f"{row.of}, layer {row.layer}: above the best neuron in {row.neuron_above} of {row.testable}, below in "
        f"{row.neuron_below}"
        for row in counted.itertuples()
    ]
    return (
        f"F1 of the best latent for concepts known token by token, beside its baselines. {'; '.join(told)} (intervals "
        f"that do not overlap). First point and seed of each site; n = {number(shown['n_problems'].max())} problems at "
        "most; 95 % over problems. Picked on the part choose, shown on score."
    )
