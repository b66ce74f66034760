"""How much of a graph is new: which of its latents fire as a crosscoder's latent does, and one that the base lacks?

A transcoder latent is *linked* to the latent of a crosscoder of its layer with which its activations correlate most, if
they correlate enough. The two read different places (an MLP's input in one model; a block's output in two), on the same
tokens. Latents that are in no graph and fire about as often stand beside each, since what fires often is linked more
easily; and so does the largest correlation by chance, with what the crosscoder does in the next document.

Source: docs/methods.md §12.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import product
from pathlib import PurePath
from typing import TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from reasondiff.config import Links
from reasondiff.graphs.graph import FEATURE, Graph
from reasondiff.graphs.pruning import ranked

Kind = TypeVar("Kind")
MIN_FIRINGS = 20
"""Of either latent, on the tokens read: two that fire once correlate perfectly if it is on the same token."""
CALIPER = float(np.log(2.0))
"""Latents that stand beside another differ from it by at most a factor of two in firing rate."""
LATENTS_AT_ONCE = 256  # whose correlations are held together: 100 MB with 49k latents of a crosscoder

ELSEWHERE, RARE = "no crosscoder at this layer", f"fires on fewer than {MIN_FIRINGS} of the tokens read"
COLUMNS = [
    "layer", "latent", "why", "stands_for", "draw", "firings", "tokens", "crosscoder", "crosscoder_latent",
    "correlation", "linked", "tag", "delta", "chance", "reason",
]  # fmt: skip


@dataclass(frozen=True)
class Codes:
    """What the dictionaries of one layer do on the same unmasked tokens, document after document."""

    document: Int[np.ndarray, " token"]
    transcoder: csr_array
    """[token, latent]"""
    crosscoders: Mapping[str, csr_array]
    """{name: [token, latent]}"""


def latents_of(reused: pd.DataFrame, model: str, seed: int) -> dict[int, Int[np.ndarray, " latent"]]:
    """{layer: latents} of a table of latents reused in graphs: those of one model and seed, in order."""
    own = reused[reused["model"].eq(model) & reused["seed"].eq(seed)]
    return {int(layer): np.sort(rows.to_numpy(dtype=np.int64)) for layer, rows in own.groupby("layer")["latent"]}


def by_site(paths: Sequence[str], values: Sequence[Kind]) -> dict[int, dict[str, Kind]]:
    """{layer: {"<point>/seed<seed>": value}} of crosscoders at `.../layer<layer>/<point>/seed<seed>/...`, in order."""
    found: dict[int, dict[str, Kind]] = {}
    for path, value in zip(paths, values, strict=True):
        layer, point, seed = PurePath(path).parts[-4:-1]
        found.setdefault(int(layer.removeprefix("layer")), {})[f"{point}/{seed}"] = value
    return dict(sorted(found.items()))


def link_latents(
    codes: Mapping[int, Codes],
    tables: Mapping[int, Mapping[str, pd.DataFrame]],
    in_graphs: Mapping[int, Int[np.ndarray, " latent"]],
    settings: Links,
) -> pd.DataFrame:
    """One row per crosscoder of a layer and latent of that layer that occurs in graphs or stands beside such a one.

    `tables`: {layer: {crosscoder: its latent table}}; `in_graphs`: {layer: latents that occur in graphs}.

    `why` is `graph`, or `random` for a latent that stands beside the graph latent `stands_for`; the rows of one `draw`
    are a random set. `correlation` is Pearson's, from -1 to 1, with the crosscoder's latent with which it is largest;
    `tag` and `delta` are that latent's; `chance` is the largest correlation with the code of the next document.
    `reason` says why a latent could not be judged: it is then not linked, and the figures are NaN.
    """
    rows = [pd.DataFrame(columns=COLUMNS)]
    for layer, latents in sorted(in_graphs.items()):
        if layer in codes:
            rows += _layer_links(layer, latents, codes[layer], tables[layer], settings)
        else:
            elsewhere = pd.DataFrame({"latent": latents, "stands_for": latents})
            rows.append(elsewhere.assign(layer=layer, why="graph", draw=-1, linked=False, reason=ELSEWHERE))
    return pd.concat([table for table in rows if len(table)] or rows, ignore_index=True).reindex(columns=COLUMNS)


def _layer_links(
    layer: int,
    latents: Int[np.ndarray, " latent"],
    codes: Codes,
    tables: Mapping[str, pd.DataFrame],
    settings: Links,
) -> Iterator[pd.DataFrame]:
    """The rows of one layer, a table for each crosscoder."""
    firings = _firings(codes.transcoder)
    beside = fire_alike(firings, latents, settings.random_draws, settings.seed, layer)
    graph = pd.DataFrame({"latent": latents, "stands_for": latents}).assign(why="graph", draw=-1)
    subjects = pd.concat([graph, beside.assign(why="random")], ignore_index=True)
    subjects = subjects.assign(layer=layer, firings=firings[subjects["latent"]], tokens=len(codes.document))
    enough = (subjects["firings"] >= MIN_FIRINGS).to_numpy()
    asked, place = np.unique(subjects["latent"].to_numpy()[enough], return_inverse=True)
    here, next_document = beside_next_document(codes.document)
    for name, code in codes.crosscoders.items():
        found = strongest_correlations(codes.transcoder, code, asked)
        chance = strongest_correlations(codes.transcoder[here], code[next_document], asked)
        found = found.assign(chance=chance["correlation"], reason="")
        found = found.join(tables[name][["tag", "delta"]], on="crosscoder_latent")
        rows = subjects.assign(crosscoder=name).join(found.iloc[place].set_axis(subjects.index[enough]))
        yield rows.assign(linked=rows["correlation"] >= settings.min_correlation, reason=rows["reason"].fillna(RARE))


# ------------------------------------------------------------------------------------------------ correlating


def strongest_correlations(first: csr_array, second: csr_array, latents: Int[np.ndarray, " latent"]) -> pd.DataFrame:
    """With which latent of `second`, among those that fire at least `MIN_FIRINGS` times, each of these latents of
    `first` correlates most: columns crosscoder_latent (of equal ones the first) and correlation; -1 and NaN where
    nothing varies.

    From sums alone: r = (E[xy] - E[x] E[y]) / (sd(x) sd(y)), where E[xy] is a product of sparse codes.
    """
    own, other = _Standardised(first), _Standardised(second)
    columns, every = own.code.tocsc(), other.code / max(1, second.shape[0])
    unasked = ~other.varies | (_firings(second) < MIN_FIRINGS)
    best, largest = np.full(len(latents), -1), np.full(len(latents), np.nan)
    for start in range(0, len(latents) if not unasked.all() else 0, LATENTS_AT_ONCE):
        chosen = latents[start : start + LATENTS_AT_ONCE]
        r = (columns[:, chosen].T.tocsr() @ every).toarray()  # (latent, other)
        r -= np.outer(own.mean[chosen], other.mean)
        r[:, unasked] = -np.inf
        varies, place = own.varies[chosen], np.s_[start : start + len(chosen)]
        best[place] = np.where(varies, r.argmax(1), -1)
        largest[place] = np.where(varies, r.max(1).clip(max=1), np.nan)
    return pd.DataFrame({"crosscoder_latent": best, "correlation": largest})


class _Standardised:
    """A code in units of each latent's standard deviation over tokens, in double precision, not centred."""

    def __init__(self, code: csr_array):
        tokens, values = max(1, code.shape[0]), code.data.astype(np.float64)
        mean, square = (np.bincount(code.indices, one, code.shape[1]) / tokens for one in (values, values**2))
        deviation = np.sqrt(np.maximum(square - mean**2, 0))
        self.varies = deviation > 0
        scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=self.varies)
        self.mean = mean * scale
        self.code = csr_array((values * scale[code.indices], code.indices, code.indptr), shape=code.shape)


def _firings(code: csr_array) -> Int[np.ndarray, " latent"]:
    return np.bincount(code.indices, minlength=code.shape[1])


def beside_next_document(
    document: Int[np.ndarray, " token"],
) -> tuple[Int[np.ndarray, " row"], Int[np.ndarray, " row"]]:
    """(rows, rows of the next document): each token with the one as far into the document read next, the last one's
    with the first one's. Tokens for which the other is too short are left out."""
    starts = np.flatnonzero(np.diff(document, prepend=-1))
    lengths = np.diff(starts, append=len(document))
    common = np.minimum(lengths, np.roll(lengths, -1))
    offset = np.arange(common.sum()) - np.repeat(np.cumsum(common) - common, common)
    return np.repeat(starts, common) + offset, np.repeat(np.roll(starts, -1), common) + offset


def fire_alike(
    firings: Int[np.ndarray, " latent"], latents: Int[np.ndarray, " chosen"], draws: int, seed: int, layer: int
) -> pd.DataFrame:
    """For each of `latents` the `draws` others, not among them, that are nearest in firing rate and within a factor of
    two: columns latent, stands_for, draw (in random order). One latent may stand beside several.

    Fewer where there are not so many; none beside a latent that fires too rarely to be judged.
    """
    free = np.setdiff1d(np.flatnonzero(firings >= MIN_FIRINGS), latents)
    rows = [pd.DataFrame({"latent": [], "stands_for": [], "draw": []}, dtype=np.int64)]
    for latent in latents[firings[latents] >= MIN_FIRINGS].tolist():
        apart = np.abs(np.log(firings[free]) - np.log(firings[latent]))
        nearest = np.argsort(apart, kind="stable")[:draws]
        found = free[nearest[apart[nearest] <= CALIPER]]
        order = np.random.default_rng([seed, layer, latent]).permutation(draws)[: len(found)]
        rows.append(pd.DataFrame({"latent": found, "stands_for": latent, "draw": order}))
    return pd.concat(rows, ignore_index=True)


# ------------------------------------------------------------------------------------------------ shares of graphs

SHARES = {"linked": None, "linked_reasoning_only": "reasoning_only"}
"""Which tag a linked crosscoder latent must have to count."""
WEIGHTINGS = ("count", "influence")
_OF_GRAPH = ["model", "seed", "prompt_id", "category", "target", "phase"]
SHARE_COLUMNS = [
    *_OF_GRAPH, "crosscoder", "weighting", "quantity", "value", "random", "random_low", "random_high", "p", "n", "rare",
    "elsewhere",
]  # fmt: skip


def linked_shares(links: pd.DataFrame, graphs: Iterable[Graph]) -> pd.DataFrame:
    """Per graph and crosscoder (all its layers together): which share of the latents that could be judged is linked,
    and linked to a `reasoning_only` latent, counted by node or by influence, beside the same of random sets.

    `random` is the mean over random sets (each latent replaced by one that stands beside it, with its weight),
    `random_low` and `random_high` hold 95 % of them, `p` = (r + 1) / (sets + 1), r being those that reach the value.
    `n` nodes were judged; `rare` and `elsewhere` are the shares of all latents' weight that could not be, for want of
    firings or of a crosscoder at the layer.

    `links` is the table of the graphs' model and seed, made of these graphs.

    Raises:
        ValueError: a graph has a latent that is not in the table.
    """
    of_graphs = links[links["why"].eq("graph")]
    listed = set(zip(of_graphs["layer"], of_graphs["latent"], strict=True))
    known = [_Known(name, table) for name, table in links.dropna(subset=["crosscoder"]).groupby("crosscoder")]
    rows = [row for graph in graphs for row in _shares_of_graph(graph, known, listed)]
    return pd.DataFrame(rows, columns=SHARE_COLUMNS)


class _Known:
    """What a table of links says of one crosscoder, by graph latent."""

    def __init__(self, name: str, table: pd.DataFrame):
        self.name = name
        graph, random = (table[table["why"].eq(why)] for why in ("graph", "random"))
        self.number = {key: n for n, key in enumerate(zip(graph["layer"], graph["latent"], strict=True))}
        self.judged = graph["correlation"].notna().to_numpy()  # (latent,)
        rows = [self.number[key] for key in zip(random["layer"], random["stands_for"], strict=True)]
        draws = random["draw"].to_numpy(dtype=np.int64)
        self.own, self.beside = {}, {}
        for quantity, tag in SHARES.items():
            self.own[quantity] = _fits(graph, tag)  # (latent,)
            self.beside[quantity] = np.full((len(graph), draws.max(initial=-1) + 1), np.nan)  # (latent, draw)
            self.beside[quantity][rows, draws] = _fits(random, tag)


def _fits(table: pd.DataFrame, tag: str | None) -> Float[np.ndarray, " row"]:
    """1 where a latent is linked (to one of this tag), else 0."""
    linked = table["linked"].astype(bool)
    return (linked if tag is None else linked & table["tag"].eq(tag)).to_numpy(dtype=np.float64)


def _shares_of_graph(
    graph: Graph, known: Iterable[_Known], listed: Set[tuple[int, int]]
) -> Iterator[dict[str, float | int | str]]:
    nodes = graph.nodes_of(FEATURE)
    keys = list(zip(graph.layer[nodes].tolist(), graph.feature[nodes].tolist(), strict=True))
    if unknown := sorted(set(keys) - listed):
        raise ValueError(
            f"latent {unknown[0][1]} of layer {unknown[0][0]} is in a graph of {graph.facts.get('prompt_id')}, but not "
            "in the links: expected the pruned graphs that the links were made of"
        )
    facts = {name: graph.facts.get(name) for name in _OF_GRAPH}
    weights = {"count": np.ones(len(nodes)), "influence": ranked(graph).influence[nodes]}
    for one, weighting in product(known, WEIGHTINGS):
        weight = weights[weighting]
        number = np.array([one.number.get(key, -1) for key in keys], dtype=np.int64)
        judged = (number >= 0) & np.append(one.judged, False)[number]
        unjudged = {"rare": (number >= 0) & ~judged, "elsewhere": number < 0}
        left_out = {name: _ratio(weight[chosen].sum(), weight.sum()) for name, chosen in unjudged.items()}
        for quantity in SHARES:
            shares = _beside_random(weight[judged], number[judged], one.own[quantity], one.beside[quantity])
            yield {
                **facts, "crosscoder": one.name, "weighting": weighting, "quantity": quantity, **shares,
                "n": int(judged.sum()), **left_out,
            }  # fmt: skip


def _beside_random(
    weight: Float[np.ndarray, " node"],
    number: Int[np.ndarray, " node"],
    own: Float[np.ndarray, " latent"],
    beside: Float[np.ndarray, "latent draw"],
) -> dict[str, float]:
    """The share of the weight that fits, and of random sets; `number` says which latent each node is."""
    value = _ratio((weight * own[number]).sum(), weight.sum())
    there = weight[:, None] * ~np.isnan(beside[number])  # (node, draw)
    with np.errstate(invalid="ignore"):
        drawn = (there * np.nan_to_num(beside[number])).sum(0) / there.sum(0)
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return {"value": value}
    low, high = np.percentile(drawn, [2.5, 97.5])
    reached = int((drawn >= value - 1e-12).sum())
    return {
        "value": value, "random": float(drawn.mean()), "random_low": float(low), "random_high": float(high),
        "p": (reached + 1) / (len(drawn) + 1),
    }  # fmt: skip


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")
