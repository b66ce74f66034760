"""How do the searches for the best candidates of all concepts become one table?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from reasondiff.config import Concepts
from reasondiff.latents.concept_candidates import TAGS, Candidates
from reasondiff.latents.concept_reading import ReadPart, why_not_testable
from reasondiff.latents.concept_scores import Figures, Judge, Responses, figures_of
from reasondiff.text.concepts import CONCEPT_NAMES

KINDS = ("latent", "neuron", "random direction", "untrained dictionary", "probe")
COLUMNS = (
    "concept", "layer", "point", "seed", "kind", "tag", "model", "unit", "sign", "threshold", "f1", "f1_low", "f1_high",
    "auroc", "auroc_low", "auroc_high", "f1_choose", "auroc_choose", "picked_by", "candidates", "n_positive",
    "n_tokens", "n_problems", "reason",
)  # fmt: skip
NO_MEMBERS = "no latent has this tag"


def concept_table(
    layer: int, choose: ReadPart, score: ReadPart, searches: Sequence[Candidates], settings: Concepts
) -> pd.DataFrame:
    """One row per concept, search, tag and figure that was picked by, with the columns `COLUMNS`.

    A concept that is not testable has one row per dictionary, with the reason and no figures; so has a tag without
    latents. `threshold` is empty where the best candidate fires on no token of the concept.
    """
    reasons = [why_not_testable(choose, score, concept) for concept in range(len(CONCEPT_NAMES))]
    testable = [concept for concept, reason in enumerate(reasons) if not reason]
    judge = Judge(score.marks, score.problem, settings.bootstrap, settings.seed)
    rows = []
    for search in searches:
        found = _rows(search, testable, choose, score, judge)
        rows += [{**row, "point": point, "seed": seed} for point, seed in search.dictionaries for row in found]
        rows += [
            {**_told(search, concept, "all"), "point": point, "seed": seed, "candidates": search.n, "reason": reason}
            for point, seed in search.dictionaries
            for concept, reason in enumerate(reasons)
            if reason and search.kind == "latent"
        ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame["n_positive"] = frame["concept"].map(dict(zip(CONCEPT_NAMES, score.marks.sum(1), strict=True)))
    frame["seed"] = frame["seed"].astype("Int64")
    return _ordered(frame.assign(layer=layer, n_tokens=len(score), n_problems=score.problems))


def _told(search: Candidates, concept: int, tag: str) -> dict[str, Any]:
    own = {"concept": CONCEPT_NAMES[concept], "kind": search.kind, "model": search.model, "tag": tag}
    return {**own, "picked_by": "", "reason": ""}


def _rows(
    search: Candidates, testable: Sequence[int], choose: ReadPart, score: ReadPart, judge: Judge
) -> list[dict[str, Any]]:
    """The rows of one search: picked on `choose`, reported on `score`."""
    if not testable:
        return []
    found = _figures(search, choose, choose.marks[testable])
    rows = []
    for column, concept in enumerate(testable):
        for tag, members in search.members(concept).items():
            told = {**_told(search, concept, tag), "candidates": len(members)}
            if not len(members):
                rows.append({**told, "reason": NO_MEMBERS})
            for by in ("f1", "auroc") if len(members) else ():
                best = int(members[np.argmax(getattr(found, by)[members, column])])  # of equal ones the first
                rows.append({**told, "picked_by": by, "candidate": best, "column": column, "index": concept})
    picked = [row for row in rows if "candidate" in row]
    _report(picked, search, found, score, judge)
    return rows


def _figures(search: Candidates, choose: ReadPart, marks: np.ndarray) -> Figures:
    """How well each candidate tells each testable concept on `choose`."""
    pieces = [figures_of(search.respond(choose, some), marks) for some in search.pieces(len(choose))]
    names = ("f1", "threshold", "auroc")
    empty = np.zeros((0, len(marks)))
    return Figures(*(np.concatenate([empty, *(getattr(piece, name) for piece in pieces)]) for name in names))


def _report(picked: list[dict[str, Any]], search: Candidates, found: Figures, score: ReadPart, judge: Judge) -> None:
    """Completes the rows of what was picked with what it is worth on `score`; nothing is chosen here."""
    wanted = np.unique([row["candidate"] for row in picked]).astype(np.int64)
    known: dict[tuple[int, int], dict[str, float]] = {}
    for some in np.array_split(wanted, max(1, -(-len(wanted) // search.at_once(len(score))))):
        for candidate, tokens, values in _each(search.respond(score, some), some):
            for row in picked:
                key = (candidate, row["index"])
                if row["candidate"] == candidate and key not in known:
                    threshold = float(found.threshold[candidate, row["column"]])
                    known[key] = asdict(judge.report(row["index"], tokens, values, threshold))
    for row in picked:
        candidate, column, concept = (row.pop(name) for name in ("candidate", "column", "index"))
        row |= known[candidate, concept]
        row["unit"], row["sign"] = search.unit(candidate)
        threshold = float(found.threshold[candidate, column])
        row["threshold"] = threshold if np.isfinite(threshold) else float("nan")
        row["f1_choose"], row["auroc_choose"] = (float(figure[candidate, column]) for figure in (found.f1, found.auroc))


def _each(responses: Responses, some: Int[np.ndarray, " some"]):
    """(candidate, its tokens, its responses), one candidate after the other."""
    order = np.argsort(responses.candidates, kind="stable")
    begins = np.searchsorted(responses.candidates[order], np.arange(len(some) + 1))
    for place, candidate in enumerate(some.tolist()):
        own = order[begins[place] : begins[place + 1]]
        yield candidate, responses.tokens[own], responses.values[own]


def _ordered(frame: pd.DataFrame) -> pd.DataFrame:
    """By concept, kind, dictionary, tag, model and what was picked by."""
    ranks = {"concept": CONCEPT_NAMES, "kind": KINDS, "tag": ("all", *TAGS), "picked_by": ("", "f1", "auroc")}
    keys = pd.DataFrame({name: frame[name].map(order.index) for name, order in ranks.items()})
    for name in ("point", "model"):
        keys[name] = frame[name].fillna("").astype(str)
    keys["seed"] = frame["seed"].fillna(-1)
    order = keys.sort_values(["concept", "kind", "point", "seed", "tag", "model", "picked_by"], kind="stable").index
    return frame.loc[order].reset_index(drop=True)
