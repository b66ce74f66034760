"""Examples, labels, label scores and concepts as the stages write them, of latents that are set by hand."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `made_up_examples`

import pandas as pd  # noqa: E402
from made_up_examples import planted_rows  # noqa: E402

from reasondiff.latents.example_table import table_of, write_examples  # noqa: E402
from reasondiff.report.latent_pages import PageFiles  # noqa: E402
from reasondiff.store import write_json, write_table  # noqa: E402

PAIR = "crosscoders/base-distill/traces/layer3/btk24/seed0"
SET = "transcoders/distill/traces/x4k8/seed0"
PHASES = {"template": 0, "prompt": 400, "think": 500, "answer": 100, "text": 0}
CARD = {"tokens": 1000, **{f"tokens_{phase}": count for phase, count in PHASES.items()}}
CARD |= {"traces_correct": 7, "traces_incorrect": 3, "tokens_correct": 420, "tokens_incorrect": 180}
CARD |= {"histogram_edges": [1.0, 10.0]}
TRIGGERS = ("Wait", "seven", "paper", "glass")
TAGS = ("reasoning_only", "base_only", "shared", "other")
NO_USAGE = {"requests": 0, "input_tokens": 0, "output_tokens": 0, "dollars": 0.0}


def firing(latents: Sequence[int], layer: int = 3) -> pd.DataFrame:
    """Each latent fires on 20 of 1,000 tokens: 12 below 1, 8 from 1 to 10."""
    rows = []
    for latent in latents:
        row: dict[str, Any] = {"layer": layer, "latent": latent, "firings": 20, "rate": 0.02}
        row |= {f"rate_{phase}": 0.02 if count else float("nan") for phase, count in PHASES.items()}
        row |= {"rate_correct": 0.03, "rate_incorrect": 0.01, "traces_correct": 0.5, "traces_incorrect": 0.25}
        row |= {"mean_activation": 1.23456, "max_activation": 3.0, "histogram": [12, 8, 0]}
        rows.append({**row, "neighbour": 1 if latent == 0 else -1, "neighbour_cosine": 0.5})
    return pd.DataFrame(rows)


def logits(latents: Sequence[int], models: Sequence[str], layer: int = 3) -> pd.DataFrame:
    ends = {"raised": [" up", "\n"], "raised_by": [1.5, 0.5], "lowered": [" down"], "lowered_by": [-2.0]}
    return pd.DataFrame([{"layer": layer, "latent": one, "model": name, **ends} for one in latents for name in models])


def label(latent: int, tag: str = "shared", layer: int = 3, **other: Any) -> dict[str, Any]:
    """A row of `labels.json`."""
    row = {"layer": layer, "latent": latent, "why": "page", "tag": tag, "status": "labelled"}
    row |= {"label": f"the word {TRIGGERS[latent % 4]}", "explanation": "It fires on one word.", "reason": None}
    return {**row, "pattern": {"tokens": []}, **other}


def labels(rows: Sequence[Mapping[str, Any]], provider: str = "offline", **usage: float) -> dict[str, Any]:
    model = None if provider == "offline" else "claude-sonnet-4-5"
    return {"provider": provider, "model": model, "latents": list(rows), "usage": {**NO_USAGE, **usage}}


def write_dictionary(
    home: Path,
    folder: str = PAIR,
    rows: Sequence[Mapping[str, Any]] | None = None,
    triggers: Sequence[str] = TRIGGERS,
    provider: str = "offline",
) -> PageFiles:
    """Writes the four files of a dictionary whose latents fire on one word each; `rows`: the labels."""
    numbers = range(len(triggers))
    models = ["base", "distill"] if folder.startswith("crosscoders") else ["distill"]
    files = {kind: str(home / folder / f"{kind}.parquet") for kind in ("examples", "firing", "logits")}
    files["labels"] = str(home / folder / "labels.json")
    write_examples(files["examples"], table_of(planted_rows(triggers)), {})
    write_table(files["firing"], firing(numbers), CARD)
    write_table(files["logits"], logits(numbers, models), {})
    tag = TAGS if folder.startswith("crosscoders") else ["transcoder"] * 4
    given = [label(one, tag[one % 4]) for one in numbers] if rows is None else rows
    write_json(files["labels"], labels(given, provider), {"code": "0123"})
    return PageFiles(**files)


def latent_table(latents: int = 4) -> pd.DataFrame:
    """The latent table of the crosscoder: number 0 leans to distill, 1 to base, the others are shared."""
    deltas = {0: 0.02, 1: 0.97}
    rows = []
    for latent in range(latents):
        delta = deltas.get(latent, 0.5)
        row: dict[str, Any] = {"latent": latent, "delta": delta, "tag": TAGS[min(latent, 2)]}
        row |= {"decoder_norm_0": delta, "decoder_norm_1": 1 - delta, "template": latent == 1}
        row |= {"scaling": "specific" if latent < 2 else "not_specific", "auroc_owner": 0.95, "auroc_other": 0.6}
        for name in ("nu_reconstruction", "nu_error"):
            row |= {name: 0.1, f"{name}_low": 0.05, f"{name}_high": 0.2}
        row |= {"decoder_cosine": 0.4, "encoder_cosine": 0.3, "rate": 0.01, "mean_activation": 1.0, "firings": 90}
        row |= {"replication": "replicated", "replicas": 2, "replica_seeds": 2}
        rows.append({**row, "rate_think": 0.02})
    return pd.DataFrame(rows)


def score(latent: int, control: str = "own", value: float = 0.9, tag: str = "shared", **other: Any) -> dict[str, Any]:
    """A row of `label_scores.tsv`."""
    row = {"layer": 3, "latent": latent, "tag": tag, "phase": "think", "measure": "pattern fit", "task": "detection"}
    row |= {"negatives": "all", "control": control, "balanced_accuracy": value, "low": value - 0.1}
    return {**row, "high": value + 0.05, "n_positive": 12, "n_negative": 18, "n_unanswered": 0, **other}


def concept(name: str, kind: str, value: float, **other: Any) -> dict[str, Any]:
    """A row of `concepts.tsv`, picked by F1; intervals of 0.05 either way."""
    row = {
        "concept": name,
        "layer": 3,
        "point": "btk24",
        "seed": 0,
        "kind": kind,
        "tag": "all",
        "model": "base-distill",
    }
    row |= {"unit": 17, "threshold": 0.5, "picked_by": "f1", "candidates": 768, "reason": ""}
    for figure in ("f1", "auroc"):
        row |= {figure: value, f"{figure}_low": value - 0.05, f"{figure}_high": value + 0.05}
        row[f"{figure}_choose"] = value + 0.01
    return {**row, "n_positive": 300, "n_tokens": 5000, "n_problems": 40, **other}
