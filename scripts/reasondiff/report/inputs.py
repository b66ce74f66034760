"""What does the report room read, and which settings does it need?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from reasondiff.config import (
    Bank,
    Comparisons,
    Concepts,
    Evidence,
    Gates,
    Graphs,
    Labels,
    Latents,
    Model,
    Motifs,
    Name,
    Pair,
    Prompts,
    ReportSettings,
    Settings,
    Split,
    Text,
    Tokenizer,
    Transcoders,
)
from reasondiff.report import sites
from reasondiff.store import read_json, read_json_lines, read_table


class StudyParts(Settings):
    """The sections of a study that its page speaks of."""

    study: str
    split: Split
    tokenizers: dict[Name, Tokenizer]
    models: dict[Name, Model]
    text: dict[Name, Text]
    pairs: dict[Name, Pair]
    banks: dict[str, Bank]
    transcoders: Transcoders | None
    latents: Latents
    labels: Labels
    concepts: Concepts | None
    prompts: Prompts | None
    graphs: Graphs | None
    motifs: Motifs | None
    comparisons: Comparisons | None
    evidence: Evidence
    gates: Gates
    report: ReportSettings

    def is_format_control(self, pair: str) -> bool:
        """Whether a pair compares with a model that was distilled on shuffled reasoning in the same template."""
        return any(getattr(self.models[name], "format_only", False) for name in self.pairs[pair].models)

    def place(self, pair: str, layer: int, text: str) -> str:
        """Where crosscoders of a pair stand, in words; the text is named where the study has several."""
        return f"{pair}, block output {layer}" + (f", text {text}" if len(self.text) > 1 else "")

    def studied_layers(self, pair: str) -> list[int]:
        return sorted({layer for bank in self.banks.values() if pair in bank.pairs for layer in bank.layers})


@dataclass(frozen=True)
class StudyTables:
    """Everything the stages wrote, one table per kind, with the columns that the paths say; empty if not asked for."""

    statistics: pd.DataFrame
    histograms: pd.DataFrame
    parts: pd.DataFrame
    checks: pd.DataFrame
    accuracy: pd.DataFrame
    responses: pd.DataFrame
    divergence: pd.DataFrame
    evaluations: pd.DataFrame
    baselines: pd.DataFrame
    latents: pd.DataFrame
    transcoders: pd.DataFrame
    """Evaluations of the sets."""
    transcoder_answers: pd.DataFrame
    transcoder_sweep: pd.DataFrame
    transcoder_choice: dict[str, Any] | None
    """Which sweep point was trained, and why; None where none had to be chosen."""
    label_scores: pd.DataFrame
    """Of crosscoders."""
    transcoder_label_scores: pd.DataFrame
    firing: pd.DataFrame
    """How often the latents of crosscoders fire; asked for where label scores are matched."""
    concepts: pd.DataFrame
    """Of crosscoder sites."""
    set_effects: pd.DataFrame
    """What sets of crosscoders' latents do to predictions."""
    transcoder_concepts: pd.DataFrame
    prompt_accuracy: pd.DataFrame
    """Of the benchmark prompts."""
    graph_summary: pd.DataFrame
    graph_latents: pd.DataFrame
    graph_interventions: pd.DataFrame
    graph_costs: pd.DataFrame
    motif_profiles: pd.DataFrame
    comparisons: pd.DataFrame
    """All four, one below the other."""
    split: pd.DataFrame
    """Usage and wiring."""
    labels: list[dict[str, Any]]
    """Labels of each dictionary, with the keys kind, of (pair or model), text, layer, point and seed."""
    alignment: list[dict[str, Any]]
    """Reports with the keys pair and text."""
    models: dict[str, dict[str, Any]]
    """Sizes and weights digest by model."""
    steps: dict[str, int]
    """Optimiser steps of the models that the workflow trained itself."""
    cards: dict[str, dict[str, Any]]
    """The card of every table and report, by path."""
    summaries: dict[str, pd.DataFrame]
    """Tables of the report room itself by name: counts, quality, fidelity, transcoders, gates,
    accuracy_changes, answer_changes, label_summary, label_comparison."""


FOLDERS = {
    "statistics": sites.TOKENS,
    "histograms": sites.TOKENS,
    "parts": sites.TOKENS,
    "checks": sites.TEXT,
    "accuracy": sites.MODEL,
    "responses": sites.MODEL,
    "divergence": sites.PAIR_TEXT,
    "evaluations": sites.DICTIONARY,
    "baselines": sites.SITE,
    "latents": sites.DICTIONARY,
    "transcoders": sites.TRANSCODER_SET,
    "transcoder_answers": sites.TRANSCODER_SET,
    "transcoder_sweep": sites.TRANSCODED,
    "label_scores": sites.DICTIONARY,
    "transcoder_label_scores": sites.TRANSCODER_SET,
    "firing": sites.DICTIONARY,
    "concepts": sites.SITE,
    "set_effects": sites.DICTIONARY,
    "transcoder_concepts": sites.TRANSCODER_SET,
    "prompt_accuracy": sites.PROMPTS,
    "graph_summary": sites.GRAPHS,
    "graph_latents": sites.GRAPHS,
    "graph_interventions": sites.GRAPHS,
    "graph_costs": sites.GRAPH_COSTS,
    "motif_profiles": sites.MOTIFS,
    "comparisons": sites.COMPARISONS,
    "split": sites.COMPARISONS,
}


def gather(paths: Mapping[str, str | Sequence[str]]) -> StudyTables:
    """Reads files by kind: the keys of `FOLDERS`, `alignment`, `label_files`, `transcoder_choice`, `models`,
    `histories` and `summaries`; others are left.

    Raises:
        ArtefactError: a file is missing or broken.
    """
    lists = {kind: [files] if isinstance(files, str) else list(files) for kind, files in paths.items()}
    read = {kind: {path: read_table(path) for path in lists.get(kind, [])} for kind in [*FOLDERS, "summaries"]}
    reports = {path: read_json(path) for path in lists.get("alignment", [])}
    models = {path: read_json(path) for path in lists.get("models", [])}
    cards = {path: table.attrs["card"] for tables in read.values() for path, table in tables.items()}
    choices = {path: read_json(path) for path in lists.get("transcoder_choice", [])}
    labels = {path: read_json(path) for path in lists.get("label_files", [])}
    cards |= {path: report.get("card", {}) for path, report in (reports | models | choices | labels).items()}
    return StudyTables(
        **{kind: sites.joined(read[kind], folder) for kind, folder in FOLDERS.items()},
        transcoder_choice=next(iter(choices.values()), None),
        labels=[{**found, **sites.dictionary_of(path)} for path, found in labels.items()],
        alignment=[{**report, **sites.labels(path, sites.PAIR_TEXT)} for path, report in reports.items()],
        models={info["name"]: info for info in models.values()},
        steps={Path(path).parent.name: optimiser_steps(read_json_lines(path)) for path in lists.get("histories", [])},
        cards=cards,
        summaries={Path(path).stem: table for path, table in read["summaries"].items()},
    )


def optimiser_steps(history: Iterable[Mapping[str, Any]]) -> int:
    """From a training history: rows count steps (`step`), or say how many each iteration took (`steps`)."""
    history = list(history)
    counted = max((int(row["step"]) for row in history if "step" in row), default=0)
    return counted + sum(int(row["steps"]) for row in history if "steps" in row)
