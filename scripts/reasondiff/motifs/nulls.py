"""Which random graphs is a graph compared with?

A null says what a random graph has in common with the observed one (`NULLS`); everything else is left to chance. No
graph of any null has a loop or an edge twice.

The five published ones are as published: three of them try 10 swaps per edge from the observed graph, which they hardly
leave. How ours is drawn stands in `trades`.

Source: docs/methods.md §11.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Int, UInt64
from numba import njit

from reasondiff.motifs.network import Network
from reasondiff.motifs.random_numbers import below, next_bits

SWAPS_PER_EDGE = 10
"""Swaps tried per edge by the published nulls."""
BYTES_PER_EDGE, SMALL_BYTES = 64, 2**22
"""A bit for every couple of nodes may take this much for every edge, and this much in any case."""
OURS = "typed"
NULLS = {
    "typed": "each node's number of edges of either sign to and from each type of node; the number of edges of either "
    "sign from each layer to each layer within a position, and to a later one (none leads to an earlier one)",
    "configuration": "each node's number of edges to and from it; signs are drawn with the observed share",
    "erdos_renyi": "the number of edges; signs are drawn with the observed share",
    "layer_preserving": "the number of edges from each layer to each layer; signs are drawn with the observed share",
    "layer_pair_config": "each node's number of edges to and from each layer; signs are drawn with the observed share",
    "layer_pair_config_signs": "each node's number of edges of either sign to each layer, and its number of edges from "
    "each layer",
}
"""What the graphs of each null keep of the observed one."""
CYCLIC = ("configuration", "erdos_renyi")
"""Nulls whose graphs may have cycles, and edges to earlier layers; all others have neither."""


@dataclass(frozen=True)
class Edges:
    """The edges of one random graph, on the nodes of the observed one."""

    source: Int[np.ndarray, " edge"]
    target: Int[np.ndarray, " edge"]
    positive: Bool[np.ndarray, " edge"]


def observed_edges(network: Network) -> Edges:
    """The network's own."""
    return Edges(network.source, network.target, network.positive)


@dataclass(frozen=True)
class EdgeSet:
    """Which nodes are joined, in memory of the order of the edges: a bit for each couple while these are few, else a
    hash table."""

    bits: UInt64[np.ndarray, " word"]
    """Of couple source * nodes + target, in this order; empty if there are too many."""
    table: Int[np.ndarray, " place"]
    """Couples by linear probing, -1 where none is; empty if there are bits."""

    def copy(self) -> EdgeSet:
        return EdgeSet(self.bits.copy(), self.table.copy())


def edge_set(network: Network) -> EdgeSet:
    """The network's edges."""
    words = (network.n_nodes**2 + 63) // 64
    if 8 * words <= max(BYTES_PER_EDGE * network.n_edges, SMALL_BYTES):
        bits, table = np.zeros(words, np.uint64), np.zeros(0, np.int64)
    else:
        bits, table = np.zeros(0, np.uint64), _empty_table(network.n_edges)
    _fill(bits, table, network.n_nodes, network.source, network.target)
    return EdgeSet(bits, table)


def moved_share(network: Network, observed: EdgeSet, edges: Edges) -> float:
    """Share of the edges that are not in the observed graph, from 0 to 1; signs do not count."""
    absent = _absent(observed.bits, observed.table, network.n_nodes, edges.source, edges.target)
    return absent / max(network.n_edges, 1)


def fingerprint(network: Network, edges: Edges) -> int:
    """The same for the same signed edges, in whatever order; else different, but for one couple in 2^64."""
    return int(_fingerprint(network.n_nodes, edges.source, edges.target, edges.positive))


# ----------------------------------------------------------------------------------------------- the published nulls

Draw = Callable[[UInt64[np.ndarray, "1"]], Edges]
"""From the state of a stream of random numbers, a random graph."""


def published_null(network: Network, name: str) -> Draw:
    """What draws graphs from one of the published nulls."""
    return {
        "configuration": _configuration,
        "erdos_renyi": _erdos_renyi,
        "layer_preserving": _layer_preserving,
        "layer_pair_config": lambda observed: _layer_pair_config(observed, keep_signs=False),
        "layer_pair_config_signs": lambda observed: _layer_pair_config(observed, keep_signs=True),
    }[name](network)


def _by_layers(network: Network) -> tuple[Int[np.ndarray, " edge"], Int[np.ndarray, " block_1"]]:
    """Edges ordered by the layers of their ends, and where each couple of layers begins."""
    first, second = network.layer[network.source], network.layer[network.target]
    order = np.lexsort([second, first])
    new = (np.diff(first[order]) != 0) | (np.diff(second[order]) != 0)
    return order, np.concatenate([[0], np.flatnonzero(new) + 1, [network.n_edges]]).astype(np.int64)


def _signs(network: Network, state: UInt64[np.ndarray, "1"]) -> Bool[np.ndarray, " edge"]:
    return _coins(state, network.n_edges, float(network.positive.mean()))


def _configuration(network: Network) -> Draw:
    return _swapped(network, np.arange(network.n_edges), np.array([0, network.n_edges]), keep_signs=False)


def _layer_pair_config(network: Network, keep_signs: bool) -> Draw:
    return _swapped(network, *_by_layers(network), keep_signs)


def _swapped(
    network: Network, order: Int[np.ndarray, " edge"], start: Int[np.ndarray, " block_1"], keep_signs: bool
) -> Draw:
    source, target, positive = network.source[order], network.target[order], network.positive[order]
    observed, (first, sizes) = edge_set(network), _movable(source, target, start)

    def draw(state: UInt64[np.ndarray, "1"]) -> Edges:
        new, joined = target.copy(), observed.copy()
        _swap_targets(state, source, new, first, sizes, SWAPS_PER_EDGE, joined.bits, joined.table, network.n_nodes)
        return Edges(source, new, positive if keep_signs else _signs(network, state))

    return draw


def _movable(
    source: Int[np.ndarray, " edge"], target: Int[np.ndarray, " edge"], start: Int[np.ndarray, " block_1"]
) -> tuple[Int[np.ndarray, " movable"], Int[np.ndarray, " movable"]]:
    """Where blocks begin and how many edges they have, without those in which all sources are joined to all targets: no
    swap in them can succeed, so that none is tried."""
    blocks = [(first, last - first) for first, last in zip(start[:-1], start[1:], strict=True)]
    movable = [
        (first, edges)
        for first, edges in blocks
        if edges < len(np.unique(source[first : first + edges])) * len(np.unique(target[first : first + edges]))
    ]
    first, sizes = np.array(movable, dtype=np.int64).reshape(-1, 2).T.copy()
    return first, sizes


def _erdos_renyi(network: Network) -> Draw:
    everyone = np.arange(network.n_nodes, dtype=np.int32)
    start, nodes = np.array([0, network.n_edges]), np.array([0, network.n_nodes])
    return _placed(network, start, everyone, nodes, everyone, nodes, loops=False)


def _layer_preserving(network: Network) -> Draw:
    order, start = _by_layers(network)
    first = order[start[:-1]]
    members = {layer: np.flatnonzero(network.layer == layer).astype(np.int32) for layer in np.unique(network.layer)}
    sides = []
    for ends in (network.source, network.target):
        lists = [members[layer] for layer in network.layer[ends[first]]]
        sides += [np.concatenate(lists), np.cumsum([0, *map(len, lists)])]
    return _placed(network, start, *sides, loops=True)


def _placed(
    network: Network,
    start: Int[np.ndarray, " block_1"],
    sources: Int[np.ndarray, " first"],
    source_start: Int[np.ndarray, " block_1"],
    targets: Int[np.ndarray, " second"],
    target_start: Int[np.ndarray, " block_1"],
    loops: bool,
) -> Draw:
    def draw(state: UInt64[np.ndarray, "1"]) -> Edges:
        source, target = _place(state, start, sources, source_start, targets, target_start, loops, network.n_nodes)
        return Edges(source, target, _signs(network, state))

    return draw


# ----------------------------------------------------------------------------------------------- compiled


@njit(cache=True, nogil=True)
@no_type_check
def _coins(state, n, chance):
    heads = np.empty(n, np.bool_)
    for i in range(n):
        heads[i] = np.float64(next_bits(state) >> np.uint64(11)) * 2.0**-53 < chance
    return heads


@njit(cache=True, nogil=True)
@no_type_check
def _home(key, slots):
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64(mixed >> np.uint64(32)) & (slots - 1)


@njit(cache=True, nogil=True)
@no_type_check
def _has(table, key):
    place = _home(key, len(table))
    while table[place] != -1:
        if table[place] == key:
            return True
        place = (place + 1) & (len(table) - 1)
    return False


@njit(cache=True, nogil=True)
@no_type_check
def _add(table, key):
    place = _home(key, len(table))
    while table[place] != -1:
        place = (place + 1) & (len(table) - 1)
    table[place] = key


@njit(cache=True, nogil=True)
@no_type_check
def _remove(table, key):
    """Takes a key out, and moves those behind it up that a search would no longer reach."""
    last = len(table) - 1
    hole = _home(key, len(table))
    while table[hole] != key:
        hole = (hole + 1) & last
    place = hole
    while True:
        place = (place + 1) & last
        if table[place] == -1:
            break
        home = _home(table[place], len(table))
        if ((place - home) & last) >= ((place - hole) & last):
            table[hole] = table[place]
            hole = place
    table[hole] = -1


@njit(cache=True, nogil=True)
@no_type_check
def _empty_table(edges):
    slots = 16
    while slots < 2 * edges:
        slots *= 2
    return np.full(slots, -1, np.int64)


@njit(cache=True, nogil=True)
@no_type_check
def _joined(bits, table, key):
    if len(bits):
        return (bits[key >> np.uint64(6)] >> (key & np.uint64(63))) & np.uint64(1) != 0
    return _has(table, np.int64(key))


@njit(cache=True, nogil=True)
@no_type_check
def _join(bits, table, key):
    if len(bits):
        bits[key >> np.uint64(6)] |= np.uint64(1) << (key & np.uint64(63))
    else:
        _add(table, np.int64(key))


@njit(cache=True, nogil=True)
@no_type_check
def _part(bits, table, key):
    if len(bits):
        bits[key >> np.uint64(6)] &= ~(np.uint64(1) << (key & np.uint64(63)))
    else:
        _remove(table, np.int64(key))


@njit(cache=True, nogil=True)
@no_type_check
def _fill(bits, table, nodes, source, target):
    for e in range(len(source)):
        _join(bits, table, np.uint64(source[e]) * np.uint64(nodes) + np.uint64(target[e]))


@njit(cache=True, nogil=True)
@no_type_check
def _absent(bits, table, nodes, source, target):
    absent = 0
    for e in range(len(source)):
        absent += not _joined(bits, table, np.uint64(source[e]) * np.uint64(nodes) + np.uint64(target[e]))
    return absent


@njit(cache=True, nogil=True)
@no_type_check
def _fingerprint(nodes, source, target, positive):
    state, total = np.empty(1, np.uint64), np.uint64(0)
    for e in range(len(source)):
        state[0] = np.uint64((np.int64(source[e]) * nodes + target[e]) * 2 + np.int64(positive[e]))
        total += next_bits(state)
    return total


@njit(cache=True, nogil=True)
@no_type_check
def _swap_targets(state, source, target, first, sizes, swaps_per_edge, bits, table, nodes):
    """Tries to exchange the targets of two edges of a block, `swaps_per_edge` times for each edge of the block."""
    u, half, high = np.uint64, np.uint64(0xFFFFFFFF), np.uint64(32)  # indices without a sign need no check for one
    n = u(nodes)
    for block in range(len(first)):
        start, edges = u(first[block]), u(sizes[block])
        for _ in range(sizes[block] * swaps_per_edge):
            drawn = next_bits(state)  # its halves pick the edges, as in `below`
            i = start + (((drawn >> high) * edges) >> high)
            j = start + (((drawn & half) * (edges - u(1))) >> high)
            j += u(j >= i)
            s1, t1, s2, t2 = u(source[i]), u(target[i]), u(source[j]), u(target[j])
            one, two = s1 * n + t2, s2 * n + t1
            # one branch for all reasons to refuse: which of them holds cannot be predicted
            loop = (s1 == t2) | (s2 == t1)
            if loop | _joined(bits, table, one) | _joined(bits, table, two):  # also where they share an end
                continue
            _part(bits, table, s1 * n + t1)
            _part(bits, table, s2 * n + t2)
            _join(bits, table, one)
            _join(bits, table, two)
            target[i], target[j] = t2, t1


@njit(cache=True, nogil=True)
@no_type_check
def _place(state, start, sources, source_start, targets, target_start, loops, nodes):
    """For each block as many couples as it has edges, any set of them equally likely (Floyd's way of drawing)."""
    source, target = np.empty(start[-1], np.int32), np.empty(start[-1], np.int32)
    table = _empty_table(start[-1])
    for block in range(len(start) - 1):
        one = sources[source_start[block] : source_start[block + 1]]
        other = targets[target_start[block] : target_start[block + 1]]
        width = len(other) if loops else len(other) - 1
        edges, couples = start[block + 1] - start[block], len(one) * width
        for e in range(edges):
            last = couples - edges + e
            drawn = below(state, last + 1)
            for couple in (drawn, last):
                i, j = couple // width, couple % width
                j += (not loops) and j >= i
                key = np.int64(one[i]) * nodes + other[j]
                if not _has(table, key):
                    break
            _add(table, key)
            source[start[block] + e], target[start[block] + e] = one[i], other[j]
    return source, target
