"""Which passages is a label judged on?

All are of the part `score`, which no labeller sees. *Detection* asks of whole windows: those in which the latent fires
against silent ones of several kinds. *Fuzzing* asks of marked tokens: the tokens it fires on against as many silent
ones of the same windows.

Source: docs/methods.md §9; Paulo et al. 2024 (arXiv 2410.13928), §3.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reasondiff.config import LabelScores
from reasondiff.labels.questions import Label, Passage, Question, Task
from reasondiff.latents.example_table import SILENT

SCORED_PART = "score"
WRONG_TOKENS = "wrong_tokens"
NEGATIVES: dict[Task, tuple[str, ...]] = {"detection": SILENT, "fuzzing": (WRONG_TOKENS,)}


@dataclass(frozen=True)
class Sheet:
    """The passages of one latent and task, in an order that tells nothing, with what is true of them."""

    task: Task
    passages: tuple[Passage, ...]
    truth: tuple[bool, ...]
    """The right answer for each passage."""
    kinds: tuple[str, ...]
    """`firing`, or the kind of negative."""

    def question(self, label: Label) -> Question:
        """What a judge is asked of these passages, with this label or another latent's. The truth is not in it."""
        return Question(self.task, label, self.passages)


class OverlapError(ValueError):
    """Examples that labels are scored on come from text that a labeller was shown."""


def refuse_overlap(table: pd.DataFrame) -> None:
    """Checks that examples of the parts `choose` and `score` share no document and no problem.

    Raises:
        OverlapError: they do.
    """
    for column in ("document", "problem"):
        by_part = {part: set(group[column]) for part, group in table.groupby("part", observed=True)}
        if both := by_part.get("choose", set()) & by_part.get(SCORED_PART, set()):
            raise OverlapError(
                f"{len(both)} {column}(s), {min(both)} for one, are in the part `choose`, whose examples a labeller "
                "sees, and in `score`, on which labels are scored: the score would tell nothing. Run collect_examples "
                "again with parts that are disjoint."
            )


def sheets_of(table: pd.DataFrame, settings: LabelScores) -> list[Sheet]:
    """Detection and fuzzing of one latent from its examples of the part `score`.

    At most `positives` firing windows, taken in turn from the strongest and from each activation quantile, and at most
    `negatives` silent windows of each kind. In fuzzing, a window with fewer silent than firing tokens has as many
    marked either way, and one without silent tokens is left out.

    Raises:
        ValueError: examples of more than one latent, or of another part; a window said to be silent that is not.
    """
    if len(table) and (table.groupby(["layer", "latent"]).ngroups > 1 or set(table["part"]) != {SCORED_PART}):
        raise ValueError(f"expected examples of one latent and the part {SCORED_PART!r}")
    firing = firing_windows(table, settings.positives)
    silent = [row for kind in SILENT for row in _first(table[table["kind"] == kind], settings.negatives)]
    key = "" if not len(table) else f"{table['layer'].iloc[0]}/{table['latent'].iloc[0]}"
    detection = [(_plain(row), True, "firing") for row in firing] + [(_silent(row), False, row.kind) for row in silent]
    fuzzing = [item for row in firing for item in _fuzzed(row, f"{settings.seed}/{key}")]
    return [
        _shuffled("detection", detection, f"{settings.seed}/{key}/detection"),
        _shuffled("fuzzing", fuzzing, f"{settings.seed}/{key}/fuzzing"),
    ]


def firing_windows(table: pd.DataFrame, most: int) -> list[Any]:
    """At most `most` windows, one in turn of the strongest, the highest quantile, the next ...; none twice."""
    strongest = table[table["kind"] == "strongest"].sort_values("place", kind="stable")
    sampled = table[table["kind"] == "quantile"]
    quantiles = [group for _, group in sampled.groupby("place")]
    queues = [list(group.itertuples()) for group in (strongest, *reversed(quantiles))]
    found: dict[tuple[int, int], Any] = {}
    for row in itertools.chain.from_iterable(itertools.zip_longest(*queues)):
        if row is not None:
            found.setdefault((row.document, row.position), row)
    return list(found.values())[:most]


def _first(table: pd.DataFrame, most: int) -> Iterator:
    yield from table.sort_values("place", kind="stable").head(most).itertuples()


def _plain(row) -> Passage:
    return Passage(tuple(row.tokens), (False,) * len(row.tokens), row.phase)


def _silent(row) -> Passage:
    if any(activation > 0 for activation in row.activations):
        raise ValueError(
            f"latent {row.latent} of layer {row.layer} fires in a window of document {row.document} that is kept as "
            f"silent ({row.kind}). Run collect_examples again."
        )
    return _plain(row)


def _fuzzed(row, seed: str) -> Iterator[tuple[Passage, bool, str]]:
    """The window with firing tokens marked, and with as many silent ones marked."""
    firing = [i for i, activation in enumerate(row.activations) if activation > 0]
    silent = [i for i, activation in enumerate(row.activations) if not activation > 0]
    number = min(len(firing), len(silent))
    if not number:
        return
    generator = random.Random(f"{seed}/{row.document}/{row.position}")
    for where, truth, kind in ((firing, True, "firing"), (silent, False, WRONG_TOKENS)):
        marked = set(generator.sample(where, number))
        marks = tuple(i in marked for i in range(len(row.tokens)))
        yield Passage(tuple(row.tokens), marks, row.phase), truth, kind


def _shuffled(task: Task, items: Iterable[tuple[Passage, bool, str]], seed: str) -> Sheet:
    items = list(items)
    random.Random(seed).shuffle(items)
    passages, truth, kinds = ([item[part] for item in items] for part in range(3))
    return Sheet(task, tuple(passages), tuple(truth), tuple(kinds))
