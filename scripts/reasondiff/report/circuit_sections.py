"""What stands in the sections on prompts, attribution graphs, motifs and comparisons?"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import pandas as pd

from reasondiff.report.blocks import (
    Cell,
    Column,
    Details,
    Figure,
    Links,
    Paragraph,
    Section,
    figures,
    table,
    two_counts,
    words,
)
from reasondiff.report.circuit_figures import PREDICTIONS
from reasondiff.report.circuit_findings import sentence_of
from reasondiff.report.circuit_tables import (
    COMPARISONS,
    by_target,
    headline_profiles,
    of_comparison,
    shown_motifs,
    with_costs,
)
from reasondiff.report.inputs import StudyParts, StudyTables
from reasondiff.report.wording import decimals, is_missing, number, percent

VIEWER = "report/graphs/viewer.html"
_two = functools.partial(decimals, places=2)
LOOKS = {"found": "pass", "not found": "fail", "not testable": "not-testable"}

RULES = {
    "boxed": "the token that begins the content of the last box",
    "first": "the first token after the think phase",
    "matched_entropy": "where the model is about as uncertain as at its answer, in a context that is not much shorter",
    "middle": "the middle of the think phase",
}


def circuits(study: StudyParts, tables: StudyTables, drawn: Mapping[str, Figure]) -> list[Section]:
    """Prompts, graphs, motifs and comparisons, as far as the study has them."""
    found = [prompts(study, tables)] if study.prompts else []
    found += [graphs(study, tables, drawn)] if study.graphs else []
    found += [motifs(study, tables, drawn)] if study.motifs and study.comparisons else []
    return found + ([comparisons(study, tables, drawn)] if study.comparisons else [])


# ------------------------------------------------------------------------------------------------ prompts


def prompts(study: StudyParts, tables: StudyTables) -> Section:
    """How often the models answer the benchmark prompts rightly, and which tokens are explained."""
    settings, accuracy = study.prompts, tables.prompt_accuracy
    asked = ", ".join(f"{model} with “{how}”" for model, how in settings.elicitations.items())
    first = (
        f"Prompts with known answers ({settings.file}), each answered greedily and {settings.samples} times at "
        f"temperature {settings.temperature:g} ({asked}). Responses are judged against the expected answer by the rule "
        "that each prompt names; prompts without one are not judged."
    )
    rules = (
        f"Explained are tokens that {settings.reasoning} is about to say: after the last token of the prompt; within "
        f"the think phase ({RULES[settings.think_target]}); and at the answer ({RULES[settings.answer_target]}). Of "
        "the sampled responses a correct and an incorrect one to the same prompt, those nearest in length, are "
        "explained at the answer as well."
    )
    if settings.base is not None:
        rules += (
            f" {settings.base} is traced on the same tokens, positions and target tokens (the response as a forced "
            "prefix), and at the answer of its own greedy continuation, which is a separate row."
        )
    blocks: list[object] = [Paragraph(first)]
    if accuracy.empty:
        return Section("prompts", "Benchmark prompts", [*blocks, Paragraph("No prompt was answered (n = 0).")])
    whole = accuracy[accuracy["category"] == "all"]
    blocks.append(table("Accuracy over all prompts, with 95 % intervals over prompts.", whole, _accuracy_columns()))
    by_category = accuracy[accuracy["category"] != "all"]
    blocks.append(Details("By category", [table("", by_category, _accuracy_columns())]))
    return Section("prompts", "Benchmark prompts", [*blocks, Paragraph(rules)])


def _accuracy_columns() -> list[Column]:
    def share(row: object) -> Cell:
        if is_missing(row.accuracy):
            return Cell("not judged", "", "number")
        ends = "" if is_missing(row.low) else f" ({100 * row.low:.0f} to {100 * row.high:.0f})"
        return Cell(f"{percent(row.accuracy, 0)}{ends}", float(row.accuracy), "number")

    columns = [words("model", "model"), words("asked with", "elicitation"), words("decoding", "decoding")]
    columns += [words("category", "category"), Column("correct", share)]
    columns += [figures("n prompts", "prompts", number), figures("judged", "judged", number)]
    columns += [figures("responses each", "samples", number)]
    whole = functools.partial(percent, places=0)
    return [*columns, figures("closed think", "closed_share", whole), figures("truncated", "truncated_share", whole)]


# ------------------------------------------------------------------------------------------------ graphs


def graphs(study: StudyParts, tables: StudyTables, drawn: Mapping[str, Figure]) -> Section:
    """What the graphs hold, whether they explain, and whether the model changes as they predict."""
    settings, gates, summary = study.graphs, study.gates.graphs, tables.graph_summary
    limit = "all" if settings.max_features is None else f"the {settings.max_features:,} most influential"
    first = (
        "Each graph says which latents, errors and embeddings add how much to a token that the model is about to say, "
        f"with every MLP read through its transcoder. Nodes are {limit} latents of the last {settings.window} tokens; "
        f"shown and counted is the part that carries {percent(settings.prune_nodes, 0)} of the influence. A graph is "
        f"called an explanation only if latents carry at least {gates.feature_share:g} of the influence of the last "
        f"hop and {percent(gates.coverage, 0)} of the blocks have a transcoder. Replacement and completeness alone "
        "prove little: wrongly loaded transcoders raise them. So the model is also run with all MLPs replaced."
    )
    blocks: list[object] = [Paragraph(first)]
    if summary.empty:
        return Section("graphs", "Attribution graphs", [*blocks, Paragraph("No graph was made (n = 0).")])
    blocks.append(Links([("Walk through the graphs", VIEWER)]))
    blocks += [drawn["graph_scores"]] if "graph_scores" in drawn else []
    note = (
        "Medians over graphs; top-1: share of graphs at whose position the model with all MLPs replaced says the same."
    )
    blocks.append(table(note, by_target(summary), _score_columns()))
    blocks += _without_graph(summary)
    blocks.append(_reused(tables.graph_latents))
    whole = with_costs(summary, tables.graph_costs)
    blocks.append(Details(f"All {len(summary):,} graphs", [table(COSTS, whole, _graph_columns())]))
    return Section("graphs", "Attribution graphs", [*blocks, *_interventions(tables.graph_interventions, drawn)])


COSTS = "Seconds are a graph's own, with its interventions; GiB the most that its job had held by then."


def _score_columns() -> list[Column]:
    def explaining(row: object) -> Cell:
        look = "pass" if row.graphs and row.explaining == row.graphs else "fail" if row.graphs else "not-testable"
        return Cell(f"{row.explaining} of {row.graphs}", float(row.explaining), look)

    columns = [words("model", "model"), figures("seed", "seed", number), words("target", "target")]
    columns += [Column("explain (of made)", explaining), figures("p of token", "probability", _two)]
    columns += [figures("latents", "features", number), figures("nodes", "nodes", number, "of the part that is shown")]
    columns += [figures("edges", "edges", number, "of the part that is shown")]
    columns += [figures("feature share", "feature_share", _two), figures("via latents", "tokens_via_features", _two)]
    columns += [
        figures("replaced", "replacement", _two, "replacement score"),
        figures("complete", "completeness", _two),
    ]
    columns += [figures("coverage", "coverage", _two)]
    columns += [figures("included", "included", _two, "influence of all firing latents that the attributed ones carry")]
    return [*columns, figures("KL, nats", "replaced_kl", number), figures("top-1", "agreeing", _two)]


def _without_graph(summary: pd.DataFrame) -> list[object]:
    """Which graphs there are not, and why; nothing where all are there."""
    missing = summary[summary["status"] != "traced"]
    if missing.empty:
        return []
    columns = [words("model", "model"), figures("seed", "seed", number), words("prompt", "prompt_id")]
    columns += [words("target", "target"), words("status", "status"), words("why", "reason")]
    failed = int((missing["status"] == "failed").sum())
    said = f"{len(missing)} of {len(summary)} graphs were not made ({failed} failed; the next run tries those again)"
    return [Details(said, [table("", missing, columns)])]


def _reused(latents: pd.DataFrame) -> Details:
    columns = [words("model", "model"), figures("seed", "seed", number), figures("layer", "layer", number)]
    columns += [figures("latent", "latent", lambda value: f"{value:.0f}"), figures("graphs", "graphs", number)]
    columns += [figures("prompts", "prompts", number), figures("influence, summed", "influence", number)]
    shown = latents.groupby(["model", "seed"], sort=False).head(15) if len(latents) else latents
    note = "The latents that stand in most graphs (15 of each model and seed)."
    return Details("Most reused latents", [table(note, shown, columns)])


def _graph_columns() -> list[Column]:
    columns = [words("model", "model"), figures("seed", "seed", number), words("prompt", "prompt_id")]
    columns += [words("target", "target"), words("token", "target_token", look="mono")]
    columns += [figures("p", "probability", _two), figures("tokens", "tokens", number)]
    columns += [figures("latents", "features", number), figures("nodes", "nodes", number)]
    columns += [figures("edges", "edges", number), figures("feature share", "feature_share", _two)]
    parts = {"share_skip": "of it skip", "share_layer0": "layer 0", "share_target_position": "target position"}
    columns += [figures(title, name, _two) for name, title in {**parts, "share_rest": "rest"}.items()]
    columns += [figures("via latents", "tokens_via_features", _two), figures("replacement", "replacement", _two)]
    columns += [figures("completeness", "completeness", _two), figures("depth", "depth", _two)]
    columns += [figures("crossing", "crossing_share", _two), figures("KL replaced", "replaced_kl", number)]
    columns += [figures("s", "seconds", _two), figures("GiB", "peak_memory_gib", _two)]
    return [*columns, words("refused", "refused")]


def _interventions(agreement: pd.DataFrame, drawn: Mapping[str, Figure]) -> list[object]:
    if agreement.empty:
        return [Paragraph("No intervention was made (n = 0).")]
    note = (
        "Latents ablated (factor 0) or doubled (2) in the model's own MLPs: the measured change of the demeaned target "
        "logit against what the graph predicts, along all paths or the direct edge alone, beside two baselines that "
        "need no graph. Drawn evenly over quantiles of the predicted effect, and matched random latents. Frozen: "
        "attention patterns, norm scales and MLP gates held; free: nothing held. Intervals over prompts."
    )
    blocks: list[object] = [drawn["interventions"]] if "interventions" in drawn else []
    whole = agreement[agreement["phase"] == "all"]
    blocks.append(Details(f"Interventions ({len(whole)} rows)", [table(note, whole, _agreement_columns())]))
    return blocks


def _agreement_columns() -> list[Column]:
    def prediction(row: object) -> Cell:
        said = PREDICTIONS.get(row.prediction, row.prediction)
        return Cell(said, said)

    def interval_of(title: str, name: str, column: str) -> Column:
        def cell(row: object) -> Cell:
            return _with_ends(*(getattr(row, one) for one in (column, f"{name}_low", f"{name}_high")))

        return Column(title, cell)

    columns = [words("model", "model"), figures("seed", "seed", number), words("latents", "chosen")]
    columns += [Column("prediction", prediction), words("model is", "freezing"), figures("factor", "factor", number)]
    columns += [interval_of("slope", "slope", "slope"), interval_of("R²", "r2", "r2")]
    columns += [interval_of("sign agreement", "sign", "sign_agreement"), figures("Spearman", "spearman", _two)]
    return [*columns, two_counts("n latents (prompts)", "latents", "prompts")]


# ------------------------------------------------------------------------------------------------ motifs


def motifs(study: StudyParts, tables: StudyTables, drawn: Mapping[str, Figure]) -> Section:
    """Which small patterns are more frequent than under our null."""
    settings, profiles = study.motifs, tables.motif_profiles
    first = (
        "Patterns of three nodes in the pruned graphs, by the kinds of their nodes and by the signs of their edges, "
        f"beside {settings.samples:,} graphs drawn from each null model. Our null, typed, keeps of every node the "
        "number of edges to and from each kind of node, and of every edge the layers it joins, whether it stays at its "
        "position, and that it never runs to an earlier token. Patterns whose number the null fixes are left out; of "
        "the patterns without kinds and signs only the feed-forward loop is reported, since the others follow from it."
    )
    blocks: list[object] = [Paragraph(first)]
    blocks += [drawn["motif_profiles"]] if "motif_profiles" in drawn else []
    shown = headline_profiles(profiles, settings)
    if shown.empty:
        return Section("motifs", "Motifs", [*blocks, Paragraph("No motif was counted (n = 0).")])
    chosen = shown[shown["motif"].isin(shown_motifs(shown))]
    note = "Effects under the null typed: mean over prompts of ln(observed / null), with 95 % intervals over prompts."
    blocks.append(Paragraph(_passing(shown, study.comparisons.false_discovery_rate)))
    blocks.append(Details(f"The motifs of the figure ({len(chosen)} rows)", [table(note, chosen, _profile_columns())]))
    rest = Details(f"All effects, nulls and thresholds ({len(profiles):,} rows)", [_all_profiles(profiles)])
    return Section("motifs", "Motifs", [*blocks, rest])


def _passing(shown: pd.DataFrame, rate: float) -> str:
    """How many effects are more than the null gives."""
    passing = shown[shown["p_adjusted"] <= rate]
    tested = f"{len(shown)} effects ({shown['source'].nunique()} sources, {shown['motif'].nunique()} motifs, by phase)"
    if passing.empty:
        least = number(shown["p_adjusted"].min(), 2)
        return f"Not found: none of {tested} is beyond its null at an adjusted p of {rate:g} (smallest {least})."
    return f"{len(passing)} of {tested} are beyond their null at an adjusted p of {rate:g}."


def _profile_columns() -> list[Column]:
    def effect(row: object) -> Cell:
        return _with_ends(row.log_ratio, row.low, row.high)

    def stable(row: object) -> Cell:
        said = "–" if is_missing(row.sign_stable) else "yes" if row.sign_stable else "no"
        return Cell(said, said)

    columns = [words("graphs of", "source"), words("phase", "phase"), words("motif", "motif")]
    columns += [Column("ln(observed / null)", effect), figures("Δ", "delta", _two), figures("p", "p_adjusted", number)]
    columns += [two_counts("n prompts (graphs)", "prompts", "graphs"), Column("same sign at all thresholds", stable)]
    columns += [figures("mobility", "mobility", _two, "share of edges that differ between null and graph")]
    return [*columns, figures("rank", "rank", number, "of the counts' covariance under the null")]


def _all_profiles(profiles: pd.DataFrame) -> object:
    columns = [words("null", "null"), figures("node share", "node_share", _two), words("family", "family")]
    return table("", profiles, [*columns, *_profile_columns()])


# ------------------------------------------------------------------------------------------------ comparisons


def comparisons(study: StudyParts, tables: StudyTables, drawn: Mapping[str, Figure]) -> Section:
    """The four comparisons, each with its sentence, figure and table."""
    first = (
        "A difference is called found only if its p-value, adjusted over all tests of the comparison "
        f"(Benjamini-Hochberg, false discovery rate {study.comparisons.false_discovery_rate:g}), allows it and its "
        "null does not reproduce it. Two seeds of transcoders are one draw of what seeds do: an effect of the seed "
        "that is alike on all prompts would pass for found."
    )
    blocks: list[object] = [Paragraph(first)]
    for name, title in COMPARISONS.items():
        rows = of_comparison(tables.comparisons, name)
        blocks += [Paragraph(f"{title}. {sentence_of(name, rows, study)}")]
        blocks += [drawn[f"comparison_{name}"]] if f"comparison_{name}" in drawn else []
        blocks.append(Details(f"{title}: {len(rows)} rows", [table("", rows, _comparison_columns())]))
    blocks += _split(tables.split)
    return Section("comparisons", "Comparisons of circuits", blocks)


def _comparison_columns() -> list[Column]:
    def difference(row: object) -> Cell:
        return _with_ends(row.difference, row.low, row.high)

    def null(row: object) -> Cell:
        return _with_ends(row.null_difference, row.null_low, row.null_high)

    columns = [words("measure", "measure"), words("of", "measure_family"), words("a", "group_a"), words("b", "group_b")]
    columns += [figures("a", "value_a", number), figures("b", "value_b", number), Column("a − b", difference)]
    columns += [figures("n prompts", "n", number), figures("p", "p", number), figures("adjusted", "p_adjusted", number)]
    return [*columns, words("null", "null"), Column("null's difference", null), _verdict()]


def _with_ends(value: float, low: float, high: float) -> Cell:
    if is_missing(value):
        return Cell("–", "", "number")
    ends = "" if is_missing(low) else f" ({_two(low)} to {_two(high)})"
    return Cell(_two(value) + ends, float(value), "number")


SPLIT = (
    "How much of the change between two models' graphs of the same prompts is usage (which latents fire, and how "
    "strongly) and how much is wiring (how much one adds to another per unit); 0: the graphs are equal, 1: they have "
    "nothing in common. The null is the base read with two seeds of its transcoders, whose latents can only be matched "
    "by what they read and write. Against the base's other seed the models are compared in just that way; against the "
    "first seed, as which the reasoning model's transcoders began, by number as well, and there a change may also come "
    "of their longer training."
)


def _split(split: pd.DataFrame) -> list[object]:
    """The split into usage and wiring over all targets, and target by target."""
    if split.empty:
        return []
    whole = split[split["target"] == "all"]
    rest = split[split["target"] != "all"]
    details = Details(f"Target by target ({len(rest)} rows)", [table("", rest, _split_columns())])
    return [table(SPLIT, whole, _split_columns()), details]


def _split_columns() -> list[Column]:
    def contrast(row: object) -> Cell:
        said = f"{row.first} − {row.second}"
        return Cell(said, said, "name")

    def value(name: str) -> Column:
        prefix = "" if name == "value" else f"{name.removesuffix('_value')}_"
        title = {"value": "value", "null_value": "null", "difference": "value − null"}[name]
        ends = (f"{prefix}low", f"{prefix}high")
        return Column(title, lambda row: _with_ends(getattr(row, name), *(getattr(row, end) for end in ends)))

    shown = [Column("graphs", contrast), words("latents matched by", "correspondence"), words("target", "target")]
    shown += [words("quantity", "quantity"), value("value"), value("null_value"), value("difference")]
    return [*shown, figures("n prompts", "n", number), figures("adjusted p", "p_adjusted", number), _verdict()]


def _verdict() -> Column:
    def cell(row: object) -> Cell:
        if is_missing(row.verdict):
            return Cell("the null", "", "quiet")
        more = "" if is_missing(row.reason) else str(row.reason)
        return Cell(row.verdict, row.verdict, LOOKS.get(row.verdict, ""), more)

    return Column("verdict", cell)
