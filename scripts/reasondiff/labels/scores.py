"""Does a label predict where its latent fires, better than another latent's label would?

A label score is the balanced accuracy of a judge that sees the label and held-out passages. It is read beside two
controls: a label taken from another latent that is alike in layer, tag and firing rate, and a label that is no more
than the latent's most frequent firing token.

Source: docs/methods.md §9; Paulo et al. 2024 (arXiv 2410.13928), §3.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reasondiff.config import LabelScores
from reasondiff.labels.patterns import Condition, in_words, written
from reasondiff.labels.questions import Label, Provider, Question
from reasondiff.labels.selection import rate_bins
from reasondiff.labels.tasks import NEGATIVES, SCORED_PART, Sheet, refuse_overlap, sheets_of
from reasondiff.latents.counts import wilson
from reasondiff.latents.example_table import FIRING, read_examples

CONTROLS = ("own", "shuffled", "top_token")
COLUMNS = [
    "layer", "latent", "tag", "phase", "measure", "task", "negatives", "control", "balanced_accuracy", "low", "high",
    "n_positive", "n_negative", "n_unanswered",
]  # fmt: skip

log = logging.getLogger("reasondiff.labels")
Key = tuple[int, int]


def score_labels(
    labels: Mapping[str, Any],
    examples_path: str | Path,
    firing: pd.DataFrame,
    provider: Provider,
    settings: LabelScores,
) -> pd.DataFrame:
    """One row for each labelled latent, task, kind of negatives and control.

    `labels` is the content of `labels.json`, `firing` the dictionary's firing table, `provider` a `questions.Provider`.
    `balanced_accuracy` is the mean
    of the shares of positives and of negatives judged rightly: 1 always right, 0.5 no better than a judge that says the
    same of everything; NaN where a side has no answer. `low` and `high`: 95 % over windows, NaN below 6 on a side. The
    same positives stand against each kind of negatives, and against `all` of them in detection. `n_positive` and
    `n_negative` count answered passages, `n_unanswered` those without an answer, which are neither right nor wrong.
    `phase`: of most of the firing examples. A latent that is alone in its cell of layer, tag and firing-rate tercile
    has no rows with the control `shuffled`.

    Raises:
        ArtefactError: the examples are missing or broken.
        OverlapError: examples of `score` come from documents or problems of `choose`.
        RuntimeError: the provider gave another number of answers than it was asked for.
    """
    entries = {(entry["layer"], entry["latent"]): entry for entry in labels["latents"] if entry["status"] == "labelled"}
    shown = read_examples(examples_path, list(entries), parts=["choose"])
    scored = read_examples(examples_path, list(entries), parts=[SCORED_PART])
    refuse_overlap(pd.concat([shown, scored]))
    held_out = {key: group for key, group in scored.groupby(["layer", "latent"], sort=False)}
    held_out = {key: held_out.get(key, scored.iloc[:0]) for key in entries}
    controls = _labels_by_control(entries, shown, firing, settings.seed)
    asked = [
        _Asked(key, control, sheet, label)
        for key, table in held_out.items()
        for sheet in sheets_of(table, settings)
        for control in CONTROLS
        if (label := controls[control].get(key)) is not None
    ]
    answers = ask_once(provider, [one.sheet.question(one.label) for one in asked])
    rows = []
    for one, said in zip(asked, answers, strict=True):
        facts = {"layer": one.key[0], "latent": one.key[1], "tag": entries[one.key]["tag"]}
        facts |= {"phase": main_phase(held_out[one.key]), "measure": provider.measure, "control": one.control}
        rows += [facts | figures for figures in sheet_figures(one.sheet, said)]
    return pd.DataFrame(rows, columns=COLUMNS)


@dataclass(frozen=True)
class _Asked:
    key: Key
    control: str
    sheet: Sheet
    label: Label


# ------------------------------------------------------------------------------------------------ asking


def ask_once(provider: Provider, questions: Sequence[Question]) -> list[list[bool | None]]:
    """The provider's answers; equal questions are asked once, in one call for all.

    Raises:
        RuntimeError: the provider gave another number of answers than it was asked for.
    """
    numbers: dict[str, int] = {}
    keys = [_question_key(question) for question in questions]
    distinct = []
    for key, question in zip(keys, questions, strict=True):
        if key not in numbers and question.passages:
            numbers[key] = len(distinct)
            distinct.append(question)
    answers = provider.judge(distinct) if distinct else []
    expected, came = [len(question.passages) for question in distinct], [len(answer) for answer in answers]
    if came != expected:
        raise RuntimeError(f"expected answers for {expected} passages of each question, came {came}")
    return [answers[numbers[key]] if key in numbers else [] for key in keys]


def _question_key(question: Question) -> str:
    label = question.label
    pattern = None if label.pattern is None else dict(label.pattern)
    passages = [[p.tokens, p.marked, p.phase] for p in question.passages]
    return json.dumps([question.task, label.text, label.explanation, pattern, passages], sort_keys=True)


# ------------------------------------------------------------------------------------------------ controls


def _labels_by_control(
    entries: Mapping[Key, Mapping[str, Any]], shown: pd.DataFrame, firing: pd.DataFrame, seed: int
) -> dict[str, dict[Key, Label]]:
    own = {key: Label(entry["label"], entry["explanation"], entry["pattern"]) for key, entry in entries.items()}
    other = other_latents({key: entry["tag"] for key, entry in entries.items()}, firing, seed)
    if alone := len(own) - len(other):
        log.info("%d of %d labelled latents are alone in their cell: no shuffled label for them", alone, len(own))
    same = sum(own[key].text == own[partner].text for key, partner in other.items())
    log.info("%d of %d shuffled labels read the same as the latent's own", same, len(other))
    firing_examples = shown[shown["kind"].isin(FIRING)]
    tops = {key: top_token(group) for key, group in firing_examples.groupby(["layer", "latent"], sort=False)}
    return {
        "own": own,
        "shuffled": {key: own[partner] for key, partner in other.items()},
        "top_token": {key: top_token_label(token) for key, token in tops.items() if token is not None},
    }


def other_latents(tags: Mapping[Key, str], firing: pd.DataFrame, seed: int) -> dict[Key, Key]:
    """For each latent another one of its cell: same layer, same tag, same tercile of the firing rate among the
    labelled latents of that layer and tag. Each is the other of exactly one. Latents alone in a cell are left out.

    Raises:
        ValueError: a labelled latent is not in the firing table.
    """
    columns = zip(firing["layer"], firing["latent"], firing["rate"], strict=True)
    rates = {(int(layer), int(latent)): float(rate) for layer, latent, rate in columns}
    if missing := sorted(set(tags) - set(rates)):
        raise ValueError(
            f"labelled latent (layer, latent) {missing[0]} is not in the firing table: labels and examples are of "
            "different dictionaries. Run label_latents again."
        )
    groups: dict[tuple[int, str], list[Key]] = defaultdict(list)
    for key in sorted(tags):
        groups[key[0], tags[key]].append(key)
    partners: dict[Key, Key] = {}
    generator = np.random.default_rng(seed)
    for name in sorted(groups):
        bins = rate_bins([rates[key] for key in groups[name]])
        for tercile in np.unique(bins):
            cell = [key for key, own in zip(groups[name], bins, strict=True) if own == tercile]
            order = [cell[i] for i in generator.permutation(len(cell))]
            if len(order) > 1:  # one cycle: nobody keeps its own
                partners |= dict(zip(order, order[1:] + order[:1], strict=True))
    return partners


def top_token(table: pd.DataFrame) -> str | None:
    """The token on which most firings of these examples lie; of equals the one with more activation, then the first in
    alphabetical order. None where nothing fires."""
    firings: Counter[str] = Counter()
    mass: Counter[str] = Counter()
    for tokens, activations in zip(table["tokens"], table["activations"], strict=True):
        for token, activation in zip(tokens, activations, strict=True):
            if activation > 0:
                firings[token] += 1
                mass[token] += activation
    return min(firings, key=lambda token: (-firings[token], -mass[token], token), default=None)


def top_token_label(token: str) -> Label:
    """A label that says no more than the token."""
    pattern = (Condition("token", 0, token),)
    return Label(in_words(pattern), "It responds to this token wherever it stands.", written(pattern))


# ------------------------------------------------------------------------------------------------ figures


def main_phase(table: pd.DataFrame) -> str:
    """The phase of most firing examples; of equals the first in alphabetical order; empty where there are none."""
    counts = Counter(table.loc[table["kind"].isin(FIRING), "phase"])
    return min(counts, key=lambda phase: (-counts[phase], phase), default="")


def sheet_figures(sheet: Sheet, answers: Iterable[bool | None]) -> list[dict[str, Any]]:
    """Balanced accuracy against each kind of negatives of a sheet."""
    judged = list(zip(sheet.truth, sheet.kinds, answers, strict=True))
    kinds = NEGATIVES[sheet.task]
    rows = []
    for name in ("all", *kinds) if len(kinds) > 1 else kinds:
        wanted = kinds if name == "all" else (name,)
        positive = [said for truth, _, said in judged if truth]
        negative = [said for truth, kind, said in judged if not truth and kind in wanted]
        rows.append({"task": sheet.task, "negatives": name, **_figures(positive, negative)})
    return rows


def _figures(positive: Sequence[bool | None], negative: Sequence[bool | None]) -> dict[str, Any]:
    yes = [said for said in positive if said is not None]
    no = [not said for said in negative if said is not None]
    value, low, high = balanced_accuracy(sum(yes), len(yes), sum(no), len(no))
    return {
        "balanced_accuracy": value, "low": low, "high": high, "n_positive": len(yes), "n_negative": len(no),
        "n_unanswered": len(positive) + len(negative) - len(yes) - len(no),
    }  # fmt: skip


def balanced_accuracy(right_yes: int, positives: int, right_no: int, negatives: int) -> tuple[float, float, float]:
    """(value, low, high): the mean of two independent shares, with the 95 % interval that joins their two Wilson
    intervals. NaN without a passage on either side; no interval below `counts.MIN_LATENTS` on a side.

    Unlike resampled windows, it has a width where every answer was right.
    Source: Newcombe 1998, Statistics in Medicine 17, 873-890, method 10, for half a sum in place of a difference (Zou
    and Donner 2008, Statistics in Medicine 27, 1693-1702).
    """
    yes, no = wilson(right_yes, positives), wilson(right_no, negatives)
    value = (yes.value + no.value) / 2
    below, above = np.hypot(yes.value - yes.low, no.value - no.low), np.hypot(yes.high - yes.value, no.high - no.value)
    return value, value - float(below) / 2, value + float(above) / 2
