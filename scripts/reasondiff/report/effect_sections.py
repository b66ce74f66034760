"""What stands on the page about what sets of latents do to predictions?"""

from __future__ import annotations

import functools

import pandas as pd

from reasondiff.config import Pair
from reasondiff.latents.counts import DICTIONARY
from reasondiff.report.blocks import Cell, Column, Details, Finding, Paragraph, Section, figures, table, with_interval
from reasondiff.report.inputs import StudyParts, StudyTables
from reasondiff.report.wording import NULL, ONE_CHAIN, decimals, direction, interval, is_missing, number, percent

HEADLINE = {"patched": "kl_removed", "ablated": "ce_increase_nats"}
PHASE = "response"
NAMES = {
    "top_delta": "smallest Δ", "top_nu": "specific, smallest ν error", "all_latents": "all latents",
    "error_only": "error only", "nothing": "the base's activations", "everything": "the reasoning model's own",
}  # fmt: skip
TESTED = ("top_delta", "top_nu")
QUANTITIES = {
    "kl_removed": "share of KL removed",
    "kl_nats": "KL, nats per target",
    "ce_increase_nats": "CE added, nats per target",
}


def set_effects(study: StudyParts, tables: StudyTables) -> list[Section]:
    """The section, in a list; nothing in it for a study that tests no set."""
    settings = study.evidence.effects
    if settings is None:
        return []
    found = tables.set_effects
    if found.empty:
        return [Section("effects", "Do they matter?", [Paragraph("No set of latents was tested (n = 0).")])]
    blocks: list[object] = [Paragraph(_how_to_read(settings.random_sets, settings.tolerance))]
    for key, rows in found.groupby(DICTIONARY, sort=False):
        name = f"{key[0]}, layer {key[2]}, {key[3]}, seed {key[4]}"
        shown = rows[rows["phase"] == PHASE]
        blocks.append(
            Details(f"{name}: sets of latents and what they do", [table("", shown, _columns())], not blocks[1:])
        )
        rest = rows[rows["phase"] != PHASE]
        if len(rest):
            blocks.append(Details(f"{name}, by phase ({len(rest)} rows)", [table("", rest, _columns(by_phase=True))]))
    return [Section("effects", "Do they matter?", blocks)]


def _how_to_read(random_sets: int, tolerance: float) -> str:
    return (
        "Patched: the base's activations of the layer, moved towards the reasoning model's by a set of latents alone, "
        "go through the reasoning model's upper blocks; how much nearer do its predictions come? Ablated: the set's "
        "part is taken out of the reasoning model's own activations; how much worse does it predict? Each set stands "
        f"beside {random_sets} sets of other live latents, alike to within {tolerance:.0%} in activation mass, firing "
        "rate in every phase and template firings; p is the share of sets that do as much, the set itself among them. "
        "Where a set does no more than they do, nothing is said to be responsible. Masked tokens keep the reasoning "
        "model's activations."
    )


def _columns(by_phase: bool = False) -> list[Column]:
    three = functools.partial(decimals, places=3)

    def named(row) -> Cell:
        said = NAMES.get(row.set, row.set) + ("" if is_missing(row.size) else f" ({row.size:.0f})")
        return Cell(said, said, "name")

    def beside(row) -> Cell:
        if is_missing(row.random_mean):
            return Cell("–" if row.status == "beside" else row.status, "", "quiet")
        ends = f"{three(row.random_low)} to {three(row.random_high)}"
        return Cell(f"{three(row.random_mean)} ({ends}; n = {row.n_random:.0f})", row.random_mean, "number")

    columns = [
        Column("", lambda row: Cell(row.direction, row.direction, "name")),
        Column("set (latents)", named),
        Column("quantity", lambda row: Cell(QUANTITIES[row.quantity], row.quantity, "name")),
        with_interval("value (95 %)", "value", 3),
        Column("random sets: mean (least to most)", beside),
        with_interval("excess (95 %)", "excess", 3),
        figures("p", "p", functools.partial(decimals, places=2)),
        figures("problems", "n_problems", number),
        figures("targets", "n_tokens", number),
    ]
    phase = Column("phase", lambda row: Cell(row.phase, row.phase, "name"))
    return [columns[0], phase, *columns[1:]] if by_phase else columns


# ------------------------------------------------------------------------------------------------ findings


def effect_findings(name: str, pair: Pair, study: StudyParts, tables: StudyTables) -> list[Finding]:
    """One finding per dictionary of a pair and way of testing: does a set do more than the random ones beside it?"""
    found = tables.set_effects
    if found.empty:
        return []
    mine = found[(found["pair"] == name) & (found["phase"] == PHASE) & found["set"].isin(TESTED)]
    return [
        _finding(key, way, rows, pair, study)
        for key, every in mine.groupby(DICTIONARY, sort=False)
        for way, quantity in HEADLINE.items()
        if len(rows := every[(every["direction"] == way) & (every["quantity"] == quantity)])
    ]


def _finding(key: tuple, way: str, rows: pd.DataFrame, pair: Pair, study: StudyParts) -> Finding:
    name, text, layer, point, seed = key
    told = [_said(row, way, pair) for row in rows.itertuples()]
    beside = [
        f"{NAMES[row.set]}: {_amount(row.random_mean, way)} in the mean of {row.n_random:.0f} matched random sets"
        for row in rows.itertuples()
        if not is_missing(row.random_mean)
    ]
    sample = (
        f"{number(rows['n_tokens'].max())} response tokens of {rows['n_problems'].max():.0f} problems; interval over "
        f"problems, {ONE_CHAIN}"
    )
    what = {"patched": "patched into the base", "ablated": "ablated"}[way]
    about = f"{study.place(name, layer, text)}, {point}, seed {seed}: latents {what}"
    return Finding(about, " ".join(told), "; ".join(beside) or "no matched random sets", sample)


def _said(row, way: str, pair: Pair) -> str:
    model = pair.models[-1]
    set_words = f"The {row.size:.0f} latents of {model} with {NAMES[row.set]}"
    does = (
        f"take away {percent(row.value)} of the KL between the base's activations and {model}'s"
        if way == "patched"
        else f"cost {decimals(row.value, 3)} nats of cross-entropy"
    )
    if row.status != "tested":
        return f"{set_words} {does}: whether others would do the same is {row.status}."
    ends = (
        interval(row.excess_low, row.excess_high, 100, 1) + " points"
        if way == "patched"
        else interval(row.excess_low, row.excess_high, places=3)
    )
    verdict = direction(row.excess_low, row.excess_high, "more than matched random sets", "less than they do", NULL)
    return f"{set_words} {does}: {verdict} (excess {ends}, p = {decimals(row.p, 2)})."


def _amount(value: float, way: str) -> str:
    return percent(value) if way == "patched" else f"{decimals(value, 3)} nats"
