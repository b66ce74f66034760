"""What does the page show of how faithfully transcoders imitate their MLPs?

What ablating a layer costs stands beside every figure of that layer.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import pandas as pd

from reasondiff.config import TranscoderGates
from reasondiff.report.blocks import (
    Cell,
    Column,
    Details,
    Figure,
    Paragraph,
    figures,
    table,
    two_counts,
    with_interval,
    words,
)
from reasondiff.report.inputs import StudyParts, StudyTables
from reasondiff.report.transcoder_findings import IDENTITY_IS_AT_FAULT, identity_is_at_fault, identity_words
from reasondiff.report.transcoder_tables import at_once, by_layer, by_replacement, is_informative, told
from reasondiff.report.wording import decimals, is_missing, number, percent

NAMES = {
    "transcoder": "transcoders",
    "linear": "best linear maps",
    "mean_ablation": "mean ablation",
    "zero_ablation": "zero ablation",
    "identity": "the MLPs' own output",
}
NATS = functools.partial(decimals, places=4)
TENTHS = functools.partial(decimals, places=1)
SEED_FIGURES = ("fvu", *(f"ce_increase_transcoder{end}" for end in ("", "_low", "_high")), "l0")
SET, LAYER = words("set", "set", look="name"), words("layer", "layer")
TARGETS = two_counts("n problems (targets)", "n_spliced_problems", "n_targets")
TOKENS = two_counts("n problems (tokens)", "n_problems", "n_tokens")
ABLATION = figures("mean abl., nats", "ce_increase_mean_ablation", NATS, "CE increase with the layer's mean output")


def faithfulness_blocks(study: StudyParts, tables: StudyTables, drawn: Mapping[str, Figure]) -> list[object]:
    """Layer by layer for each model, seeds apart; all layers at once; seed against seed."""
    frame, limits = tables.summaries["transcoders"], study.gates.transcoders
    rows = told(frame)
    if rows.empty:
        return [Paragraph("No transcoder was evaluated.")]
    blocks: list[object] = [drawn["transcoder_layers"]] if "transcoder_layers" in drawn else []
    for model, of_model in by_layer(rows).groupby("model", sort=False):
        blocks += [_costs(model, of_model, limits), _imitation(model, of_model)]
    phases = told(frame, ("all", "think", "answer"))
    blocks += _phases(by_layer(phases))
    blocks += [drawn["transcoders_at_once"]] if "transcoders_at_once" in drawn else []
    return [*blocks, *_together(at_once(rows), at_once(phases)), *_seeds(by_layer(rows))]


# ------------------------------------------------------------------------------------------------ layer by layer


def _costs(model: str, rows: pd.DataFrame, limits: TranscoderGates) -> object:
    """What replacing each layer alone costs."""

    def verdict(row: object) -> Cell:
        cost = row.ce_increase_transcoder
        if is_missing(cost):
            return Cell("not measured", "", "quiet")
        for limit in (limits.ce_increase_wished_nats, limits.ce_increase_nats):
            if cost <= limit:
                return Cell(f"within {limit:g}", limit)
        return Cell(f"over {limits.ce_increase_nats:g}", limits.ce_increase_nats + 1)

    def remark(row: object) -> Cell:
        informative = is_informative(row.ce_increase_mean_ablation, limits)
        return Cell("" if informative else "uninformative", str(informative), "quiet")

    columns = [
        figures("seed", "seed", number),
        LAYER,
        ABLATION,
        with_interval("CE increase, nats", "ce_increase_transcoder", 4),
        Column("limit", verdict, "of the gate; the smaller one is wished for"),
        figures("linear map, nats", "ce_increase_linear", NATS),
        figures("zero abl., nats", "ce_increase_zero_ablation", NATS),
        with_interval("recovered / mean", "recovered_mean", hint="share of what mean ablation costs"),
        with_interval("recovered / linear", "recovered_linear", hint="share of what the best linear map costs"),
        figures("recovered / zero", "recovered_zero", decimals),
        figures("every token, nats", "everywhere_transcoder", NATS, "CE increase with no token left alone"),
        figures("KL, nats", "kl_transcoder", NATS),
        figures("KL recovered / mean", "kl_recovered_mean", decimals, "also where ablation lowers the cross-entropy"),
        figures("top-1", "top1_transcoder", decimals, "share of targets with the same first choice"),
        TARGETS,
        Column("remark", remark),
    ]
    note = (
        f"{model}: what replacing one layer's MLP costs (part “report”), beside what ablating it costs. Uninformative: "
        f"mean ablation costs under {limits.uninformative_nats:g} nats, so there is little to recover."
    )
    return table(note, rows, columns)


def _imitation(model: str, rows: pd.DataFrame) -> object:
    """How much of each MLP's output is given back, by how sparse a code."""
    columns = [
        figures("seed", "seed", number),
        LAYER,
        ABLATION,
        with_interval("FVU", "fvu", hint="fraction of variance of the MLP's output left unexplained"),
        figures("FVU linear", "fvu_linear", decimals, "of the best linear map"),
        figures("with sinks", "fvu_with_sinks", decimals, "FVU with sinks, first positions and foreign ids"),
        figures("held-out family", "fvu_family", decimals),
        figures("L0", "l0", TENTHS),
        figures("dead", "dead_share", percent),
        figures("rare (< 1e-6)", "rare_share", percent),
        figures("dense (> 10 %)", "dense_share", percent),
        figures("n latents", "n_latents", number),
        figures("bound 3/N", "dead_rate_bound", lambda value: number(value, 2), "a dead latent fires on fewer tokens"),
        TOKENS,
    ]
    note = f"{model}: the MLP's output as its transcoder gives it back, unmasked tokens. Dead: no firing on N tokens."
    return table(note, rows, columns)


def _phases(rows: pd.DataFrame) -> list[object]:
    """Think and answer tokens apart, to unfold; nothing where a text has neither."""
    if rows.empty:
        return []
    columns = [
        SET,
        LAYER,
        words("tokens", "phase"),
        ABLATION,
        with_interval("CE increase, nats", "ce_increase_transcoder", 4),
        figures("linear map, nats", "ce_increase_linear", NATS),
        figures("recovered / mean", "recovered_mean", decimals),
        figures("KL, nats", "kl_transcoder", NATS),
        figures("top-1", "top1_transcoder", decimals),
        TARGETS,
        figures("FVU", "fvu", decimals),
        figures("FVU linear", "fvu_linear", decimals),
        figures("L0", "l0", TENTHS),
        TOKENS,
    ]
    note = "Losses by the phase of the predicted token, FVU and L0 by that of the token."
    return [Details(f"Layers on all, think and answer tokens ({len(rows)} rows)", [table(note, rows, columns)])]


# ------------------------------------------------------------------------------------------------ all layers


def _together(rows: pd.DataFrame, phases: pd.DataFrame) -> list[object]:
    """All layers of a set at once, by what takes their place."""
    note = (
        "All MLPs of a set replaced at once, by what takes their place. The MLPs' own output in their place "
        f"costs {identity_words(rows)}."
    )
    blocks: list[object] = [Paragraph(IDENTITY_IS_AT_FAULT, "banner")] if identity_is_at_fault(rows) else []
    blocks += [_costs_together(note, rows), _compared(rows)]
    if len(phases):
        shown = [_costs_together("By the phase of the predicted token.", phases)]
        blocks.append(Details("All layers at once, on all, think and answer tokens", shown))
    return blocks


def _costs_together(note: str, rows: pd.DataFrame) -> object:
    """A row for each set, phase and replacement that was measured."""
    columns = [
        SET,
        *([words("tokens", "phase")] if rows["phase"].nunique() > 1 else []),
        Column("replaced by", lambda row: Cell(NAMES[row.at], NAMES[row.at], "name")),
        with_interval("CE increase, nats", "ce_increase", 4),
        with_interval("KL, nats", "kl", 4),
        with_interval("top-1", "top1"),
        with_interval("CE increase, every token", "everywhere", 4, hint="no token left alone"),
        two_counts("n problems (targets)", "n_problems", "n_targets"),
    ]
    return table(note, by_replacement(rows).dropna(subset=["ce_increase"]), columns)


def _compared(rows: pd.DataFrame) -> object:
    """The transcoders against each floor."""
    columns = [
        SET,
        with_interval("recovered / mean", "recovered_mean"),
        with_interval("recovered / zero", "recovered_zero"),
        with_interval("recovered / linear", "recovered_linear"),
        with_interval("top-1 above the linear maps'", "top1_excess", hint="paired by problem"),
        figures("CE of the model itself, nats", "ce_original", decimals),
        TARGETS,
    ]
    note = (
        "All layers at once, against each floor: the share of its cost that transcoders recover, and top-1 in excess."
    )
    return table(note, rows, columns)


# ------------------------------------------------------------------------------------------------ seeds


def _seeds(rows: pd.DataFrame) -> list[object]:
    """FVU, CE increase and L0 of one model's seeds side by side; nothing for models with one seed."""
    by_model = rows.groupby("model", sort=False)
    return [_seed_table(model, of_model) for model, of_model in by_model if of_model["seed"].nunique() > 1]


def _seed_table(model: str, rows: pd.DataFrame) -> object:
    by_seed = {seed: of_seed.set_index("layer") for seed, of_seed in rows.groupby("seed")}
    first = next(iter(by_seed.values()))
    beside = pd.concat(
        [of_seed[list(SEED_FIGURES)].add_prefix(f"seed{seed}_") for seed, of_seed in by_seed.items()], axis=1
    )
    columns = [LAYER, ABLATION]
    columns += [figures(f"FVU, seed {seed}", f"seed{seed}_fvu", decimals) for seed in by_seed]
    columns += [with_interval(f"CE increase, seed {seed}", f"seed{seed}_ce_increase_transcoder", 4) for seed in by_seed]
    columns += [figures(f"L0, seed {seed}", f"seed{seed}_l0", TENTHS) for seed in by_seed]
    note = f"{model}, seed against seed: what training the same transcoders anew changes, beside the ablation cost."
    return table(note, first.join(beside).reset_index(), [*columns, TARGETS])
