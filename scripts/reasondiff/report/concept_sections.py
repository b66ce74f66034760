"""What stands in the section on concepts that are known token by token?"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

import pandas as pd

from reasondiff.report.blocks import (
    Cell,
    Column,
    Details,
    Figure,
    Finding,
    Paragraph,
    Section,
    Table,
    figures,
    table,
    two_counts,
    with_interval,
    words,
)
from reasondiff.report.concept_tables import DICTIONARY, all_concepts, beside_baselines, tally
from reasondiff.report.drawing import TAG_WORDS
from reasondiff.report.inputs import StudyParts, StudyTables
from reasondiff.report.wording import Number, is_missing, listed, number

WHAT = (
    "The text of this study is generated, so it is known of each token whether it is a think marker, a step word, an "
    "operator and so on. For each concept, the latent that tells it best, beside the best raw neuron of either model, "
    "the best of as many random directions, the best latent of a dictionary on random-weight models, and a logistic "
    "probe on all units (the ceiling). Latent, side and threshold are picked on the part choose; the figures are of "
    "the part score, with 95 % intervals over problems."
)
CAUTION = "That a latent tells a concept does not mean that it responds to nothing else, or that the model uses it."
TITLES = {"neuron": "best neuron", "random": "random directions", "untrained": "untrained dict.", "probe": "probe"}


AUROC_NOTE = (
    "By AUROC (of the activation, without a threshold). Tokens on which a latent is silent tie, so that a sparse "
    "latent can hardly beat a dense neuron here; with F1 both have a threshold."
)


def concepts(study: StudyParts, tables: StudyTables, drawn: Mapping[str, Figure]) -> list[Section]:
    """The section, in a list; nothing in it for a study whose text is not generated."""
    if study.concepts is None:
        return []
    found = all_concepts(tables.concepts, tables.transcoder_concepts)
    if found.empty:
        return [Section("concepts", "Concepts", [Paragraph("No concept was measured (n = 0).")])]
    f1, auroc = beside_baselines(found, "f1"), beside_baselines(found, "auroc")
    blocks: list[object] = [Paragraph(WHAT)]
    blocks += [drawn["concepts"]] if "concepts" in drawn else []
    blocks.append(_tally(tally(f1[f1["tag"] == "all"], "f1")))
    shown = {key: _dictionary(rows, _of(auroc, key)) for key, rows in f1.groupby(DICTIONARY, sort=False)}
    in_pairs = [key for key in shown if key[0] in study.pairs]
    blocks += [_unfold(dictionary_words(*key), shown[key], is_open=key == in_pairs[0]) for key in in_pairs]
    for of_set, keys in _by_set([key for key in shown if key not in in_pairs]).items():
        layers = [_unfold(f"layer {key[2]:.0f}", shown[key]) for key in keys]
        blocks.append(Details(f"{of_set}, transcoders of {len(keys)} layers", layers))
    return [Section("concepts", "Concepts", blocks)]


def _unfold(name: str, blocks: list[object], is_open: bool = False) -> Details:
    return Details(f"{name}: best latent per concept", blocks, is_open)


def _by_set(keys: Iterable[tuple]) -> dict[str, list[tuple]]:
    found: dict[str, list[tuple]] = {}
    for key in keys:
        of, _, _, point, seed = key
        found.setdefault(f"{of}, {point}, seed {seed:.0f}", []).append(key)
    return found


def _of(frame: pd.DataFrame, key: tuple) -> pd.DataFrame:
    chosen = pd.Series(True, index=frame.index)
    for name, value in zip(DICTIONARY, key, strict=True):
        chosen &= frame[name] == value
    return frame[chosen]


def dictionary_words(of: str, text: str, layer: Number, point: str, seed: Number) -> str:
    """`base-distill, layer 3, btk24, seed 0`."""
    return f"{of}, layer {layer:.0f}, {point}, seed {seed:.0f}"


def _dictionary(f1_all: pd.DataFrame, auroc_all: pd.DataFrame) -> list[object]:
    """Tables of one dictionary, and the concepts that cannot be tested."""
    f1, auroc = f1_all[f1_all["tag"] == "all"], auroc_all[auroc_all["tag"] == "all"]
    by_tag = f1_all[f1_all["tag"] != "all"]
    blocks: list[object] = [table("By F1.", _told(f1), _columns(f1, "f1"))]
    blocks.append(table(AUROC_NOTE, _told(auroc), _columns(auroc, "auroc")))
    silent = [f"{row.concept} ({row.reason})" for row in f1.itertuples() if _reason(row.reason)]
    if silent:
        blocks.append(Paragraph(f"Not testable: {listed(silent)}.", "note"))
    if len(by_tag):
        tagged = table(
            "Best latent of each tag, by F1; dashes where no latent has the tag.",
            by_tag,
            _columns(by_tag, "f1", by_tag=True),
        )
        blocks.append(Details(f"By tag ({len(by_tag)} rows)", [tagged]))
    return blocks


def _reason(said: object) -> str:
    return "" if is_missing(said) else str(said)


def _told(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of concepts that can be tested."""
    return frame[[not _reason(said) for said in frame["reason"]]]


def _columns(frame: pd.DataFrame, by: str, by_tag: bool = False) -> list[Column]:
    two = functools.partial(with_interval, places=2)
    title = "F1" if by == "f1" else "AUROC"

    def tag(row: object) -> Cell:
        said = TAG_WORDS.get(row.tag, row.tag)
        return Cell(said, said, "name")

    columns = [words("concept", "concept", look="name"), *([Column("tag", tag)] if by_tag else [])]
    columns += [figures("latent", "latent", lambda value: "–" if is_missing(value) else f"{value:.0f}")]
    columns.append(two(f"{title}, latent", by))
    measured = [name for name in TITLES if frame[name].notna().any()]
    columns += [two(TITLES[name], name) for name in measured]
    columns += [figures("tried", "candidates", number, "latents that the best was picked from")]
    columns += [
        two_counts("n tokens with it (of)", "n_positive", "n_tokens"),
        figures("problems", "n_problems", number),
    ]
    return columns


# ------------------------------------------------------------------------------------------------ the finding


def concept_findings(study: StudyParts, tables: StudyTables) -> list[Finding]:
    """In how many concepts the best latent tells more than the best neuron, dictionary by dictionary; no finding where
    nothing was measured."""
    found = all_concepts(tables.concepts, tables.transcoder_concepts)
    if study.concepts is None or found.empty:
        return []
    f1 = beside_baselines(found, "f1")
    counted = tally(f1[f1["tag"] == "all"], "f1")
    in_pairs = counted["of"].isin(list(study.pairs))
    kinds = {"crosscoders": counted[in_pairs], "transcoders": counted[~in_pairs]}
    sums = {kind: rows.drop(columns=DICTIONARY).sum() for kind, rows in kinds.items() if len(rows)}
    sentence = (
        "Cases (a concept in a dictionary) in which the best latent's F1 lies above that of the best raw neuron, by "
        f"intervals that do not overlap: {'; '.join(f'{kind}, {_counts(row)}' for kind, row in sums.items())}."
    )
    control = "; ".join(f"{kind}, {_controls(row)}" for kind, row in sums.items())
    sample = (
        f"{found['concept'].nunique()} concepts, {len(counted)} dictionaries, at most {number(f1['n_problems'].max())} "
        "problems; intervals over problems; cases share text and models, so they are not independent"
    )
    return [Finding("Known concepts: latents beside neurons", sentence, control, sample, CAUTION)]


def _counts(row: pd.Series) -> str:
    if not row["testable"]:
        return f"cannot be said (n = 0 of {row['concepts']} can be tested)"
    above, below = row["neuron_above"], row["neuron_below"]
    return f"{above} of {row['testable']} (below in {below}, open in {row['testable'] - above - below})"


BESIDE = {"random": "as many random directions", "untrained": "the dictionary on random weights", "probe": "the probe"}


def _controls(row: pd.Series) -> str:
    told = [
        f"above {said} in {row[f'{name}_above']} of {row[f'{name}_n']}"
        for name, said in BESIDE.items()
        if row[f"{name}_n"]
    ]
    return ", ".join(told) or "none measured"


def _tally(counted: pd.DataFrame) -> Table:
    """The cases dictionary by dictionary."""

    def dictionary(row: object) -> Cell:
        said = dictionary_words(row.of, row.text, row.layer, row.point, row.seed)
        return Cell(said, said, "name")

    def above(title: str, name: str) -> Column:
        def cell(row: object) -> Cell:
            count, known = getattr(row, f"{name}_above"), getattr(row, f"{name}_n")
            return Cell(f"{count} of {known}", count, "number") if known else Cell("–", "", "number")

        return Column(title, cell)

    columns = [Column("dictionary", dictionary), figures("concepts", "concepts", number)]
    columns += [above("above best neuron", "neuron"), figures("below it", "neuron_below", number)]
    columns += [above(f"above {TITLES[name]}", name) for name in BESIDE]
    note = (
        "In how many concepts the best latent's F1 lies above that of each baseline, by intervals that do not overlap, "
        "of those in which both have one."
    )
    return table(note, counted, columns)
