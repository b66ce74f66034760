"""Do the graphs of two models differ more than those of two seeds of one, and is that usage or wiring?

Another seed of a model's transcoders gives other graphs of the same model. So a change from the base to the reasoning
model counts only beyond what the base's second seed changes, measured in the same way on the same contexts.

Three contrasts of the models are made. The reasoning model's transcoders began as those of the base's first seed:
against these, latents correspond *by index*, or are *matched*. But the seeds have no beginning in common, which makes
their graphs less alike whatever the models do: against the first seed only a change above the null says something.
Against the *second* seed the models' contrast is what the null is (no common beginning, latents matched) but for the
model. What remains in it beside the model is that the reasoning model's transcoders have been trained twice.

Source: docs/methods.md §12.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from reasondiff.config import Comparisons
from reasondiff.dictionaries.transcoder import Transcoder
from reasondiff.graphs.correspondence import by_index, matched
from reasondiff.graphs.graph import Graph
from reasondiff.graphs.wiring import QUANTITIES, Correspondence, compare
from reasondiff.statistics import adjusted, mean_of_units

MODELS, SEEDS = "reasoning - base", "seed 1 - seed 0"
Context = tuple[str, str]
"""Prompt and target."""
EVERY_TARGET = "all"
DIRECTIONS = {
    **dict.fromkeys(("total_change", "usage_set", "without_partner", "usage_strength", "wiring", "error_change"), 1),
    **dict.fromkeys(("node_overlap", "edge_overlap"), -1),
    **dict.fromkeys(("usage_set_share", "usage_strength_share", "wiring_share"), 0),
}
"""Which way a quantity has to differ from its null to be a finding: more change, less overlap, another composition."""
COLUMNS = [
    "comparison", "first", "second", "correspondence", "target", "phase", "quantity", "n", "missing", "value", "low",
    "high", "null_value", "null_low", "null_high", "null_n", "difference", "difference_low", "difference_high",
    "difference_n", "p", "p_adjusted", "verdict", "reason",
]  # fmt: skip
SHARED_BEGINNING = "the two sets of transcoders have a beginning in common, those of the null have not"
NO_NULL = "the base has no graphs of a second seed"


@dataclass(frozen=True)
class TracedSubject:
    """A model with one set of its transcoders, and the graphs made with them."""

    name: str
    """`distill/seed0`."""
    graphs: Mapping[Context, Graph]
    transcoders: Mapping[int, Transcoder]


@dataclass(frozen=True)
class Contrast:
    """Two subjects whose graphs of the same contexts are compared."""

    comparison: Literal["reasoning - base", "seed 1 - seed 0"]
    correspondence: Literal["index", "matched"]
    first: TracedSubject
    second: TracedSubject
    known: Correspondence
    same_beginning: bool


def split_changes(
    reasoning: TracedSubject, base: TracedSubject, other_seed: TracedSubject | None, settings: Comparisons
) -> pd.DataFrame:
    """For each contrast, target (and all of them) and quantity of `wiring.Change` the mean over prompts, beside that of
    the null (two seeds of the base), and the difference of the two over contexts that have both.

    `reasoning` and `base` have a beginning in common, `other_seed` (None: there is none) is the base's second seed.
    Contexts are those of `reasoning` that the other subject was asked about as well; `missing` counts those of which
    one has no graph. Figures are means over prompts, of a prompt's targets first, with 95 % intervals over prompts (NaN
    under 6). `p` is of the difference, by exchanging model and null within prompts, in the direction in which it would
    be a finding; `p_adjusted` after Benjamini and Hochberg among all rows of a contrast. A change is `found` where the
    difference's interval leaves out 0 in that direction and p_adjusted is at most the false discovery rate, else
    `not found`; `not testable` without a null or with fewer than `min_prompts` prompts. The null has no verdict.
    """
    null = None if other_seed is None else _null(base, other_seed)
    contexts = sorted(set(reasoning.graphs))
    beside = None if null is None else _changes(null, contexts)
    tables = [
        _adjusted(_rows(contrast, _changes(contrast, contexts), beside, settings), settings)
        for contrast in _contrasts(reasoning, base, other_seed)
    ]
    if null is not None:
        tables.append(_rows(null, beside, None, settings).assign(verdict="", reason=""))
    return pd.concat(tables, ignore_index=True).reindex(columns=COLUMNS)


def _contrasts(reasoning: TracedSubject, base: TracedSubject, other_seed: TracedSubject | None) -> Iterator[Contrast]:
    if (same := by_index(reasoning.transcoders, base.transcoders)) is not None:
        yield Contrast(MODELS, "index", reasoning, base, same, True)
    yield Contrast(MODELS, "matched", reasoning, base, matched(reasoning.transcoders, base.transcoders), True)
    if other_seed is not None:
        known = matched(reasoning.transcoders, other_seed.transcoders)
        yield Contrast(MODELS, "matched", reasoning, other_seed, known, False)


def _null(base: TracedSubject, other_seed: TracedSubject) -> Contrast:
    known = matched(other_seed.transcoders, base.transcoders)
    return Contrast(SEEDS, "matched", other_seed, base, known, False)


def _changes(contrast: Contrast, contexts: list[Context]) -> pd.DataFrame:
    """The quantities of each context that both subjects were asked about, by prompt and target; NaN where one of them
    has no graph. Columns phase and is_whole besides."""
    rows = []
    for context in contexts:
        if context not in contrast.first.graphs or context not in contrast.second.graphs:
            continue
        first, second = contrast.first.graphs[context], contrast.second.graphs[context]
        whole = min(first.n_nodes, second.n_nodes) > 0
        figures = asdict(compare(first, second, contrast.known)) if whole else {}
        rows.append((*context, str(first.facts.get("phase", "")), whole, *(figures.get(q, np.nan) for q in QUANTITIES)))
    columns = ["prompt_id", "target", "phase", "is_whole", *QUANTITIES]
    return pd.DataFrame(rows, columns=columns).set_index(["prompt_id", "target"])


def _rows(contrast: Contrast, changes: pd.DataFrame, null: pd.DataFrame | None, settings: Comparisons) -> pd.DataFrame:
    given = {
        "comparison": contrast.comparison, "first": contrast.first.name, "second": contrast.second.name,
        "correspondence": contrast.correspondence, "reason": SHARED_BEGINNING if contrast.same_beginning else "",
    }  # fmt: skip
    targets = changes.index.get_level_values("target")
    rows = []
    for target in [*sorted(set(targets)), EVERY_TARGET]:
        own = changes[(targets == target) | (target == EVERY_TARGET)]
        phases = own["phase"].unique()
        facts = {**given, "target": target, "phase": phases[0] if len(phases) == 1 else EVERY_TARGET}
        facts["missing"] = int((~own["is_whole"]).sum())
        tables = {"": own[list(QUANTITIES)]}
        if null is not None:
            tables["null_"] = null.reindex(own.index)[list(QUANTITIES)]
            tables["difference_"] = tables[""] - tables["null_"]
        prompts = {prefix: table.groupby("prompt_id").mean() for prefix, table in tables.items()}
        for quantity in QUANTITIES:
            of_prompts = {prefix: table[quantity].dropna().to_numpy(np.float64) for prefix, table in prompts.items()}
            rows.append({**facts, "quantity": quantity, **_figures(of_prompts, DIRECTIONS[quantity], settings)})
    return pd.DataFrame(rows).rename(columns={"difference_value": "difference"}).reindex(columns=COLUMNS)


def _figures(
    of_prompts: Mapping[str, Float[np.ndarray, " _"]], direction: int, settings: Comparisons
) -> dict[str, float | int]:
    """The mean over prompts of a quantity, of its null and of their difference, under these prefixes, and p."""
    figures = {}
    for prefix, values in of_prompts.items():
        found = asdict(mean_of_units(values, settings.bootstrap, settings.seed))
        figures |= {f"{prefix}{name}": figure for name, figure in found.items()}
    if "difference_" in of_prompts:
        figures["p"] = _p_value(of_prompts["difference_"], direction, settings)
    return figures


def _p_value(differences: Float[np.ndarray, " prompt"], direction: int, settings: Comparisons) -> float:
    """(r + 1) / (permutations + 1), r being the exchanges of model and null within prompts (signs of the differences)
    that lead at least as far in the direction, in either where it is 0."""
    if not len(differences):
        return float("nan")
    signs = np.random.default_rng(settings.seed).choice([-1.0, 1.0], (settings.permutations, len(differences)))
    drawn, seen = signs @ differences, differences.sum()
    drawn, seen = (np.abs(drawn), abs(seen)) if direction == 0 else (direction * drawn, direction * seen)
    return float((1 + (drawn >= seen - 1e-12).sum()) / (settings.permutations + 1))


def _adjusted(rows: pd.DataFrame, settings: Comparisons) -> pd.DataFrame:
    """The rows of a contrast with p_adjusted, verdict and reason."""
    rows["p_adjusted"] = adjusted(rows["p"].to_numpy(np.float64))
    said = [_verdict(row, settings) for row in rows.itertuples()]
    return rows.assign(verdict=[verdict for verdict, _ in said], reason=[reason for _, reason in said])


def _verdict(row, settings: Comparisons) -> tuple[str, str]:
    if np.isnan(row.difference_n):
        return "not testable", NO_NULL
    if row.difference_n < settings.min_prompts:
        return "not testable", f"{int(row.difference_n)} prompts have both, {settings.min_prompts} are needed"
    apart = row.difference_low > 0 or row.difference_high < 0  # in which direction is in p
    if apart and row.p_adjusted <= settings.false_discovery_rate:
        return "found", ""
    return "not found", row.reason
