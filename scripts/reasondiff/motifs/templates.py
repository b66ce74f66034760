"""How often does a graph hold each small pattern of excitation and inhibition?

A pattern is counted as a subgraph: distinct nodes, the named edges with the named signs, whatever other edges there
are; patterns that map onto themselves count once. Only edges that rise by 1 to `max_gap` layers take part.

Source: docs/methods.md §11.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Int
from numba import njit

EXCITES, INHIBITS = True, False


@dataclass(frozen=True)
class Template:
    """A signed pattern."""

    name: str
    """As in the published study."""
    edges: tuple[tuple[str, str, bool], ...]
    """From, to, whether the weight is positive. Letters are distinct nodes."""
    says: str
    """What it does, in words."""

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(sorted({end for edge in self.edges for end in edge[:2]}))


TEMPLATES = (
    Template(
        "coherent_ffl", (("a", "b", EXCITES), ("b", "c", EXCITES), ("a", "c", EXCITES)),
        "a excites c directly and by way of b",
    ),
    Template(
        "incoherent_ffl", (("a", "b", EXCITES), ("b", "c", EXCITES), ("a", "c", INHIBITS)),
        "a excites c by way of b and inhibits it directly",
    ),
    Template("feedforward_amplification", (("a", "b", EXCITES), ("b", "c", EXCITES)), "a excites b, b excites c"),
    Template("feedforward_damping", (("a", "b", EXCITES), ("b", "c", INHIBITS)), "a excites b, b inhibits c"),
    Template(
        "cross_chain_inhibition",
        (("a", "x", EXCITES), ("a", "y", INHIBITS), ("b", "y", EXCITES), ("b", "x", INHIBITS)),
        "a and b each excite what the other inhibits",
    ),
    Template(
        "cross_chain_toggle",
        (("c", "a", EXCITES), ("c", "b", EXCITES), ("a", "x", INHIBITS), ("b", "y", INHIBITS)),
        "c excites a and b, each of which inhibits a node of its own",
    ),
    Template("residual_self_loop_positive", (("a", "b", EXCITES),), "a excites b; the published name notwithstanding"),
    Template("residual_self_loop_negative", (("a", "b", INHIBITS),), "a inhibits b"),
)  # fmt: skip
"""All signed templates; counts come in this order."""


def signed_counts(
    layer: Int[np.ndarray, " node"],
    source: Int[np.ndarray, " edge"],
    target: Int[np.ndarray, " edge"],
    positive: Bool[np.ndarray, " edge"],
    max_gap: int,
) -> Int[np.ndarray, "template"]:
    """The counts of `TEMPLATES` on the edges that rise by 1 to `max_gap` layers, in time of the order of the paths of
    two edges and in memory of the order of the edges."""
    return _signed(layer, source, target, positive, max_gap)


# ----------------------------------------------------------------------------------------------- compiled


@njit(cache=True, nogil=True)
@no_type_check
def _lists(nodes, key, value, taken):
    """For each node the values of the edges taken of which it is the key: where they begin, and themselves."""
    start = np.zeros(nodes + 1, np.int64)
    for e in range(len(key)):
        start[key[e] + 1] += taken[e]
    for v in range(nodes):
        start[v + 1] += start[v]
    place, listed = start[:-1].copy(), np.empty(start[-1], np.int32)
    for e in range(len(key)):
        if taken[e]:
            listed[place[key[e]]] = value[e]
            place[key[e]] += 1
    return start, listed


@njit(cache=True, nogil=True)
@no_type_check
def _signed(layer, source, target, positive, max_gap):
    nodes = len(layer)
    plus, minus = np.zeros(len(source), np.bool_), np.zeros(len(source), np.bool_)
    for e in range(len(source)):
        gap = layer[target[e]] - layer[source[e]]
        plus[e] = positive[e] and 1 <= gap <= max_gap
        minus[e] = not positive[e] and 1 <= gap <= max_gap
    es, excites = _lists(nodes, source, target, plus)
    xs, exciters = _lists(nodes, target, source, plus)
    ns, inhibits = _lists(nodes, source, target, minus)
    hs, inhibitors = _lists(nodes, target, source, minus)
    found = np.zeros(8, np.int64)
    found[6], found[7] = len(excites), len(inhibits)
    sign = np.zeros(nodes, np.int8)  # of the edge from a: 1, -1, or 0 where there is none
    back = np.zeros(nodes, np.int8)  # 1 of the nodes that inhibit a
    crossed, shared = np.zeros(nodes, np.int64), np.zeros(nodes, np.int64)
    for a in range(nodes):
        found[2] += (xs[a + 1] - xs[a]) * (es[a + 1] - es[a])
        found[3] += (xs[a + 1] - xs[a]) * (ns[a + 1] - ns[a])
        sign[excites[es[a] : es[a + 1]]] = 1
        sign[inhibits[ns[a] : ns[a + 1]]] = -1
        back[inhibitors[hs[a] : hs[a + 1]]] = 1
        for b in excites[es[a] : es[a + 1]]:
            for c in excites[es[b] : es[b + 1]]:
                found[0] += sign[c] == 1
                found[1] += sign[c] == -1
        # b > a with nodes that a excites and b inhibits, times nodes that b excites and a inhibits
        for x in excites[es[a] : es[a + 1]]:
            for b in inhibitors[hs[x] : hs[x + 1]]:
                crossed[b] += 1
        for y in inhibits[ns[a] : ns[a + 1]]:
            for b in exciters[xs[y] : xs[y + 1]]:
                found[4] += crossed[b] if b > a else 0
            for b in inhibitors[hs[y] : hs[y + 1]]:
                shared[b] += 1
        # b > a excited by the same c: couples of nodes inhibited by a and by b, distinct and neither a nor b
        own = ns[a + 1] - ns[a]
        for c in exciters[xs[a] : xs[a + 1]] if own else exciters[:0]:
            for b in excites[es[c] : es[c + 1]]:
                if b > a and ns[b + 1] > ns[b]:
                    found[5] += (own - (sign[b] == -1)) * (ns[b + 1] - ns[b] - back[b]) - shared[b]
        for x in excites[es[a] : es[a + 1]]:
            crossed[inhibitors[hs[x] : hs[x + 1]]] = 0
        for y in inhibits[ns[a] : ns[a + 1]]:
            shared[inhibitors[hs[y] : hs[y + 1]]] = 0
        sign[excites[es[a] : es[a + 1]]] = 0
        sign[inhibits[ns[a] : ns[a + 1]]] = 0
        back[inhibitors[hs[a] : hs[a + 1]]] = 0
    return found
