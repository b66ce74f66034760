"""What is measured of each graph before graphs are compared?

One row per graph: its motifs (how many more than the null expects), its shape, how much of it is new, and what two
graphs should have in common to be compared at all.

Source: docs/methods.md §12.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reasondiff.config import GraphGates, Graphs
from reasondiff.graphs.graph import FEATURE, Graph
from reasondiff.graphs.links import linked_shares
from reasondiff.graphs.pruning import prune
from reasondiff.graphs.summary import TRACED, summarise

MOTIF, SHAPE, NEW, MATCH = "motif", "shape", "new", "match"
FAMILIES = (MOTIF, SHAPE, NEW, MATCH)
"""Kinds of measures. The last claim nothing: they say what differs between two groups of graphs that should not."""
NULL = "typed"
"""The null model whose log ratios are compared: it keeps the most."""
UNTYPED = "030T"
"""The one untyped triad that is compared: with every node's degrees kept, the others follow from it."""
REUSED_SHARE = 0.5
"""A latent counts as reused in a graph when at least this share of the other prompts' graphs hold it as well."""
EPSILON = 0.002
"""A token is plausible to a model when its probability exceeds min(EPSILON, sqrt(EPSILON) exp(-entropy)).
Source: eta sampling, Hewitt, Manning and Liang 2022, arXiv 2210.15191."""

KEYS = ["source", "prompt_id", "target"]
_IDENTITY = [*KEYS, "name"]
_SHAPES = ["depth", "feature_share", "crossing_share", "reused_share"]
_NEWS = ["linked_reasoning_only", "linked_excess"]
_MATCHES = [
    "probability", "surprisal", "entropy", "plausible", "context_tokens", "active_per_token", "features", "nodes",
    "edges", "coverage", "replacement", "completeness", "replaced_kl", "replaced_top1", "explains", "linked_control",
]  # fmt: skip
_FACTS = {SHAPE: _SHAPES, NEW: _NEWS, MATCH: _MATCHES}


@dataclass(frozen=True)
class Measured:
    """Graphs and their measures, row by row."""

    graphs: pd.DataFrame
    """source, prompt_id, target, category, context_tokens, entropy and log_edges of each graph."""
    values: pd.DataFrame
    """A column for each measure; NaN where a graph has none."""
    expected: pd.DataFrame
    """For each motif, how often the null expects it in the graph."""
    families: dict[str, str]
    """The family of each measure, in the order of the tables."""

    def __post_init__(self) -> None:
        if not len(self.graphs) == len(self.values) == len(self.expected):
            raise ValueError("graphs, values and expected counts have different numbers of rows")


def measure_graphs(
    summary: pd.DataFrame, motifs: pd.DataFrame, further: pd.DataFrame, threshold: tuple[float, float]
) -> Measured:
    """The measures of all graphs that were traced, and of all in `motifs` that come from elsewhere.

    `summary`: one row per graph (`graphs.summary`), with the columns `source` and `name` where graphs come from
    elsewhere; `motifs`: motif tables one below the other, of which the rows at `threshold` (node share, edge share)
    under the null `typed` are taken, without motifs that the null determines; `further`: what `facts_of_graphs`
    says of the study's own.

    Raises:
        ValueError: no motifs were counted at the threshold.
    """
    ratios, expected, sizes = _wide(_counted(motifs, threshold))
    graphs = _traced(summary).merge(further, on=KEYS, how="left", validate="many_to_one")
    graphs = graphs.merge(sizes, on=_IDENTITY, how="outer", suffixes=("", "_counted"), validate="one_to_one")
    graphs["category"] = graphs["category"].fillna(graphs["category_counted"])
    place = pd.MultiIndex.from_frame(graphs[_IDENTITY])
    facts = _facts(graphs)
    families = {name: MOTIF for name in ratios} | {name: family for family, names in _FACTS.items() for name in names}
    return Measured(
        graphs=graphs[[*KEYS, "category", "entropy", "context_tokens"]].assign(log_edges=_log(graphs["edges_counted"])),
        values=pd.concat([ratios.reindex(place).reset_index(drop=True), facts], axis=1)[list(families)],
        expected=expected.reindex(place).reset_index(drop=True),
        families=families,
    )


def _traced(summary: pd.DataFrame) -> pd.DataFrame:
    """The graphs that there are, with source and name (empty for the study's own)."""
    own = source_names(summary)
    graphs = summary.assign(
        source=summary["source"].fillna(own) if "source" in summary else own,
        name=summary["name"].fillna("") if "name" in summary else "",
    )
    return identified(graphs[graphs["status"] == TRACED])


def source_names(table: pd.DataFrame) -> pd.Series:
    """`<model>/seed<seed>` of each row, as the folders of graphs are called."""
    return table["model"].astype(str) + "/seed" + table["seed"].astype("Int64").astype(str)


def at_threshold(motifs: pd.DataFrame, threshold: tuple[float, float]) -> pd.DataFrame:
    """The rows counted on graphs pruned to these node and edge shares.

    Raises:
        ValueError: there are none.
    """
    found = motifs[np.isclose(motifs["node_share"], threshold[0]) & np.isclose(motifs["edge_share"], threshold[1])]
    if found.empty:
        there = motifs[["node_share", "edge_share"]].drop_duplicates().to_numpy().tolist()
        raise ValueError(f"expected motifs at node and edge shares {list(threshold)}, they were counted at {there}")
    return found


def is_claimed(motifs: pd.DataFrame) -> pd.Series:
    """False for motifs that a null determines (in most graphs), and for untyped triads that follow from another."""
    determined = motifs["motif_is_determined"].astype(float)
    share = determined.groupby([motifs[name] for name in ("null", "family", "motif")]).transform("mean")
    return (share <= 0.5) & ((motifs["family"] != "triad") | (motifs["motif"] == UNTYPED))


def identified(table: pd.DataFrame) -> pd.DataFrame:
    """A table without empty cells in what says which graph a row is of: a graph from elsewhere that names no prompt is
    its own."""
    names = [name for name in ("model", "target", "phase", "category", "name") if name in table]
    texts = {name: table[name].astype(object).fillna("").astype(str) for name in names}
    prompt = table["prompt_id"].astype(object).fillna("").astype(str)
    return table.assign(**texts, prompt_id=prompt.where(prompt != "", texts["name"]))


def _counted(motifs: pd.DataFrame, threshold: tuple[float, float]) -> pd.DataFrame:
    counted = identified(at_threshold(motifs, threshold))
    counted = counted[counted["log_ratio"].notna() & (counted["null"] == NULL)]
    counted = counted[is_claimed(counted)]
    own = ~counted["source"].str.startswith("published/")
    return counted.assign(name=counted["name"].where(~own, ""), measure=counted["family"] + " " + counted["motif"])


def _wide(counted: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """(log ratios, expected counts, one row per graph with its size), the first two with a column for each motif."""
    ratios, expected = (
        counted.pivot(index=_IDENTITY, columns="measure", values=name) for name in ("log_ratio", "null_mean")
    )
    sizes = counted[[*_IDENTITY, "category", "edges"]].drop_duplicates(_IDENTITY)
    return ratios, expected, sizes.rename(columns={"edges": "edges_counted"})


def _log(counts: pd.Series) -> np.ndarray:
    return np.log(np.maximum(counts.to_numpy(dtype=np.float64), 1.0))


def _facts(graphs: pd.DataFrame) -> pd.DataFrame:
    """The measures that are no motifs, as float64; NaN where no table knows them."""
    names = [name for several in _FACTS.values() for name in several]
    known = {name: pd.to_numeric(graphs[name]) for name in [*names, "linked_control"] if name in graphs}
    facts = pd.DataFrame(known, index=graphs.index).astype(np.float64).reindex(columns=names)
    facts["linked_excess"] = facts["linked_reasoning_only"] - facts["linked_control"]
    facts["active_per_token"] = _active_per_token(graphs, facts)
    with np.errstate(divide="ignore"):
        facts["surprisal"] = -np.log(facts["probability"])
    plausible = facts["probability"] > np.minimum(EPSILON, np.sqrt(EPSILON) * np.exp(-facts["entropy"]))
    facts["plausible"] = plausible.where(facts["probability"].notna() & facts["entropy"].notna()).astype(np.float64)
    return facts


def _active_per_token(graphs: pd.DataFrame, facts: pd.DataFrame) -> pd.Series:
    """Latents that fire, per token of the window and transcoder."""
    active, window, blocks = (
        pd.to_numeric(graphs[name]).astype(np.float64) if name in graphs else np.nan
        for name in ("active", "window", "blocks")
    )
    return active / (np.fmin(window, facts["context_tokens"]) * blocks * facts["coverage"])


# ------------------------------------------------------------------------------------------------ from graphs


def summary_elsewhere(graphs: Mapping[str, Graph], source: str, settings: Graphs, gates: GraphGates) -> pd.DataFrame:
    """What `graphs.summary.summarise` says of graphs from elsewhere, with the columns `source` and `name`.

    Scores are those that their files give, if any: they would flatter a graph that was pruned before it was written.
    """
    prompts = [_first(graph, "prompt_id", "slug", "prompt") for graph in graphs.values()]
    pruned = (prune(graph, settings.prune_nodes, settings.prune_edges) for graph in graphs.values())
    table = summarise(pruned, gates)
    return table.assign(source=source, name=list(graphs), prompt_id=prompts, status=TRACED)


def _first(graph: Graph, *names: str) -> str | None:
    return next((graph.facts[name] for name in names if graph.facts.get(name)), None)


def facts_of_graphs(pruned: Iterable[Graph], links: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What no other table says of the study's own graphs that have nodes: source, prompt_id, target, context_tokens,
    `reused_shares` and, where there are links ({source: table of `graphs.links.link_latents`}), `new_shares`."""
    graphs = [graph for graph in pruned if graph.n_nodes]
    lengths = pd.DataFrame([{**_keys(graph), "context_tokens": len(graph.tokens)} for graph in graphs])
    tables = [lengths.reindex(columns=[*KEYS, "context_tokens"]), reused_shares(latents_by_graph(graphs))]
    if links:
        of = {source: [graph for graph in graphs if _keys(graph)["source"] == source] for source in links}
        tables.append(new_shares(pd.concat([linked_shares(table, of[source]) for source, table in links.items()])))
    return functools.reduce(lambda one, other: one.merge(other, on=KEYS, how="left", validate="one_to_one"), tables)


def latents_by_graph(pruned: Iterable[Graph]) -> pd.DataFrame:
    """source, prompt_id, target, layer, latent and influence, one row for each latent of each graph; influence is
    summed over positions."""
    columns = [*KEYS, "layer", "latent", "influence"]
    tables = [pd.DataFrame(columns=columns)]
    for graph in pruned:
        nodes = graph.nodes_of(FEATURE)
        influence = graph.influence[nodes].astype(np.float64)
        table = pd.DataFrame({"layer": graph.layer[nodes], "latent": graph.feature[nodes], "influence": influence})
        tables.append(table.groupby(["layer", "latent"], as_index=False)["influence"].sum().assign(**_keys(graph)))
    return pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)[columns]


def _keys(graph: Graph) -> dict[str, str]:
    facts = graph.facts
    source = f"{facts['model']}/seed{facts['seed']}"
    return {"source": source, "prompt_id": facts["prompt_id"], "target": facts["target"]}


def reused_shares(latents: pd.DataFrame) -> pd.DataFrame:
    """source, prompt_id, target and reused_share, one row per graph of `latents_by_graph`.

    The share of the influence of a graph's latents, from 0 to 1, that is carried by latents which at least half of the
    other prompts' graphs of the same source and target hold as well; NaN without another prompt.
    """
    prompts = latents.groupby(["source", "target"])["prompt_id"].transform("nunique")
    holders = latents.groupby(["source", "target", "layer", "latent"])["prompt_id"].transform("nunique")
    elsewhere = (holders - 1) / (prompts - 1).where(prompts > 1)
    reused = latents["influence"].astype(np.float64).where(elsewhere >= REUSED_SHARE, 0.0).where(prompts > 1)
    by_graph = latents.assign(reused=reused).groupby(KEYS, sort=True)
    shares = by_graph["reused"].sum(min_count=1) / by_graph["influence"].sum()
    return shares.astype(np.float64).rename("reused_share").reset_index()


def new_shares(shares: pd.DataFrame) -> pd.DataFrame:
    """source, prompt_id, target, linked_reasoning_only and linked_control, from tables of `graphs.links.linked_shares`.

    The share of the influence of a graph's latents that is linked to `reasoning_only` latents of crosscoders, and that
    of random latents that fire as often; the mean over crosscoders.
    """
    asked = (shares["weighting"] == "influence") & (shares["quantity"] == "linked_reasoning_only")
    asked = shares[asked].assign(source=source_names(shares[asked]))
    means = asked.groupby(KEYS, sort=True)[["value", "random"]].mean()
    return means.rename(columns={"value": "linked_reasoning_only", "random": "linked_control"}).reset_index()
