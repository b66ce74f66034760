"""What may be said, given the tables? Each finding carries its sample, its interval and its control.

Nothing is claimed that the interval does not allow: where it holds 0, the sentence says so.
"""

from __future__ import annotations

import pandas as pd

from reasondiff.config import Pair
from reasondiff.report.blocks import Finding
from reasondiff.report.circuit_findings import circuit_findings
from reasondiff.report.concept_sections import concept_findings
from reasondiff.report.effect_sections import effect_findings
from reasondiff.report.inputs import StudyParts, StudyTables
from reasondiff.report.judging import FAIL, NOT_TESTABLE, PASS
from reasondiff.report.label_sections import label_findings
from reasondiff.report.latent_findings import exclusive_latents
from reasondiff.report.transcoder_findings import transcoder_findings
from reasondiff.report.wording import NULL, ONE_CHAIN, decimals, direction, interval, listed, number, percent, points


def all_findings(study: StudyParts, tables: StudyTables) -> list[Finding]:
    """What was found: latents, distance, accuracy, transcoders, labels, known concepts, circuits, instruments."""
    effects = {name: pair for name, pair in study.pairs.items() if pair.role == "effect"}
    found: list[Finding] = []
    for name, pair in effects.items():
        found += exclusive_latents(name, pair, study, tables)
    for name, pair in effects.items():
        found += effect_findings(name, pair, study, tables)
    for name, pair in effects.items():
        found += distance(name, pair, study, tables)
    for name, pair in effects.items():
        found += accuracy(name, pair, study, tables)
    found += transcoder_findings(study, tables)
    found += label_findings(study, tables)
    found += concept_findings(study, tables)
    found += circuit_findings(study, tables)
    return [*found, *instruments(tables.summaries["gates"], study)]


# ------------------------------------------------------------------------------------------------ distance


def distance(name: str, pair: Pair, study: StudyParts, tables: StudyTables) -> list[Finding]:
    """How far the activations moved at the layers that were studied, beside the control pair."""
    found = []
    table = tables.divergence
    table = table[table["mask"] == "unmasked"] if len(table) else table
    for layer in study.studied_layers(name):
        for text in pair.texts:
            rows = (
                table[(table["pair"] == name) & (table["text"] == text) & (table["layer"] == layer)]
                if len(table)
                else table
            )
            for row in rows.itertuples():
                found.append(_distance(name, pair, study, tables, table, row))
    return found


def _distance(name: str, pair: Pair, study: StudyParts, tables: StudyTables, table: pd.DataFrame, row) -> Finding:
    first = pair.models[0]
    sentence = (
        f"Activations of {row.model} differ from those of {first} by {decimals(row.relative_l2, 2)} of their norm "
        f"({interval(row.relative_l2_low, row.relative_l2_high, places=2)}), cosine {decimals(row.cosine, 2)}"
    )
    steps = tables.steps.get(row.model, 0)
    if steps and getattr(study.models[row.model], "parent", None) == first:
        sentence += f"; {steps:,} optimiser steps lie between them ({number(row.relative_l2 / steps, 2)} per step)"
    null = table[(table["pair"] == pair.control) & (table["text"] == row.text) & (table["layer"] == row.layer)]
    control = "none declared" if pair.control is None else f"{pair.control}: not measured"
    if len(null):
        beside = null.iloc[0]
        ends = interval(beside["relative_l2_low"], beside["relative_l2_high"], places=2)
        control = f"{pair.control}: {decimals(beside['relative_l2'], 2)} ({ends})"
        said = {True: "farther than the control pair", False: "not as far as the control pair"}
        apart = row.relative_l2_low > beside["relative_l2_high"] or row.relative_l2_high < beside["relative_l2_low"]
        sentence += f": {said[row.relative_l2 > beside['relative_l2']] if apart else NULL}"
        if control_steps := tables.steps.get(study.pairs[pair.control].models[-1], 0):
            control += f", {control_steps:,} optimiser steps"
    sample = f"{row.n_tokens:,} unmasked tokens of {row.n_problems} problems; interval over problems, {ONE_CHAIN}"
    return Finding(f"{study.place(name, row.layer, row.text)}: distance", sentence + ".", control, sample)


# ------------------------------------------------------------------------------------------------ accuracy


def accuracy(name: str, pair: Pair, study: StudyParts, tables: StudyTables) -> list[Finding]:
    """Paired changes where both models were asked alike; otherwise the levels, each with how it was asked."""
    changes = tables.summaries["accuracy_changes"]
    mine = changes[(changes["pair"] == name) & (changes["problems_from"] == "seen_families")]
    if len(mine):
        return [
            _paired(name, pair, elicitation, rows, changes)
            for elicitation, rows in mine.groupby("elicitation", sort=False)
        ]
    return _levels(name, pair, study, tables.accuracy)


def _paired(name: str, pair: Pair, elicitation: str, rows: pd.DataFrame, changes: pd.DataFrame) -> Finding:
    solved, length = (rows[rows["quantity"] == quantity] for quantity in ("accuracy", "tokens"))
    told = []
    for row in solved.itertuples():
        said = direction(row.low, row.high, "up", "down", "no change that the interval allows to claim")
        told.append(
            f"{_decoding(row)}: {percent(row.before)} → {percent(row.after)}, {points(row.change)} "
            f"({interval(row.low, row.high, 100, 1)}; {said})"
        )
    lengths = []
    for row in length.itertuples():
        said = direction(row.low, row.high, "longer", "shorter", "no change that the interval allows to claim")
        lengths.append(f"{_decoding(row)} {row.before:.0f} → {row.after:.0f} ({said})")
    sentence = f"Problems solved, {'; '.join(told)}. Tokens per answer, {'; '.join(lengths)}. In this chain."
    null = changes[(changes["pair"] == pair.control) & (changes["problems_from"] == "seen_families")]
    null = null[(null["quantity"] == "accuracy")]
    beside = [
        f"{row.elicitation}, {_decoding(row)} {points(row.change)} ({interval(row.low, row.high, 100, 1)})"
        for row in null.itertuples()
    ]
    control = f"{pair.control}, asked in its own ways: {'; '.join(beside)}" if beside else "none asked alike"
    n = int(solved["n_problems"].max())
    sample = f"{n} problems of families seen in training; paired, interval over problems, {ONE_CHAIN}"
    return Finding(f"{name}: accuracy, asked with “{elicitation}”", sentence, control, sample)


def _decoding(row) -> str:
    return "greedy" if row.temperature == 0 else f"T = {row.temperature:g}"


def _levels(name: str, pair: Pair, study: StudyParts, table: pd.DataFrame) -> list[Finding]:
    if table.empty:
        return []
    seen = table[(table["problems_from"] == "seen_families") & (table["temperature"] == table["temperature"].min())]
    told = [said for model in (pair.models[0], pair.models[-1]) for said in _solved(seen, model)]
    if not told:
        return []
    beside = _solved(seen, study.pairs[pair.control].models[-1]) if pair.control else []
    sample = (
        f"{int(seen['n_problems'].max())} problems of families seen in training; interval over problems, {ONE_CHAIN}"
    )
    caution = "The models are asked in different ways, so the difference is not the effect of training alone."
    sentence = f"Problems solved, {_decoding(seen.iloc[0])}: {'; '.join(told)}."
    return [Finding(f"{name}: accuracy", sentence, "; ".join(beside) or "none measured", sample, caution)]


def _solved(seen: pd.DataFrame, model: str) -> list[str]:
    """`base asked with “solution” 61.5 % (54.5 to 68.5)` for each way of asking."""
    return [
        f"{model} asked with “{row.elicitation}” {percent(row.accuracy)} ({interval(row.low, row.high, 100, 1)})"
        for row in seen[seen["model"] == model].itertuples()
    ]


# ------------------------------------------------------------------------------------------------ instruments


def instruments(gates: pd.DataFrame, study: StudyParts) -> list[Finding]:
    """How many quality gates pass; which kinds do not."""
    if gates.empty:
        return [Finding("Quality gates", "No gate was asked.", "–", "n = 0")]
    tally = gates["verdict"].value_counts()
    said = [f"{tally.get(verdict, 0)} {verdict}" for verdict in (PASS, FAIL, NOT_TESTABLE)]
    failing = gates[gates["verdict"] == FAIL]
    by_kind = [
        f"{gate} ({len(rows)} of {(gates['gate'] == gate).sum()})" for gate, rows in failing.groupby("gate", sort=False)
    ]
    sentence = f"{listed(said)}." + (f" Failing: {listed(by_kind)}." if by_kind else "")
    caution = "What rests on a dictionary that fails a gate is to be read with that in mind." if by_kind else ""
    return [
        Finding(
            f"Quality gates ({study.report.scale})",
            sentence,
            "thresholds from the config",
            f"n = {number(len(gates))} gates",
            caution,
        )
    ]
