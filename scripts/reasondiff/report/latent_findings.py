"""Whose are the latents, and what may be said of those that belong to one model only?

Counts are told dictionary by dictionary, each beside its control; nothing is said that the excess does not allow.
"""

from __future__ import annotations

import pandas as pd

from reasondiff.config import Pair
from reasondiff.latents.counts import DICTIONARY
from reasondiff.latents.verdicts import NOT_REPLICATED, REPLICATED
from reasondiff.report.blocks import Cell, Column, Finding, Table, figures, table, words
from reasondiff.report.inputs import StudyParts, StudyTables
from reasondiff.report.judging import FAIL
from reasondiff.report.wording import (
    NULL,
    ONE_CHAIN,
    direction,
    interval,
    is_missing,
    listed,
    number,
    percent,
    points,
    share_of,
)

NO_FORMAT_CONTROL = (
    "Latents of the new text format; not evidence of reasoning: the format-only control (same template, shuffled "
    "reasoning) has not run."
)
NO_FORMAT_CONTROL_LATER = "Not evidence of reasoning: no control for format and length alone has run."
FORMAT_EXPLAINS = (
    "No more of them than after a distillation on the same template with shuffled reasoning: latents of the text "
    "format; not evidence of reasoning."
)
SIDES = ("reasoning", "base")


def exclusive_latents(name: str, pair: Pair, study: StudyParts, tables: StudyTables) -> list[Finding]:
    """One finding per text and layer, all sweep points side by side; seeds are listed, never averaged."""
    counts = tables.summaries["counts"]
    mine = counts[counts["pair"] == name]
    return [
        _exclusive(name, pair, key, rows, study, tables) for key, rows in mine.groupby(["text", "layer"], sort=False)
    ]


def _exclusive(
    name: str, pair: Pair, key: tuple, rows: pd.DataFrame, study: StudyParts, tables: StudyTables
) -> Finding:
    text, layer = key
    told, shown = [], []
    for point, part in rows.groupby("point", sort=False):
        passing = part.loc[part["group"].isin(["reasoning_only", "base_only"]), "count"].sum()
        kind = "only" if passing else "leaning"
        told.append(_point(point, part, kind, pair))
        shown += [part[part["group"] == f"{side}_{kind}"].assign(kind=kind, side=side) for side in SIDES]
    counted = pd.concat(shown, ignore_index=True).sort_values("seed", kind="stable")
    order = list(rows["point"].unique())
    counted = counted.sort_values("point", kind="stable", key=lambda names: names.map(order.index))
    counted = counted.assign(**_instruments(counted, tables))
    nulls = _other_nulls(counted, pair, tables)
    cut = study.latents.exclusive_delta
    sentences = [f"At the cut-offs Δ ≤ {cut:g} and ≥ {1 - cut:g}.", *told, *_unmatched(counted)]
    return Finding(
        f"{study.place(name, layer, text)}: whose latents?",
        " ".join([*sentences, *_beyond(nulls, pair)]),
        _control_words(pair, study, tables),
        f"unit: live latents of one dictionary; not covered: retraining the dictionary or the models ({ONE_CHAIN})",
        _format_caution(pair, study, nulls) if (counted["excess_low"] > 0).any() else "",
        _count_table(counted, rows, pair, nulls),
    )


def _instruments(counted: pd.DataFrame, tables: StudyTables) -> dict[str, list]:
    """For each row its dictionary's L0 at the threshold, and the names of the gates it fails."""
    fidelity, gates = tables.summaries["fidelity"], tables.summaries["gates"]
    own = fidelity[fidelity["at"] == "threshold"].drop_duplicates(DICTIONARY).set_index(DICTIONARY)["l0"]
    failing = gates[gates["verdict"] == FAIL]
    l0s, failed = [], []
    for row in counted.itertuples():
        l0s.append(own.get((row.pair, row.text, row.layer, row.point, row.seed), float("nan")))
        place = f"{row.pair}/{row.text}/layer{row.layer}/{row.point}/seed{row.seed}"
        failed.append(", ".join(gate.removesuffix("_share") for gate in failing.loc[failing["of"] == place, "gate"]))
    return {"l0": l0s, "failed": failed}


def _unmatched(counted: pd.DataFrame) -> list[str]:
    """A warning where the sweep points differ in sparsity by more than a tenth."""
    means = counted.groupby("point", sort=False)["l0"].mean().dropna()
    if len(means) < 2 or means.max() <= 1.1 * means.min():
        return []
    told = listed(f"{point} {number(l0)}" for point, l0 in means.items())
    return [f"The points differ in L0 ({told}), so their counts do not compare with each other."]


def _other_nulls(counted: pd.DataFrame, pair: Pair, tables: StudyTables) -> pd.DataFrame:
    """The rows of `counted` once for each null besides the control, with what the null's dictionary has."""
    beside = tables.summaries["nulls"]
    beside = beside[beside["null"].isin(list(pair.nulls))]
    figures = ["null", "null_pair", "null_count", "null_live", "excess", "excess_low", "excess_high", "status"]
    return counted[[*DICTIONARY, "group", "side", "kind"]].merge(beside[[*DICTIONARY, "group", *figures]])


def _beyond(nulls: pd.DataFrame, pair: Pair) -> list[str]:
    """For each null besides the control, dictionary by dictionary, whether there are more than in it."""
    sentences = []
    for (null, null_pair), rows in nulls.groupby(["null", "null_pair"], sort=False):
        told = [
            f"{row.point}, seed {row.seed}, {side_words(row.side, row.kind, pair)} {null_words(row)}"
            for row in rows.itertuples()
            if row.status == "tested"
        ]
        if told:
            sentences.append(f"Against the null “{null}” ({null_pair}): {'; '.join(told)}.")
        sentences += [
            f"Against the null “{null}” ({null_pair}), {row.point}, seed {row.seed}: {row.status}."
            for row in rows[rows["status"] != "tested"].drop_duplicates(DICTIONARY).itertuples()
        ]
    return sentences


def _control_words(pair: Pair, study: StudyParts, tables: StudyTables) -> str:
    if pair.control is None:
        return "none declared"
    lengths = [tables.steps.get(models[-1], 0) for models in (study.pairs[pair.control].models, pair.models)]
    trained = f"; {lengths[0]:,} optimiser steps against {lengths[1]:,}" if all(lengths) else ""
    return f"{pair.control}, the same layer, point and seed{trained}"


def side_words(side: str, kind: str, pair: Pair) -> str:
    """`distill only`, `leaning to distill`."""
    model = pair.models[-1] if side == "reasoning" else pair.models[0]
    return f"{model} only" if kind == "only" else f"leaning to {model}"


def _point(point: str, part: pd.DataFrame, kind: str, pair: Pair) -> str:
    """`l1, seed 0: 107 of 342 live latents are distill only (more than the null), 43 base only (…).`"""
    by_side = {side: part[part["group"] == f"{side}_{kind}"] for side in SIDES}
    seeds = part["seed"].drop_duplicates()
    first = by_side["reasoning"]
    live = _slashed(first["live"])
    told = [
        f"{_slashed(rows['count'])} {side_words(side, kind, pair)} ({_against_null(rows)})"
        for side, rows in by_side.items()
    ]
    none = "" if kind == "only" else "none passes; "
    return (
        f"{point}, seed{'s' if len(seeds) > 1 else ''} {listed(seeds)}, of {live} live latents: {none}{listed(told)}."
    )


def _slashed(counts: pd.Series) -> str:
    """One count per seed: `75 / 80`."""
    return " / ".join(f"{count:,}" for count in counts)


def _against_null(rows: pd.DataFrame) -> str:
    """How the shares stand to the control's, dictionary by dictionary."""
    said = [null_words(row) for row in rows.itertuples()]
    return said[0] if len(set(said)) == 1 else "seed by seed: " + ", ".join(said)


def null_words(row) -> str:
    """What the interval of one excess allows to say."""
    if is_missing(row.excess):
        return "no control to compare with"
    return direction(row.excess_low, row.excess_high, "more than the null", "fewer than the null", NULL)


def _count_table(shown: pd.DataFrame, rows: pd.DataFrame, pair: Pair, nulls: pd.DataFrame) -> Table:
    more = rows.set_index(["point", "seed", "group"])

    def of(row, kind: str) -> pd.Series:
        return more.loc[(row.point, row.seed, f"{row.group}.{kind}")]

    def absent(row) -> Cell:
        found = of(row, "absent")
        beside = "" if is_missing(found["control_count"]) else f" (control {found['control_count']:.0f})"
        return Cell(f"{found['count']:.0f}{beside}", float(found["count"]), "number")

    def make_up(row) -> Cell:
        if row.kind != "only":
            return Cell("", "")
        kinds = ("specific", "not_specific", "undetermined", "template")
        return Cell(" / ".join(f"{of(row, kind)['count']:.0f}" for kind in kinds), "", "name")

    def came_back(row) -> Cell:
        back, lost = (of(row, verdict)["count"] for verdict in (REPLICATED, NOT_REPLICATED))
        if not back + lost:
            return Cell("not testable", "", "quiet")
        return Cell(f"{back:.0f} of {back + lost:.0f}", float(back), "number")

    columns = [
        Column("dictionary", lambda row: Cell(f"{row.point}, seed {row.seed}", f"{row.point}, {row.seed}", "name"))
    ]
    columns += [Column("latents", lambda row: Cell(side_words(row.side, row.kind, pair), "", "name"))]
    columns += share_columns()
    columns += [_null_column(null, part) for null, part in nulls.groupby("null", sort=False)]
    columns += [Column("not in the other model", absent, "specific by latent scaling, and not decodable from there")]
    columns += [Column("came back in all seeds", came_back, "of those that fire often enough, in other seeds")]
    columns += [
        Column("specific / not / undet. / template", make_up, "by latent scaling; those flagged as template apart")
    ]
    columns += [figures("L0", "l0", number), words("gates failed", "failed")]
    return table("", shown, columns)


def _null_column(null: str, rows: pd.DataFrame) -> Column:
    """The excess over one null besides the control."""
    by_row = {(row.point, row.seed, row.group): row for row in rows.itertuples()}

    def excess(row) -> Cell:
        found = by_row.get((row.point, row.seed, row.group))
        if found is None or is_missing(found.excess):
            return Cell("–", "", "number")
        ends = interval(found.excess_low, found.excess_high, 100, 1)
        counted = f"{found.null_count:.0f} of {found.null_live:.0f}"
        return Cell(f"{points(found.excess)} ({ends}) over {counted}", found.excess, "number")

    return Column(f"excess over “{null}” (95 %)", excess)


def share_columns() -> list[Column]:
    """Count with share and interval, the control's, and the excess: three columns of a table of counts."""

    def share(row) -> Cell:
        count = row[row._fields.index("live") + 2]  # `count` is a method of tuples
        return Cell(share_of(count, row.live, row.share_low, row.share_high), row.share, "number")

    def control(row) -> Cell:
        if is_missing(row.control_count):
            return Cell("no control" if row.role == "effect" else "is a control", "", "quiet")
        return Cell(
            f"{row.control_count:.0f} of {row.control_live:.0f} ({percent(row.control_share)})",
            row.control_share,
            "number",
        )

    def excess(row) -> Cell:
        if is_missing(row.excess):
            return Cell("–", "", "number")
        return Cell(f"{points(row.excess)} ({interval(row.excess_low, row.excess_high, 100, 1)})", row.excess, "number")

    return [Column("of live (95 %)", share), Column("control", control), Column("excess (95 %)", excess)]


def _format_caution(pair: Pair, study: StudyParts, nulls: pd.DataFrame) -> str:
    """What the reasoning model's latents must not be taken for, unless they exceed those of a model that learnt the
    format alone."""
    of_format = [null for null, other in pair.nulls.items() if study.is_format_control(other)]
    mine = nulls[nulls["null"].isin(of_format) & (nulls["side"] == "reasoning") & (nulls["status"] == "tested")]
    if len(mine):
        return "" if (mine["excess_low"] > 0).any() else FORMAT_EXPLAINS
    new_format = study.models[pair.models[-1]].stage in ("finetune", "local", "hub")
    return NO_FORMAT_CONTROL if new_format else NO_FORMAT_CONTROL_LATER
