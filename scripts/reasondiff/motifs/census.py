"""How many triads of each class does a directed graph hold, and of which types are their nodes?

Every couple of joined nodes is visited once, with what each third node is to both: that gives the closed triads. Open
ones follow from the nodes' degrees minus what is closed, and those with one joined couple from the number of couples.
Rows of bits serve while they take no more memory than some words per edge, sorted neighbours beyond.

Source: docs/methods.md §11; Holland and Leinhardt 1976, classes in the order of igraph and networkx.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement, permutations, product
from typing import no_type_check

import numpy as np
from jaxtyping import Int
from numba import njit

from reasondiff.motifs.network import NODE_TYPES

TRIADS = (
    "003", "012", "102", "021D", "021U", "021C", "111D", "111U", "030T", "030C", "201", "120D", "120U", "120C", "210",
    "300",
)  # fmt: skip
"""The 16 classes: how many couples of a triad are joined both ways, one way and not at all; D: the odd edges point
down, from one node to two; U: up; T: transitive; C: a chain or a cycle."""
OUT, IN, MUTUAL = range(3)
"""What a neighbour is to a node: reached by an edge, the start of one, or both."""
_FLIPPED = np.array([IN, OUT, MUTUAL])
_OPEN = np.array([[3, 5, 7], [5, 4, 6], [7, 6, 10]])
"""Class of two nodes that are not joined, by what they are to the third."""
BYTES_PER_EDGE, SMALL_BYTES = 64, 2**22
"""Rows of bits may take this much for every edge, and this much in any case."""


# ----------------------------------------------------------------------------------------------- what is counted


@dataclass(frozen=True)
class TypedTriad:
    """A triad class with the types of the nodes in its roles."""

    triad: str
    """021D, 021U, 021C or 030T."""
    types: tuple[int, int, int]
    """Indices in `NODE_TYPES`, from where edges start to where they end: of 021D the node that both edges start from,
    then the others; of 021U the two nodes, then where both end; of 021C and 030T along the chain."""

    @property
    def name(self) -> str:
        one, two, three = (NODE_TYPES[kind] for kind in self.types)
        joints = {"021D": (">", "+"), "021U": ("+", ">")}.get(self.triad, (">", ">"))
        return f"{self.triad} {one}{joints[0]}{two}{joints[1]}{three}"


def _typed_triads() -> tuple[TypedTriad, ...]:
    """Every one that a graph can hold in which nothing leads to an embedding and nothing leaves a logit."""
    feature, embedding, logit = range(3)
    starts, ends = (feature, embedding), (feature, logit)
    chains = [(one, feature, three) for one, three in product(starts, ends)]
    down = [(one, *both) for one in starts for both in combinations_with_replacement(ends, 2)]
    up = [(*both, three) for both in combinations_with_replacement(starts, 2) for three in ends]
    shapes = {"030T": chains, "021C": chains, "021D": down, "021U": up}
    return tuple(TypedTriad(triad, types) for triad, several in shapes.items() for types in several)


TYPED_TRIADS = _typed_triads()


def census(
    nodes: int, source: Int[np.ndarray, " edge"], target: Int[np.ndarray, " edge"], acyclic: bool
) -> Int[np.ndarray, "16"]:
    """How many triads of each of `TRIADS` a graph holds that has no loops and no edge twice.

    `acyclic` promises that it has no cycle, which is several times as fast.
    """
    kind = np.zeros(nodes, dtype=np.int8)
    return typed_census(kind, source, target, acyclic)[: len(TRIADS)]


def typed_census(
    kind: Int[np.ndarray, " node"], source: Int[np.ndarray, " edge"], target: Int[np.ndarray, " edge"], acyclic: bool
) -> Int[np.ndarray, "count"]:
    """The counts of `TRIADS`, then those of `TYPED_TRIADS`; `kind` holds indices in `NODE_TYPES`."""
    source, target, kind = source.astype(np.int32), target.astype(np.int32), kind.astype(np.int8)
    by = by_bits if bits_fit(len(kind), len(source)) else by_neighbours
    return by(kind, source, target, acyclic)


def bits_fit(nodes: int, edges: int) -> bool:
    """Whether rows of bits take memory of the order of the edges."""
    taken = 2 * nodes * ((nodes + 63) // 64) * 8
    return taken <= max(BYTES_PER_EDGE * edges, SMALL_BYTES)


def by_bits(
    kind: Int[np.ndarray, " node"], source: Int[np.ndarray, " edge"], target: Int[np.ndarray, " edge"], acyclic: bool
) -> Int[np.ndarray, "count"]:
    """`typed_census` with a row of bits per node."""
    return _from_bits(kind, source, target, acyclic)


def by_neighbours(
    kind: Int[np.ndarray, " node"], source: Int[np.ndarray, " edge"], target: Int[np.ndarray, " edge"], acyclic: bool
) -> Int[np.ndarray, "count"]:
    """`typed_census` with sorted neighbours, which needs no promise: `acyclic` is not looked at."""
    start, neighbour, code = _neighbours(len(kind), source, target)
    return _from_neighbours(kind, start, neighbour, code)


def _neighbours(
    nodes: int, source: Int[np.ndarray, " edge"], target: Int[np.ndarray, " edge"]
) -> tuple[Int[np.ndarray, " node_1"], Int[np.ndarray, " end"], Int[np.ndarray, " end"]]:
    """Where each node's neighbours begin, the neighbours in rising order, what each is to the node."""
    ends = np.concatenate([source.astype(np.int64) * nodes + target, target.astype(np.int64) * nodes + source])
    both, place = np.unique(ends, return_inverse=True)
    seen = np.zeros(len(both), dtype=np.int8)
    np.bitwise_or.at(seen, place, np.repeat(np.array([1, 2], dtype=np.int8), len(source)))
    start = np.searchsorted(both, np.arange(nodes + 1, dtype=np.int64) * nodes)
    return start, (both % nodes).astype(np.int32), seen - np.int8(1)


def _closed_classes() -> Int[np.ndarray, "2 3 3"]:
    """Class of three joined nodes: whether a -> c alone or both ways, what b is to a, what b is to c."""
    examples = {
        "030T": [(0, 1), (1, 2), (0, 2)],
        "030C": [(0, 1), (1, 2), (2, 0)],
        "120D": [(0, 1), (0, 2), (1, 2), (2, 1)],
        "120U": [(1, 0), (2, 0), (1, 2), (2, 1)],
        "120C": [(0, 1), (1, 2), (0, 2), (2, 0)],
        "210": [(0, 1), (1, 2), (2, 1), (0, 2), (2, 0)],
        "300": list(permutations(range(3), 2)),
    }
    classes = np.zeros((2, 3, 3), dtype=np.int64)
    for name, edges in examples.items():
        for a, b, c in permutations(range(3)):
            joined = set(edges)

            def seen(one: int, other: int, joined: set[tuple[int, int]] = joined) -> int:
                return ((one, other) in joined) + 2 * ((other, one) in joined) - 1

            if seen(a, c) != IN:
                classes[int(seen(a, c) == MUTUAL), seen(a, b), seen(c, b)] = TRIADS.index(name)
    return classes


_CLOSED = _closed_classes()
_SHAPE = np.array([{"030T": 0, "021C": 1, "021D": 2, "021U": 3}[one.triad] for one in TYPED_TRIADS])
_TYPES = np.array([one.types for one in TYPED_TRIADS])


# ----------------------------------------------------------------------------------------------- compiled


@njit(cache=True, nogil=True)
@no_type_check
def _ones(word):
    """How many bits are set."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@njit(cache=True, nogil=True)
@no_type_check
def _from_bits(kind, source, target, acyclic):
    nodes, words = len(kind), (len(kind) + 63) // 64
    row = np.zeros((3, nodes, words), np.uint64)
    of_kind = np.zeros((3, words), np.uint64)
    for v in range(nodes):
        of_kind[kind[v], v >> 6] |= np.uint64(1) << np.uint64(v & 63)
    for e in range(len(source)):
        s, t = source[e], target[e]
        row[OUT, s, t >> 6] |= np.uint64(1) << np.uint64(t & 63)
        row[IN, t, s >> 6] |= np.uint64(1) << np.uint64(s & 63)
    degree = np.zeros((nodes, 3, 3), np.int64)
    if acyclic:
        for e in range(len(source)):
            degree[source[e], OUT, kind[target[e]]] += 1
            degree[target[e], IN, kind[source[e]]] += 1
        joint = _joint_acyclic(row, of_kind, kind, source, target)
    else:
        for v in range(nodes):
            for w in range(words):
                both = row[OUT, v, w] & row[IN, v, w]
                row[MUTUAL, v, w] = both
                row[OUT, v, w] ^= both
                row[IN, v, w] ^= both
                for code in range(3):
                    for third in range(3):
                        degree[v, code, third] += _ones(row[code, v, w] & of_kind[third, w])
        joint = _joint_of_bits(row, of_kind, kind, source, target)
    return _counts(nodes, kind, degree, joint)


@njit(cache=True, nogil=True)
@no_type_check
def _joint_acyclic(row, of_kind, kind, source, target):
    """As `_joint_of_bits`, where every closed triad is a -> b -> c, a -> c: each is met once, and entered thrice."""
    found = np.zeros((3, 3, 3), np.int64)
    for e in range(len(source)):
        a, c = source[e], target[e]
        one, three = kind[a], kind[c]
        for w in range(row.shape[2]):
            between = row[OUT, a, w] & row[IN, c, w]
            if between:
                for two in range(3):
                    found[one, two, three] += _ones(between & of_kind[two, w])
    joint = np.zeros((2, 3, 3, 3, 3, 3), np.int64)
    for one, two, three in np.ndindex(3, 3, 3):
        joint[0, one, three, OUT, IN, two] += found[one, two, three]
        joint[0, one, two, OUT, OUT, three] += found[one, two, three]
        joint[0, two, three, IN, IN, one] += found[one, two, three]
    return joint


@njit(cache=True, nogil=True)
@no_type_check
def _joint_of_bits(row, of_kind, kind, source, target):
    """[both ways, type of a, type of c, what b is to a, what b is to c, type of b]: for each couple a -> c, or a <-> c
    with a < c, how many third nodes b are joined to both."""
    joint = np.zeros((2, 3, 3, 3, 3, 3), np.int64)
    for e in range(len(source)):
        a, c = source[e], target[e]
        mutual = (row[MUTUAL, a, c >> 6] >> np.uint64(c & 63)) & np.uint64(1)
        if mutual and a > c:
            continue
        for x in range(3):
            for y in range(3):
                for w in range(row.shape[2]):
                    between = row[x, a, w] & row[y, c, w]
                    if between:
                        for third in range(3):
                            joint[mutual, kind[a], kind[c], x, y, third] += _ones(between & of_kind[third, w])
    return joint


@njit(cache=True, nogil=True)
@no_type_check
def _from_neighbours(kind, start, neighbour, code):
    nodes = len(kind)
    degree = np.zeros((nodes, 3, 3), np.int64)
    joint = np.zeros((2, 3, 3, 3, 3, 3), np.int64)
    for a in range(nodes):
        for place in range(start[a], start[a + 1]):
            c = neighbour[place]
            degree[a, code[place], kind[c]] += 1
            if code[place] == IN or (code[place] == MUTUAL and a > c):
                continue
            mutual = 1 if code[place] == MUTUAL else 0
            i, j = start[a], start[c]
            while i < start[a + 1] and j < start[c + 1]:
                if neighbour[i] < neighbour[j]:
                    i += 1
                elif neighbour[i] > neighbour[j]:
                    j += 1
                else:
                    joint[mutual, kind[a], kind[c], code[i], code[j], kind[neighbour[i]]] += 1
                    i += 1
                    j += 1
    return _counts(nodes, kind, degree, joint)


@njit(cache=True, nogil=True)
@no_type_check
def _counts(nodes, kind, degree, joint):
    """Both censuses from degrees [node, what the neighbour is, its type] and couples (`_joint_of_bits`)."""
    found = np.zeros(16 + len(_SHAPE), np.int64)
    couples = np.zeros(3, np.int64)
    # (type of the middle, what either end is to it, types of the ends), each seen from either end: all wedges at first
    wedges = np.zeros((3, 3, 3, 3, 3), np.int64)
    for v in range(nodes):
        for x in range(3):
            for one in range(3):
                here = degree[v, x, one]
                if here:
                    couples[x] += here
                    wedges[kind[v], x, x, one, one] -= here
                    for y in range(3):
                        for three in range(3):
                            wedges[kind[v], x, y, one, three] += here * degree[v, y, three]
    for both, one, three, x, y, two in np.ndindex(2, 3, 3, 3, 3, 3):  # those whose ends are joined are none
        n = joint[both, one, three, x, y, two]
        found[_CLOSED[both, x, y]] += n
        wedges[two, _FLIPPED[x], _FLIPPED[y], one, three] -= n
        wedges[two, _FLIPPED[y], _FLIPPED[x], three, one] -= n
    for two, x, y, one, three in np.ndindex(3, 3, 3, 3, 3):
        found[_OPEN[x, y]] += wedges[two, x, y, one, three]
    for triad in range(3, 16):  # each was met at all three of its couples, or from both of its ends
        found[triad] //= 2 if triad in (3, 4, 5, 6, 7, 10) else 3
    _add_sparse(found, nodes, couples[OUT], couples[MUTUAL] // 2)
    for k in range(len(_SHAPE)):
        one, two, three = _TYPES[k, 0], _TYPES[k, 1], _TYPES[k, 2]
        if _SHAPE[k] == 0:
            found[16 + k] = joint[0, one, three, OUT, IN, two]
        elif _SHAPE[k] == 1:
            found[16 + k] = wedges[two, IN, OUT, one, three]
        elif _SHAPE[k] == 2:
            found[16 + k] = wedges[one, OUT, OUT, two, three] // (2 if two == three else 1)
        else:
            found[16 + k] = wedges[three, IN, IN, one, two] // (2 if one == two else 1)
    return found


@njit(cache=True, nogil=True)
@no_type_check
def _add_sparse(found, nodes, single, mutual):
    """Triads with one joined couple or none, from the number of couples joined one way and both ways."""
    singles = np.array([0, 1, 0, 2, 2, 2, 1, 1, 3, 3, 0, 2, 2, 2, 1, 0])
    mutuals = np.array([0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 2, 1, 1, 1, 2, 3])
    left_single, left_mutual, rest = single * (nodes - 2), mutual * (nodes - 2), nodes * (nodes - 1) * (nodes - 2) // 6
    for triad in range(3, 16):
        left_single -= singles[triad] * found[triad]
        left_mutual -= mutuals[triad] * found[triad]
        rest -= found[triad]
    found[1], found[2] = left_single, left_mutual
    found[0] = rest - left_single - left_mutual
