"""What stands in the sections on dictionaries and latents?"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import pandas as pd

from reasondiff.config import Pair
from reasondiff.latents.counts import DICTIONARY, LEANING_DELTA
from reasondiff.latents.verdicts import ABSENT, DECODABLE, WRITTEN_DIFFERENTLY
from reasondiff.report.blocks import (
    Cell,
    Column,
    Details,
    Figure,
    Paragraph,
    Section,
    figures,
    table,
    two_counts,
    with_interval,
    words,
)
from reasondiff.report.inputs import StudyParts, StudyTables
from reasondiff.report.latent_findings import share_columns
from reasondiff.report.sites import SITE_FIGURES, figure_name, shown_sites
from reasondiff.report.tables import SPLICED_PHASES, ranked
from reasondiff.report.wording import decimals, is_missing, number, percent


def key_columns(frame: pd.DataFrame) -> list[Column]:
    """Pair and dictionary; the text only where there are several."""

    def dictionary(row: object) -> Cell:
        said = f"layer {row.layer}, {row.point}, seed {row.seed:.0f}"
        return Cell(said, said, "name")

    text = [words("text", "text")] if frame["text"].nunique() > 1 else []
    return [words("pair", "pair", look="name"), *text, Column("dictionary", dictionary)]


NAMES = {"fve_prompt": "prompt", "fve_think": "think", "fve_answer": "answer", "fve_text": "plain text"}


def sites_of(frame: pd.DataFrame) -> list[str]:
    """The sites `pair/text/layerN` of a table, in its order."""
    keys = frame[["pair", "text", "layer"]].drop_duplicates() if len(frame) else frame
    return [f"{row.pair}/{row.text}/layer{row.layer}" for row in keys.itertuples()]


# ------------------------------------------------------------------------------------------------ dictionaries


def dictionaries(study: StudyParts, tables: StudyTables, drawn: Mapping[str, Figure]) -> Section:
    """Explained variance beside its baselines, sparsity, and the cost of splicing."""
    fidelity, quality = tables.summaries["fidelity"], tables.summaries["quality"]
    if quality.empty:
        return Section("dictionaries", "Dictionaries", [Paragraph("No dictionary was trained.")])
    blocks: list[object] = [
        drawn[name] for site in sites_of(fidelity) if (name := figure_name("fidelity", site)) in drawn
    ]
    matched = fidelity[~((fidelity["kind"] == "crosscoder") & (fidelity["at"] == "threshold"))]
    blocks += [
        _quality(quality),
        _sparsity(quality),
        *_spliced(quality),
        Details(f"Baselines and matched L0 ({len(matched)} rows)", [_matched(matched)]),
    ]
    return Section("dictionaries", "Dictionaries", blocks)


def _quality(quality: pd.DataFrame) -> object:
    columns = [
        *key_columns(quality),
        words("model", "model"),
        figures("L0", "l0", lambda value: decimals(value, 1)),
        with_interval("FVE", "fve"),
    ]
    measured = {name: title for name, title in NAMES.items() if quality[name].notna().any()}
    columns += [figures(f"FVE {title}", name, decimals) for name, title in measured.items()]
    columns += [figures("with sinks", "fve_with_sinks", decimals), figures("held-out family", "fve_family", decimals)]
    columns.append(two_counts("n problems (tokens)", "n_problems", "n_tokens"))
    note = (
        "Fraction of variance explained (FVE) per model at each dictionary's own threshold: all unmasked tokens, "
        'per phase, and on the held-out family. "With sinks" adds the tokens no dictionary was trained on (first '
        "positions, sinks by norm, foreign ids): a few outliers of large norm that can take it below 0."
    )
    return table(note, quality, columns)


def _sparsity(quality: pd.DataFrame) -> object:
    frame = quality.drop_duplicates(DICTIONARY)
    columns = [
        *key_columns(frame),
        figures("L0 at threshold", "l0", lambda value: decimals(value, 2)),
        figures("L0 of the training rule", "l0_training", lambda value: decimals(value, 2)),
    ]
    columns += [
        figures("dead", "dead_share", percent),
        figures("rare (< 1e-6)", "rare_share", percent),
        figures("dense (> 10 %)", "dense_share", percent),
    ]
    columns += [figures("n latents", "n_latents", number), figures("N tokens", "n_tokens", number)]
    columns += [
        figures(
            "bound 3/N",
            "dead_rate_bound",
            lambda value: number(value, 2),
            "a latent that never fired on N tokens fires on fewer than this share of tokens (95 %)",
        )
    ]
    return table("Sparsity. Dead: no firing on N unmasked tokens.", frame, columns)


def _spliced(quality: pd.DataFrame) -> list[object]:
    """The response as a whole; think and answer tokens apart to unfold."""
    parts = []
    for phase in SPLICED_PHASES:
        names = {
            name: name.replace(f"_{phase}", "")
            for name in quality.columns
            if name.endswith(phase) or f"_{phase}_" in name
        }
        parts.append(quality[[*DICTIONARY, "model", *names]].rename(columns=names).assign(phase=phase))
    frame = pd.concat(parts, ignore_index=True).dropna(subset=["kl"])
    columns = [
        *key_columns(frame),
        words("model", "model"),
        with_interval("KL, nats", "kl"),
        with_interval("CE increase, nats", "ce_increase"),
    ]
    columns += [
        figures("KL, mean abl.", "mean_ablation_kl", decimals),
        figures("CE inc., mean abl.", "mean_ablation_ce_increase", decimals),
    ]
    columns += [
        with_interval("KL recovered", "kl_recovered", 3),
        two_counts("n problems (targets)", "n_problems", "n_targets"),
    ]
    identity = number(frame["identity_kl"].max())
    note = (
        "What splicing a reconstruction into one model costs it, on response tokens (sinks and first positions left "
        f"as they are), beside mean ablation (the floor). Splicing the identity costs {identity} "
        "nats at most (0 by construction)."
    )
    apart = [
        table(f"The same on {phase} tokens only.", frame[frame["phase"] == phase], columns)
        for phase in SPLICED_PHASES[:-1]
    ]
    return [
        table(note, frame[frame["phase"] == "response"], columns),
        Details("Spliced loss on think and on answer tokens", apart),
    ]


def _matched(frame: pd.DataFrame) -> object:
    names = {
        "crosscoder": "crosscoder",
        "alone": "dictionary of this model alone",
        "pca": "PCA",
        "linear": "linear map from the other model",
    }

    def what(row: object) -> Cell:
        said = names[row.kind] + ("" if is_missing(row.point) else f" {row.point}, seed {row.seed:.0f}")
        return Cell(said, said)

    shown = frame.rename(columns={"low": "fve_low", "high": "fve_high"}).sort_values(
        ["pair", "text", "layer", "model", "l0"], kind="stable"
    )
    columns = [
        words("pair", "pair"),
        words("text", "text"),
        figures("layer", "layer", number),
        words("model", "model"),
        Column("of", what),
    ]
    columns += [
        words("at", "at"),
        figures("L0", "l0", lambda value: decimals(value, 1)),
        with_interval("FVE", "fve"),
        figures("n problems", "n_problems", number),
    ]
    return table("At equal L0, on unmasked tokens; the linear map is dense, so it has no L0.", shown, columns)


# ------------------------------------------------------------------------------------------------ latents


def latents(study: StudyParts, tables: StudyTables, drawn: Mapping[str, Figure]) -> Section:
    """Counts with control, the plots of each site, and the ranked tables."""
    if tables.latents.empty:
        return Section(
            "latents", "Latents", [Paragraph("No crosscoder was described: there is no latent to count or rank.")]
        )
    blocks: list[object] = [
        Paragraph(_how_to_read(study)),
        drawn["exclusive_counts"],
        *_counts(tables.summaries["counts"]),
    ]
    for site in shown_sites(study.pairs, sites_of(tables.latents)):
        blocks += [drawn[name] for kind in SITE_FIGURES if (name := figure_name(kind, site)) in drawn]
    first = True
    for key, rows in _in_order(tables.latents, study.pairs):
        blocks.append(_ranking(key, rows, study, is_open=first))
        first = False
    return Section("latents", "Latents", blocks)


def _how_to_read(study: StudyParts) -> str:
    cut = study.latents
    return (
        "Δ compares the norms of a latent's two decoder directions: 0 only the reasoning (last) model, 1 only "
        "the base (first). Reasoning only: "
        f"Δ ≤ {cut.exclusive_delta:g}; base only: Δ ≥ {1 - cut.exclusive_delta:g}; shared: "
        f"{cut.shared_delta[0]:g} to {cut.shared_delta[1]:g}. “{ABSENT.capitalize()}” "
        "is said only where latent scaling finds nothing of the latent there (ν reconstruction < "
        f"{cut.nu_reconstruction:g} and ν error < {cut.nu_error:g}) and that model's "
        f"activations do not tell where it fires (AUROC < {DECODABLE:g}, while the owner's reach {DECODABLE:g}); "
        f"else the words are “{WRITTEN_DIFFERENTLY}”, or “undetermined” "
        f"(under {cut.min_firings} firings, or an interval that reaches 0)."
    )


def _counts(counts: pd.DataFrame) -> list[object]:
    named = counts[~counts["group"].str.contains(".", regex=False)]
    split = counts[counts["group"].str.contains(".", regex=False)]
    note = (
        "Live latents per group beside the control's dictionary of the same layer, point and seed (Wilson and "
        "Newcombe intervals). Unit: latents of one dictionary; retraining is not covered."
    )
    finer = (
        "Exclusive latents by verdict of latent scaling, those flagged as template apart; and those that may be "
        "called absent from the other model."
    )
    return [
        Details(f"All counts ({len(named)} rows)", [table(note, named, _count_columns(named))]),
        Details(
            f"What the exclusive and leaning latents are ({len(split)} rows)",
            [table(finer, split, _count_columns(split))],
        ),
    ]


def _count_columns(frame: pd.DataFrame) -> list[Column]:
    return [*key_columns(frame), words("group", "group"), *share_columns(), figures("dead", "dead", number)]


def _in_order(frame: pd.DataFrame, pairs: Mapping[str, Pair]):
    """Dictionaries with those of effect pairs first."""
    groups = list(frame.groupby(DICTIONARY, sort=False))
    return sorted(groups, key=lambda group: pairs[group[0][0]].role != "effect")


def _ranking(key: tuple, rows: pd.DataFrame, study: StudyParts, is_open: bool) -> Details:
    pair = study.pairs[key[0]]
    sides = {"reasoning": pair.models[-1], "base": pair.models[0], "shared": "both"}
    blocks = [_ranked(rows, side, model, study) for side, model in sides.items()]
    role = "" if pair.role == "effect" else " (control)"
    summary = f"{key[0]}{role}, {key[1]}, layer {key[2]}, {key[3]}, seed {key[4]}: ranked latents"
    return Details(summary, blocks, is_open)


def _ranked(rows: pd.DataFrame, side: str, model: str, study: StudyParts) -> object:
    shown = ranked(rows, side, study.report.ranked_latents)
    live = int((rows["tag"] != "dead").sum())
    if shown.empty:
        beyond = {"reasoning": f"Δ < {LEANING_DELTA:g}", "base": f"Δ > {1 - LEANING_DELTA:g}"}.get(side)
        none = f"leans to {model} ({beyond})" if beyond else "is tagged shared"
        return Paragraph(f"None of the {live} live latents {none}.", "note")
    return table(_heading(rows, side, model, len(shown), live), shown, _latent_columns(shown))


def _heading(rows: pd.DataFrame, side: str, model: str, shown: int, live: int) -> str:
    if side == "shared":
        return f"Shared, by activation mass: {shown} of {(rows['tag'] == 'shared').sum()} (n = {live} live)."
    passing = int((rows["tag"] == f"{side}_only").sum())
    if not passing:
        return f"Most leaning to {model}, not exclusive: none of {live} live latents passes the cut-off."
    some = "" if passing >= shown else f"; from rank {passing + 1} on leaning, not exclusive"
    return f"Most leaning to {model}: {passing} of {live} live latents pass the cut-off{some}."


def _latent_columns(frame: pd.DataFrame) -> list[Column]:
    two = functools.partial(decimals, places=2)
    columns = [
        figures("latent", "latent", lambda value: f"{value:.0f}"),
        figures("Δ", "delta", decimals),
        words("verdict", "verdict", look="name"),
    ]
    columns += [with_interval("ν reconstruction", "nu_reconstruction", 2), with_interval("ν error", "nu_error", 2)]
    columns += [
        figures("AUROC owner", "auroc_owner", two),
        figures("AUROC other", "auroc_other", two),
        figures("firings", "firings", number),
    ]
    phases = [name for name in frame.columns if name.startswith("rate_") and frame[name].notna().any()]
    columns += [
        figures(
            name.removeprefix("rate_") + ", %",
            name,
            lambda value: decimals(100 * value, 1),
            "share of the phase's tokens on which it fires",
        )
        for name in phases
    ]
    came_back = Column(
        "came back",
        lambda row: Cell(
            f"{row.replicas} of {row.replica_seeds}" if row.replica_seeds else "one seed",
            float(row.replicas),
            "number" if row.replica_seeds else "quiet",
        ),
        "in how many dictionaries of other seeds a latent points and fires alike",
    )
    flag = Column(
        "flag",
        lambda row: Cell("template" if row.template else "", str(row.template), "quiet"),
        "template: over half of its firings within 3 tokens of a foreign token",
    )
    return [*columns, came_back, flag]
