"""What does the page say of the quality gates?"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from reasondiff.report import transcoder_gates
from reasondiff.report.blocks import Cell, Column, Details, Paragraph, Section, table, words
from reasondiff.report.gates import QUESTIONS
from reasondiff.report.inputs import StudyParts, StudyTables
from reasondiff.report.judging import FAIL, NOT_TESTABLE, PASS
from reasondiff.report.wording import is_missing, listed, number

GATE_LEVELS = {
    "pair": ("foreign_share", "nats_per_byte_gap"),
    "dictionary": ("min_problems", "fve", "dead_share", "dense_share", "spliced_kl_recovered"),
}
LOOKS = {FAIL: "fail", NOT_TESTABLE: "not-testable", PASS: "pass"}  # the worst first
WITHOUT_SAMPLE = ("min_problems", "transcoder_min_problems")  # whose value is the sample


def gates(study: StudyParts, tables: StudyTables) -> Section:
    """The quality gates: what each asks, its threshold, and a verdict for each thing it is asked of."""
    frame, scale = tables.summaries["gates"], study.report.scale
    tiny = (
        " Passing says that the instrument works on a tiny study, nothing about large models."
        if scale == "tiny"
        else ""
    )
    asked_of_study = {**QUESTIONS, **(transcoder_gates.QUESTIONS if study.transcoders else {})}
    questions = pd.DataFrame({"gate": list(asked_of_study), "question": list(asked_of_study.values())})
    asked = {row.gate: f"{row.rule} {number(row.threshold)}" for row in frame.itertuples()}
    columns = [words("gate", "gate", look="name"), words("question", "question")]
    columns.append(Column("threshold", lambda row: Cell(asked.get(row.gate, "not asked"))))
    blocks: list[object] = [
        table(f"Gates of a {scale} study. Thresholds are those of the config.{tiny}", questions, columns)
    ]
    for level, names in GATE_LEVELS.items():
        rows = frame[frame["gate"].isin(names)]
        caption = f"Verdicts per {level}: value, number of units, and of several models the worst."
        blocks.append(_matrix(caption, rows, {name: QUESTIONS[name] for name in names}))
    remarked = frame[[bool(remark) and not is_missing(remark) for remark in frame["remark"]]]
    told = remarked[remarked["gate"].isin(list(QUESTIONS))].drop_duplicates("remark")
    blocks += [Paragraph(f"{row.gate}: {row.remark}.", "note") for row in told.itertuples()]
    return Section("gates", "Quality gates", [*blocks, *(_transcoders(frame) if study.transcoders else [])])


def _matrix(caption: str, rows: pd.DataFrame, questions: Mapping[str, str], remarks: bool = False) -> object:
    """A row for each thing that gates are asked of and a column for each gate; with `remarks` in their cells."""
    places = rows[["of"]].drop_duplicates()
    return table(caption, places, [_of(), *_verdicts(rows, questions, remarks)])


def _of() -> Column:
    return Column("of", lambda row: Cell(row.of.replace("/", ", "), row.of, "name"))


def _verdicts(rows: pd.DataFrame, questions: Mapping[str, str], remarks: bool) -> list[Column]:
    by_place = rows.set_index(["of", "gate"])

    def cell(name: str):
        def verdict(row: object) -> Cell:
            if (row.of, name) not in by_place.index:
                return Cell("", "")
            found = by_place.loc[(row.of, name)]
            remark = "" if not remarks or is_missing(found["remark"]) else found["remark"]
            if is_missing(found["value"]):
                return Cell(found["verdict"], "", LOOKS[found["verdict"]], remark)
            model = "" if is_missing(found["model"]) or not found["model"] else f", {found['model']}"
            sample = "" if name in WITHOUT_SAMPLE else f"n = {number(found['n'])} {found['n_unit']}{model}"
            text = f"{found['verdict']} {number(found['value'])}"
            return Cell(text, float(found["value"]), LOOKS[found["verdict"]], remark or sample)

        return verdict

    return [Column(name.removeprefix("transcoder_"), cell(name), question) for name, question in questions.items()]


# ------------------------------------------------------------------------------------------------ transcoders


def _transcoders(frame: pd.DataFrame) -> list[object]:
    """A row per set with its layers counted; the verdicts of every layer to unfold."""
    of_layers = frame[frame["gate"].isin(list(transcoder_gates.LAYER_GATES))]
    of_sets = frame[frame["gate"].isin(list(transcoder_gates.SET_GATES))]
    sets = of_sets[["of"]].drop_duplicates()
    columns = [_of(), *(_tally(of_layers, gate, why) for gate, why in transcoder_gates.LAYER_GATES.items())]
    columns += _verdicts(of_sets, transcoder_gates.SET_GATES, remarks=False)
    caption = (
        "Verdicts per set of transcoders: how many layers pass, each replaced alone; then all layers replaced at "
        "once. A layer whose mean ablation costs too little is uninformative: not testable by what is recovered, "
        "which is not a pass."
    )
    n = of_layers["of"].nunique()
    layers = _matrix("Value, and number of units or a remark.", of_layers, transcoder_gates.LAYER_GATES, remarks=True)
    return [table(caption, sets, columns), Details(f"Verdicts per layer of transcoders ({n})", [layers])]


def _tally(of_layers: pd.DataFrame, gate: str, question: str) -> Column:
    """`1 fail`, the worst verdict that some layer has, and below it `5 pass`."""

    def cell(row: object) -> Cell:
        place = row.of.removesuffix("all")
        mine = of_layers[(of_layers["gate"] == gate) & of_layers["of"].str.startswith(f"{place}layer")]
        counted = mine["verdict"].value_counts()
        found = [verdict for verdict in LOOKS if verdict in counted]
        if not found:
            return Cell("", "")
        said = [f"{counted[verdict]} {verdict}" for verdict in found]
        return Cell(said[0], float(counted.get(PASS, 0)), LOOKS[found[0]], listed(said[1:]))

    return Column(f"{gate.removeprefix('transcoder_')}, layers", cell, question)
