"""What does each graph amount to, and may it be called an explanation?

Source: docs/methods.md §10.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from reasondiff.config import GraphGates
from reasondiff.graphs.graph import FEATURE, Graph

TEXTS = ["model", "prompt_id", "category", "target", "phase", "status", "reason", "target_token"]
COUNTS = ["seed", "target_id", "blocks", "active", "features", "window", "max_features"]
FIGURES = [
    "probability", "entropy", "replacement", "completeness", "feature_share", "share_layer0", "share_target_position",
    "share_rest", "share_skip", "tokens_via_features", "coverage", "included", "stored_share", "replaced_kl",
    "logit_difference",
]  # fmt: skip
FLAGS = ["replaced_top1"]
PRUNED_COUNTS = ["nodes", "edges", "features_pruned"]
TOKENS = "tokens"
PRUNED_FIGURES = ["depth", "crossing_share"]
COLUMNS = [
    "model", "seed", "prompt_id", "category", "target", "phase", "status", "reason", "explains", "refused",
    "target_id", "target_token", TOKENS, "blocks", "active", "features", "window", "max_features", *FIGURES, *FLAGS,
    *PRUNED_COUNTS, *PRUNED_FIGURES,
]  # fmt: skip
LATENT_COLUMNS = ["model", "seed", "layer", "latent", "graphs", "prompts", "influence"]
TRACED = "traced"


def summarise(pruned: Iterable[Graph], gates: GraphGates) -> pd.DataFrame:
    """One row per pruned graph, in their order, with `COLUMNS`; shares from 0 to 1.

    The scores are facts of the whole graph. `tokens`: how long its context is. `nodes`, `edges` and `features_pruned`
    count what pruning leaves; `depth` is the mean layer of its latents over the number of blocks, weighted by their
    influence; `crossing_share` the share of the absolute weight of its edges that join two positions. `refused` says
    which gates refuse to call the graph an explanation, `explains` that none does. A graph that could not be made has
    a row with its status and reason, and no figures.
    """
    frame = pd.DataFrame([_row(graph, gates) for graph in pruned], columns=COLUMNS)
    kinds = {"float64": [*FIGURES, *PRUNED_FIGURES], "Int64": [*COUNTS, *PRUNED_COUNTS, TOKENS], "boolean": FLAGS}
    return frame.astype({name: kind for kind, names in kinds.items() for name in names})


def latents_of_graphs(pruned: Iterable[Graph]) -> pd.DataFrame:
    """One row per model, seed and latent of any pruned graph, with `LATENT_COLUMNS`: in how many graphs and of how many
    prompts, and its influence summed over these (over positions too). Those in most graphs come first."""
    rows = [row for graph in pruned for row in _latents(graph)]
    key = LATENT_COLUMNS[:4]
    table = pd.DataFrame(rows, columns=[*key, "graph", "prompt", "influence"])
    counted = table.groupby(key, as_index=False).agg(
        graphs=("graph", "nunique"), prompts=("prompt", "nunique"), influence=("influence", "sum")
    )
    falling = ["graphs", "prompts", "influence"]
    order = [*falling, *key]
    return counted.sort_values(order, ascending=[name not in falling for name in order], ignore_index=True)


def refusals(facts: Mapping[str, Any], gates: GraphGates) -> list[str]:
    """Why a graph with these facts may not be called an explanation, in words; nothing where it may."""
    if facts.get("status") != TRACED:
        return [f"there is no graph: {facts.get('reason') or 'no reason is known'}"]
    found = []
    share, coverage, blocks = (facts.get(name) for name in ("feature_share", "coverage", "blocks"))
    if not _reaches(share, gates.feature_share):
        found.append(f"feature share {_figure(share)} is under {gates.feature_share:.3g}")
    if not _reaches(coverage, gates.coverage):
        known = blocks and coverage is not None
        missing = (
            f"{round(blocks * (1 - coverage))} of {blocks} blocks have no transcoder" if known else "coverage unknown"
        )
        found.append(missing)
    return found


def _row(graph: Graph, gates: GraphGates) -> dict[str, Any]:
    refused = refusals(graph.facts, gates)
    known = {name: graph.facts.get(name) for name in (*TEXTS, *COUNTS, *FIGURES, *FLAGS)}
    shape = _shape(graph) if graph.n_nodes else {}
    return {**known, **shape, TOKENS: len(graph.tokens), "refused": "; ".join(refused) or None, "explains": not refused}


def _shape(pruned: Graph) -> dict[str, Any]:
    latents = pruned.kind == FEATURE
    size = np.abs(pruned.weight.astype(np.float64))
    crossing = pruned.position[pruned.source] != pruned.position[pruned.target]
    blocks = int(pruned.layer.max())  # the logits'
    return {
        "nodes": pruned.n_nodes,
        "edges": pruned.n_edges,
        "features_pruned": int(latents.sum()),
        "depth": _mean(pruned.layer[latents] / blocks, pruned.influence[latents]),
        "crossing_share": _mean(crossing, size),
    }


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    total = float(weights.sum(dtype=np.float64))
    return float((values * weights).sum(dtype=np.float64) / total) if total > 0 else float("nan")


def _latents(pruned: Graph) -> Iterator[tuple[Any, ...]]:
    facts = pruned.facts
    name = (facts.get("prompt_id"), facts.get("target"))
    for row in pruned.nodes_of(FEATURE):
        latent = (facts.get("model"), facts.get("seed"), int(pruned.layer[row]), int(pruned.feature[row]))
        yield (*latent, name, facts.get("prompt_id"), float(pruned.influence[row]))


def _reaches(value: float | None, least: float) -> bool:
    return value is not None and value >= least  # not a number reaches nothing


def _figure(value: float | None) -> str:
    return "unknown" if value is None or np.isnan(value) else f"{value:.3g}"
