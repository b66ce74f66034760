"""How is a graph drawn in which every node has the same number of edges of each kind?

By trades: two nodes throw together what only one of them is joined to, and divide it anew.

Source: docs/methods.md §11; Strona et al. 2014, Nature Communications 5:4114, for two sets. Types, signs and position
classes are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Int, UInt64
from numba import njit

from reasondiff.motifs.network import Network
from reasondiff.motifs.nulls import Edges
from reasondiff.motifs.random_numbers import below, next_bits


@dataclass(frozen=True)
class TypedWalk:
    """A symmetric walk over the graphs that keep what `typed` keeps.

    A step is a trade. Two nodes of one layer are drawn, with even chances as sources or as targets of edges, and what
    lies at the other end of one's edges may become the other's: nodes that only one of them is joined to, and
    nodes that both are joined to with opposite signs, where these two would change places. Left out are nodes to which
    the two do not have the same position class (both before them, or both beside them). Among the nodes of one type,
    with one sign (or with opposite ones), any division is drawn with equal chances that leaves each of the two as many
    as it had. That undoes itself as often, and who is drawn does not depend on the graph: in the long run all graphs
    within reach are equally likely. A graph is out of reach where three nodes would have to trade at once.
    """

    network: Network
    traders: tuple[Int[np.ndarray, " as_source"], Int[np.ndarray, " as_target"]]
    """Nodes that may trade as sources, and as targets: those of a layer stand side by side."""
    begins: tuple[Int[np.ndarray, " as_source"], Int[np.ndarray, " as_target"]]
    """For each, where the traders of its layer begin."""
    sizes: tuple[Int[np.ndarray, " as_source"], Int[np.ndarray, " as_target"]]
    """And how many they are, with itself."""

    def __call__(self, state: UInt64[np.ndarray, "1"], edges: Edges, offers: int) -> Edges:
        """The graph that some trades lead to from another: as many as offer each edge `offers` times on average."""
        source, target, positive = edges.source.copy(), edges.target.copy(), edges.positive
        trades = offers * (len(self.traders[0]) + len(self.traders[1])) // 2
        of_nodes = (self.network.kind, self.network.position)
        _trade(state, source, target, positive, *of_nodes, self.traders, self.begins, self.sizes, trades)
        return Edges(source, target, positive)


def typed_walk(network: Network) -> TypedWalk:
    """The walk over the graphs of the null `typed`."""
    found = [_traders(network, ends) for ends in (network.source, network.target)]
    traders, begins, sizes = zip(*found, strict=True)
    return TypedWalk(network, traders, begins, sizes)


def _traders(
    network: Network, ends: Int[np.ndarray, " edge"]
) -> tuple[Int[np.ndarray, " trader"], Int[np.ndarray, " trader"], Int[np.ndarray, " trader"]]:
    """Nodes at these ends of edges that are not alone in their layer; where their layer's begin; how many these are."""
    nodes = np.unique(ends)
    _, layer, sizes = np.unique(network.layer[nodes], return_inverse=True, return_counts=True)
    kept = sizes[layer] > 1
    nodes, layer = nodes[kept][np.argsort(layer[kept], kind="stable")], np.sort(layer[kept])
    return nodes, np.searchsorted(layer, layer), sizes[layer]


# ----------------------------------------------------------------------------------------------- compiled


@njit(cache=True, nogil=True)
@no_type_check
def _trade(state, source, target, positive, kind, position, traders, begins, sizes, trades):
    """Trades of `TypedWalk`, in place: a couple of one layer is drawn, and what they offer is divided anew."""
    ends = (source, target)
    lists = (_edges_at(len(kind), source), _edges_at(len(kind), target))
    edge_of = np.full(len(kind), -1, np.int64)
    both = np.empty(len(source), np.int64)
    offers = np.empty((4, len(source)), np.int64)
    for _ in range(trades):
        side = np.int64(next_bits(state) & np.uint64(1))
        if len(traders[side]) == 0:
            continue
        i = below(state, len(traders[side]))
        j = begins[side][i] + below(state, sizes[side][i] - 1)
        j += j >= i
        a, b = traders[side][i], traders[side][j]
        start, listed = lists[side]
        n = _offered(a, b, ends[1 - side], start, listed, positive, kind, position, edge_of, offers)
        _divide(state, a, b, ends[side], offers[:, :n])
        _list_again(a, b, ends[side], start, listed, both)


@njit(cache=True, nogil=True)
@no_type_check
def _edges_at(nodes, ends):
    """Where each node's edges begin in the list of edges by node; that list."""
    start = np.zeros(nodes + 1, np.int64)
    for e in range(len(ends)):
        start[ends[e] + 1] += 1
    for v in range(nodes):
        start[v + 1] += start[v]
    place, listed = start[:-1].copy(), np.empty(len(ends), np.int64)
    for e in range(len(ends)):
        listed[place[ends[e]]] = e
        place[ends[e]] += 1
    return start, listed


@njit(cache=True, nogil=True)
@no_type_check
def _offered(a, b, other, start, listed, positive, kind, position, edge_of, offers):
    """What a and b may exchange, a column of `offers` each; how many.

    Rows: a's edge and b's edge (-1: none) to one node at the other end; which are exchangeable for one another (by the
    node's type, and positive, negative or one of either); whether b has the edge, or the positive one of the two.
    """
    n = 0
    for e in listed[start[a] : start[a + 1]]:
        edge_of[other[e]] = e
    for f in listed[start[b] : start[b + 1]]:
        v = other[f]
        e, edge_of[v] = edge_of[v], -1
        if np.sign(position[v] - position[a]) != np.sign(position[v] - position[b]):
            continue
        if e == -1 or positive[e] != positive[f]:
            offers[0, n], offers[1, n] = e, f
            offers[2, n] = 3 * kind[v] + (2 if e >= 0 else np.int64(positive[f]))
            offers[3, n] = 1 if e == -1 else np.int64(positive[f])
            n += 1
    for e in listed[start[a] : start[a + 1]]:
        v = other[e]
        if edge_of[v] >= 0 and np.sign(position[v] - position[a]) == np.sign(position[v] - position[b]):
            offers[0, n], offers[1, n], offers[2, n], offers[3, n] = e, -1, 3 * kind[v] + np.int64(positive[e]), 0
            n += 1
        edge_of[v] = -1
    return n


@njit(cache=True, nogil=True)
@no_type_check
def _divide(state, a, b, own, offers):
    """Divides the offers between a and b, who get as many of each kind as they had."""
    left, of_b = np.zeros(9, np.int64), np.zeros(9, np.int64)
    for n in range(offers.shape[1]):
        left[offers[2, n]] += 1
        of_b[offers[2, n]] += offers[3, n]
    for n in range(offers.shape[1]):
        e, f, alike, had = offers[:, n]
        gets = below(state, left[alike]) < of_b[alike]
        left[alike] -= 1
        of_b[alike] -= gets
        if gets != had:
            if e >= 0:
                own[e] = b
            if f >= 0:
                own[f] = a


@njit(cache=True, nogil=True)
@no_type_check
def _list_again(a, b, own, start, listed, both):
    """Puts the edges of a and b, who have as many as before, under their own names."""
    of_a, of_b = start[a + 1] - start[a], start[b + 1] - start[b]
    both[:of_a] = listed[start[a] : start[a + 1]]
    both[of_a : of_a + of_b] = listed[start[b] : start[b + 1]]
    i, j = start[a], start[b]
    for e in both[: of_a + of_b]:
        if own[e] == a:
            listed[i] = e
            i += 1
        else:
            listed[j] = e
            j += 1
