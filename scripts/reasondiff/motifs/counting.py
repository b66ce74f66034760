"""How often does each graph hold each motif, and how often would its null models?

Source: docs/methods.md §11.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from reasondiff.config import Motifs
from reasondiff.graphs.graph import Graph
from reasondiff.graphs.pruning import prune
from reasondiff.motifs.census import TRIADS, TYPED_TRIADS, typed_census
from reasondiff.motifs.conserved import determined
from reasondiff.motifs.ensembles import draw_ensemble
from reasondiff.motifs.network import Network, network_of
from reasondiff.motifs.nulls import CYCLIC, OURS, Edges, observed_edges
from reasondiff.motifs.statistics import deviation, rank
from reasondiff.motifs.templates import TEMPLATES, signed_counts
from reasondiff.statistics import adjusted
from reasondiff.store import digest

FAMILIES = {
    "triad": TRIADS,
    "typed": tuple(one.name for one in TYPED_TRIADS),
    "signed": tuple(one.name for one in TEMPLATES),
}
"""The motifs of each family; counts come in this order."""
FAMILY = np.repeat(list(FAMILIES), [len(motifs) for motifs in FAMILIES.values()])
MOTIF = np.concatenate([list(motifs) for motifs in FAMILIES.values()])
TESTED_TOGETHER = ["source", "null", "node_share", "edge_share", "family"]
"""Benjamini and Hochberg's correction covers the rows that agree in these."""
_OF_GRAPH = {
    "source": "str", "name": "str", "model": "str", "seed": "Int64", "prompt_id": "str", "category": "str",
    "target": "str", "phase": "str", "node_share": "float64", "edge_share": "float64", "nodes": "int64",
    "edges": "int64", "null": "str",
}  # fmt: skip
_OF_MOTIF = {
    "family": "str", "motif": "str", "count": "float64", "null_mean": "float64", "null_sd": "float64",
    "states": "int64", "graph_states": "int64", "samples": "int64", "log_ratio": "float64", "delta": "float64",
    "z": "float64", "p": "float64", "p_adjusted": "float64", "mobility": "float64", "effective_samples": "float64",
    "rank": "int64", "motif_is_determined": "bool",
}  # fmt: skip
_NOTHING = {"states": 0, "graph_states": 0, "samples": 0, "rank": 0, "motif_is_determined": False}
"""Of a graph that holds nothing to count; all else is NaN."""


def count_motifs(graphs: Mapping[str, Graph], settings: Motifs, source: str, seed: int, threads: int) -> pd.DataFrame:
    """One row per graph, threshold, null and motif.

    Graphs are pruned to each threshold; at the first all of `settings.nulls` are drawn, at the others `typed` alone.
    What is reported, `typed` at the first threshold, rests on `samples` graphs, the rest on `samples_beside`. A graph
    that this leaves without an edge or with fewer than three nodes has rows all the same, with 0 states and samples,
    and NaN for what is counted. `p` is NaN for motifs that the null determines and where all graphs have the observed
    count: nothing is tested there. `p_adjusted` covers the rows that agree in `TESTED_TOGETHER`. What is drawn depends
    on the seed and the graph's name, not on the graphs beside it.
    """
    about, beside = [], []
    for name, graph in graphs.items():
        for order, (node_share, edge_share) in enumerate(settings.thresholds):
            network = network_of(prune(graph, node_share, edge_share))
            known = {
                "source": source, "name": name, **_facts(graph), "node_share": node_share, "edge_share": edge_share,
                "nodes": network.n_nodes, "edges": network.n_edges,
            }  # fmt: skip
            for null in settings.nulls if order == 0 else (OURS,):
                own_seed = int(digest(f"{seed}/{name}/{order}/{null}"), 16)
                about.append({**known, "null": null})
                is_reported = order == 0 and null == OURS
                drawn = settings if is_reported else settings.model_copy(update={"samples": settings.samples_beside})
                beside.append(beside_null(network, null, drawn, own_seed, threads))
    table = pd.DataFrame(about, columns=list(_OF_GRAPH)).astype(_OF_GRAPH)
    table = table.loc[table.index.repeat(len(MOTIF))].reset_index(drop=True)
    found = pd.concat(beside, ignore_index=True) if beside else pd.DataFrame(columns=list(_OF_MOTIF))
    table = pd.concat([table, found.astype(_OF_MOTIF)], axis=1)
    for rows in table.groupby(TESTED_TOGETHER, sort=False).indices.values():
        table.loc[rows, "p_adjusted"] = adjusted(table["p"].to_numpy()[rows])
    return table


def beside_null(network: Network, null: str, settings: Motifs, seed: int, threads: int) -> pd.DataFrame:
    """One row per motif: how many the network holds, and how many `settings.samples` graphs of a null."""
    told = {"family": FAMILY, "motif": MOTIF}
    if not network.is_countable:
        return pd.DataFrame({**told, **_NOTHING}, columns=list(_OF_MOTIF))

    def count(edges: Edges) -> Int[np.ndarray, " motif"]:
        return motif_counts(network, edges, settings.max_gap, null not in CYCLIC)

    observed = count(observed_edges(network))
    ensemble = draw_ensemble(network, null, count, settings, seed, threads)
    found = deviation(observed, ensemble.counts, ensemble.stretch, settings.min_states)
    fixed = np.concatenate([determined(network, null, family, settings.max_gap) for family in FAMILIES])
    is_tested = ~fixed & ((found.states > 1) | (observed != found.mean))
    ranks = {family: rank(ensemble.counts[:, FAMILY == family]) for family in FAMILIES}
    columns = {
        **told, "count": observed, "null_mean": found.mean, "null_sd": found.sd, "states": found.states,
        "graph_states": ensemble.graph_states, "samples": len(ensemble.counts), "log_ratio": found.log_ratio,
        "delta": found.delta, "z": found.z, "p": np.where(is_tested, found.p, np.nan), "mobility": ensemble.mobility,
        "effective_samples": found.effective_samples, "rank": [ranks[family] for family in FAMILY],
        "motif_is_determined": fixed,
    }  # fmt: skip
    return pd.DataFrame(columns, columns=list(_OF_MOTIF))


def motif_counts(network: Network, edges: Edges, max_gap: int, acyclic: bool) -> Int[np.ndarray, " motif"]:
    """How often the network's nodes, joined by these edges, hold each motif, in the order of `MOTIF`.

    `acyclic` promises that the edges make no cycle. Typed triads and signed patterns are those that an acyclic graph
    can hold, also where it is not promised.
    """
    triads = typed_census(network.kind, edges.source, edges.target, acyclic)
    return np.concatenate([triads, signed_counts(network.layer, edges.source, edges.target, edges.positive, max_gap)])


def _facts(graph: Graph) -> dict[str, Any]:
    """What the graph is of; nothing where it does not say."""
    facts = graph.facts
    prompt = facts.get("prompt_id") or facts.get("slug") or facts.get("prompt")
    return {name: facts.get(name) for name in ("model", "seed", "category", "target", "phase")} | {"prompt_id": prompt}
