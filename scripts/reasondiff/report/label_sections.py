"""What stands in the section on labels: who labelled what, how well the labels tell, and which do it better?"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from reasondiff.labels.comparison import HEADLINE
from reasondiff.latents.counts import LEANING_DELTA
from reasondiff.report.blocks import (
    Cell,
    Column,
    Details,
    Figure,
    Finding,
    Paragraph,
    Section,
    figures,
    table,
    two_counts,
    with_interval,
    words,
)
from reasondiff.report.drawing import TAG_WORDS
from reasondiff.report.inputs import StudyParts, StudyTables
from reasondiff.report.label_tables import BY_DELTA, beside_controls, failures, labelled
from reasondiff.report.latent_pages import MEASURES
from reasondiff.report.wording import decimals, direction, interval, is_missing, listed, number

CIRCULAR = (
    "Pattern fit: the offline labeller judges its own patterns, which is circular; it says nothing about "
    "interpretability."
)


def labels(study: StudyParts, tables: StudyTables, drawn: Mapping[str, Figure]) -> Section:
    """Labels, their scores beside the controls, and exclusive latents beside shared ones."""
    frame = labelled(tables.labels)
    if not frame["asked"].sum():
        return Section("labels", "Labels", [Paragraph("No latent was chosen for a label (n = 0).")])
    blocks: list[object] = [Paragraph(_who(frame)), _labelled(frame), *_failures(tables.labels)]
    blocks += [*_scores(tables.summaries["label_summary"], study, drawn)]
    blocks += _compared(tables.summaries["label_comparison"])
    return Section("labels", "Labels", blocks)


# ------------------------------------------------------------------------------------------------ who labelled what


def _who(frame: pd.DataFrame) -> str:
    """By whom, how many, for how much."""
    parts = []
    for provider, rows in frame.groupby("provider", sort=False):
        of = listed(sorted(set(rows["model"].dropna())))
        by = "the offline labeller (patterns of tokens, phases and contexts; no model is asked)"
        by = by if provider == "offline" else f"{of} (provider {provider})"
        said = f"{number(rows['labelled'].sum())} of {number(rows['asked'].sum())} latents were labelled by {by}; "
        said += f"{number(rows['failed'].sum())} failed, {number(rows['no_examples'].sum())} have no examples"
        if provider != "offline":
            said += f"; {number(rows['requests'].sum())} requests, {_dollars(rows['dollars'].sum())}"
        parts.append(said + ".")
    parts.append("A failure is never a label. Labels are words about what a latent responds to, no proof of it.")
    return " ".join(parts)


def _dollars(value: float) -> str:
    return f"{value:,.2f} dollars"


def _labelled(frame: pd.DataFrame) -> object:
    def dictionary(row: object) -> Cell:
        layer = "" if is_missing(row.layer) else f"layer {row.layer:.0f}, "
        said = f"{layer}{row.point}, seed {row.seed:.0f}"
        return Cell(said, said, "name")

    columns = [words("pair or model", "of", look="name")]
    columns += [words("text", "text")] if frame["text"].nunique() > 1 else []
    columns += [Column("dictionary", dictionary), words("provider", "provider")]
    columns += [words("model", "model")] if frame["model"].notna().any() else []
    counts = {"asked": "asked", "labelled": "labelled", "failed": "failed", "no examples": "no_examples"}
    counts |= {"top of their tag": "pages", "in graphs": "graphs", "sampled": "sampled"}
    columns += [figures(title, name, "{:.0f}".format) for title, name in counts.items()]
    if (frame["requests"] > 0).any():
        tokens = {"requests": "requests", "tokens read": "input_tokens", "tokens written": "output_tokens"}
        columns += [figures(title, name, number) for title, name in tokens.items()]
        columns.append(figures("cost", "dollars", _dollars))
    return table(f"Latents that were to be labelled (n = {number(frame['asked'].sum())}).", frame, columns)


def _failures(found: Sequence[Mapping[str, Any]]) -> list[object]:
    frame = failures(found)
    if frame.empty:
        return []
    columns = [words("pair or model", "of", look="name"), figures("layer", "layer", "{:.0f}".format)]
    columns += [words("point", "point"), figures("latent", "latent", "{:.0f}".format), words("label", "status")]
    columns.append(words("why", "reason"))
    note = "They are asked again with the next run; latents without examples fire nowhere in the text for labellers."
    return [Details(f"Latents without a label ({len(frame)})", [table(note, frame, columns)])]


# ------------------------------------------------------------------------------------------------ scores


def _scores(found: pd.DataFrame, study: StudyParts, drawn: Mapping[str, Figure]) -> list[object]:
    """The figure, the table by tag, and the finer ones to unfold."""
    if found.empty:
        return [Paragraph("No label was scored (n = 0).", "note")]
    frame = beside_controls(found, study.pairs)
    is_headline = frame["negatives"] == frame["task"].map(HEADLINE)
    detection = frame[is_headline & (frame["task"] == "detection")]
    by_tag = detection[detection["split"].isin(["all", "tag"])]
    finer = detection[detection["split"].isin(["layer", "phase"])]
    fuzzing = frame[is_headline & (frame["task"] == "fuzzing")]
    apart = frame[~is_headline & (frame["split"] == "all")]
    note = (
        f"Detection, by tag ({listed(frame['measure'].unique())}): does the latent fire in this window? Balanced "
        "accuracy on held-out windows that no labeller saw, mean over latents; 0.5 is chance. Own: the latent's own "
        "label; shuffled: that of another latent of the same layer, tag and firing rate; top token: only its most "
        "frequent firing token. Intervals over latents; dashes below 6 latents."
    )
    hard = (
        "Each kind of negatives on its own: random windows, windows with the same top token on which it is silent, "
        "windows of the nearest latent by decoder direction."
    )
    blocks: list[object] = [drawn["label_scores"]] if "label_scores" in drawn else []
    if (found["measure"] == MEASURES["offline"]).any():
        blocks.append(Paragraph(CIRCULAR))
    phase = "The same by layer and phase; the phase is that of most of a latent's firing examples."
    return [
        *blocks,
        table(note, by_tag, _score_columns()),
        Details(f"By layer and phase ({len(finer)} rows)", [table(phase, finer, _score_columns())]),
        Details(
            f"Fuzzing ({len(fuzzing)} rows)",
            [table("Fuzzing: are the marked tokens those it fires on?", fuzzing, _score_columns())],
        ),
        Details(f"By kind of negatives ({len(apart)} rows)", [table(hard, apart, _score_columns(negatives=True))]),
    ]


def _score_columns(negatives: bool = False) -> list[Column]:
    two = functools.partial(with_interval, places=2)

    def group(row: object) -> Cell:
        said = "all" if row.split == "all" else f"{row.split} {TAG_WORDS.get(row.group, row.group)}"
        return Cell(said, said, "name")

    columns = [words("pair or model", "of", look="name")]
    columns += [words("negatives", "negatives")] if negatives else []
    columns.append(Column("latents", group))
    columns += [two("own", "own"), two("shuffled", "shuffled"), two("top token", "top_token")]
    columns += [two("own − shuffled", "beyond_shuffled", hint="latent by latent, where a shuffled label was at hand")]
    columns += [two("own − top token", "beyond_top_token")]
    return [*columns, two_counts("n latents (windows)", "n_latents", "n_windows")]


# ------------------------------------------------------------------------------------------------ exclusive and shared


def _compared(found: pd.DataFrame) -> list[object]:
    if found.empty:
        return []

    def which(row: object) -> Cell:
        if row.by == BY_DELTA:
            said = f"Δ < {LEANING_DELTA:g}" if row.side == "reasoning" else f"Δ > {1 - LEANING_DELTA:g}"
        else:
            said = TAG_WORDS[f"{row.side}_only"]
        return Cell(said, said, "name")

    shown = found.rename(columns={"low": "difference_low", "high": "difference_high"})
    columns = [words("pair", "pair", look="name"), Column("exclusive are", which), words("task", "task")]
    columns += [words("negatives", "negatives"), figures("exclusive", "exclusive", _two)]
    columns += [figures("shared", "shared", _two)]
    columns += [with_interval("difference", "difference", 2), figures("n couples", "n_matched", number)]
    columns += [two_counts("of exclusive (shared)", "n_exclusive", "n_shared"), words("remark", "reason")]
    note = (
        "Labels of latents that belong or lean to one model beside those of shared ones "
        f"({listed(found['measure'].unique())}): each is matched with a shared latent of the same dictionary that "
        "fires alike (within a factor of two in rate and in maximum). Intervals over couples."
    )
    is_headline = (shown["negatives"] == shown["task"].map(HEADLINE)) & (shown["n_exclusive"] > 0)
    apart = shown[~is_headline]
    more = "Each kind of negatives on its own, and pairs without an exclusive latent."
    return [
        table(note, shown[is_headline], columns),
        Details(f"By kind of negatives ({len(apart)} rows)", [table(more, apart, columns)]),
    ]


_two = functools.partial(decimals, places=2)


def label_findings(study: StudyParts, tables: StudyTables) -> list[Finding]:
    """For each effect pair whether the labels of latents that lean to its last model say more of them than those of
    shared latents; nothing where no label was scored."""
    found = tables.summaries["label_comparison"]
    chosen = found[(found["by"] == BY_DELTA) & (found["side"] == "reasoning") & (found["task"] == "detection")]
    chosen = chosen[chosen["negatives"] == HEADLINE["detection"]]
    by_pair = {row.pair: row for row in chosen.itertuples()}
    effects = [name for name, pair in study.pairs.items() if pair.role == "effect" and name in by_pair]
    return [_finding(name, by_pair[name], by_pair.get(study.pairs[name].control), study) for name in effects]


def _finding(name: str, row: Any, null: Any, study: StudyParts) -> Finding:
    model, offline = study.pairs[name].models[-1], row.measure == MEASURES["offline"]
    which = f"latents that lean to {model} (Δ < {LEANING_DELTA:g})"
    if is_missing(row.difference):
        asked = "have patterns that fit better or worse" if offline else "are more or less interpretable"
        sentence = f"Whether {which} {asked} than shared ones cannot be said (n = {row.n_matched:.0f} matched)."
    else:
        up, down = OFFLINE_WORDS if offline else CLAUDE_WORDS
        said = direction(row.low, row.high, up, down, "no difference that the interval allows to claim")
        sentence = (
            f"{'Patterns' if offline else 'Labels'} of {which} score {_two(row.exclusive)}, those of shared ones that "
            f"fire alike {_two(row.shared)}: difference {_difference(row)}; {said}."
        )
    control = f"shared latents of the same dictionaries, matched on firing rate and maximum; {_null(null, study, name)}"
    sample = (
        f"{row.n_matched:.0f} couples of {row.n_exclusive:.0f} leaning and {row.n_shared:.0f} shared latents; "
        "detection, all negatives; interval over couples, retraining is not covered"
    )
    about = f"{name}: {'pattern fit' if offline else 'interpretability'} of its latents"
    return Finding(about, sentence, control, sample, CIRCULAR if offline else "")


OFFLINE_WORDS = ("their patterns fit better", "their patterns fit worse")
CLAUDE_WORDS = ("they are more interpretable", "they are less interpretable")


def _difference(row: Any) -> str:
    """`+0.03 (−0.02 to 0.08)`."""
    return f"{row.difference:+.2f}".replace("-", "−") + f" ({interval(row.low, row.high, places=2)})"


def _null(null: Any, study: StudyParts, name: str) -> str:
    """The same difference in the control pair."""
    control = study.pairs[name].control
    if control is None:
        return "no control pair"
    if null is None or is_missing(null.difference):
        return f"in {control} it cannot be said (n = {0 if null is None else null.n_matched:.0f})"
    return f"in {control} {_difference(null)}, n = {null.n_matched:.0f}"
