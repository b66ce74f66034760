"""Which counts do the sums fix that a null keeps?

With every node's degrees kept, the number of couples of edges that leave a node is kept as well, and each such couple
is part of one open or one closed triad: what a null adds to one count it takes from another. Each sum that is kept
is a linear relation between counts, and a count that some relations express by others says nothing of its own.

Source: docs/methods.md §11.
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Bool, Float

from reasondiff.motifs.census import TRIADS, TYPED_TRIADS
from reasondiff.motifs.network import NODE_TYPES, Network
from reasondiff.motifs.nulls import CYCLIC
from reasondiff.motifs.templates import TEMPLATES

_SINGLE = (0, 1, 0, 2, 2, 2, 1, 1, 3, 3, 0, 2, 2, 2, 1, 0)
_MUTUAL = (0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 2, 1, 1, 1, 2, 3)
"""Couples of nodes joined one way and both ways, in each of `TRIADS`."""
_LEAVING = (0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 1, 1, 2, 1, 2, 3)
_ENTERING = (0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 1, 2, 1, 1, 2, 3)
_PASSING = (0, 0, 0, 0, 0, 1, 1, 1, 1, 3, 2, 2, 2, 3, 4, 6)
"""Couples of edges that leave one node, that enter one node, and paths of two edges between different nodes."""
_KEEP_DEGREES = ("configuration", "layer_pair_config", "layer_pair_config_signs", "typed")
_SPEAKERS = (
    "030T", "030C", "300", "210", "120C", "120U", "120D", "201", "111U", "111D", "102", "021C", "021U", "021D", "012",
    "003",
)  # fmt: skip
"""Of triads that express one another, the earlier ones speak for the later ones."""


def determined(network: Network, null: str, family: str, max_gap: int) -> Bool[np.ndarray, " motif"]:
    """Whether a motif's count follows, in every graph of the null, from the counts of motifs that are not determined.

    Families: `triad`, `typed`, `signed`, their motifs in the order of `TRIADS`, `TYPED_TRIADS` and `TEMPLATES`. Of
    motifs that express one another the closed and the more complex ones are kept: of untyped triads in an acyclic
    graph of kept degrees 030T alone.
    """
    sums = relations(network, null, family, max_gap)
    order = [TRIADS.index(name) for name in _SPEAKERS] if family == "triad" else list(range(sums.shape[1]))
    return _expressed(sums, order)


def relations(network: Network, null: str, family: str, max_gap: int) -> Float[np.ndarray, "relation motif"]:
    """Weights of the counts of a family such that each weighted sum is the same in every graph of the null."""
    if family == "triad":
        return _relations_of_triads(null, network.n_nodes)
    return _relations_of_types(null) if family == "typed" else _relations_of_signs(network, null, max_gap)


def _expressed(relations: Float[np.ndarray, "relation motif"], order: list[int]) -> Bool[np.ndarray, " motif"]:
    """Motifs that the relations express by motifs earlier in the order: each relation spends its last one."""
    rows, spent = relations.astype(np.float64).copy(), np.zeros(relations.shape[1], dtype=bool)
    for motif in reversed(order):
        if not len(rows):
            break
        chosen = int(np.argmax(np.abs(rows[:, motif])))
        if abs(rows[chosen, motif]) < 1e-9:
            continue
        spent[motif] = True
        pivot = rows[chosen] / rows[chosen, motif]
        rows = np.delete(rows, chosen, axis=0)
        rows -= rows[:, [motif]] * pivot
    return spent


@functools.lru_cache(maxsize=256)
def _relations_of_triads(null: str, nodes: int) -> Float[np.ndarray, "relation motif"]:
    """Sums over `TRIADS` that every graph of the null has in common."""
    single, mutual = np.array(_SINGLE, dtype=np.float64), np.array(_MUTUAL, dtype=np.float64)
    rows = [np.ones(len(TRIADS)), single + 2 * mutual]  # triads; edges, each in nodes - 2 of them
    if null in _KEEP_DEGREES:
        # paths from a node back to itself are none: each mutual couple makes two, and is in nodes - 2 triads
        rows += [np.array(_LEAVING), np.array(_ENTERING), np.array(_PASSING) + 2 * mutual / max(nodes - 2, 1)]
    if null not in CYCLIC:
        rows += [row for row, name in zip(np.eye(len(TRIADS)), TRIADS, strict=True) if _has_cycle(name)]
    return np.stack(rows).astype(np.float64)


def _has_cycle(triad: str) -> bool:
    return triad == "030C" or _MUTUAL[TRIADS.index(triad)] > 0


@functools.lru_cache(maxsize=16)
def _relations_of_types(null: str) -> Float[np.ndarray, "relation motif"]:
    """Sums over `TYPED_TRIADS` that every graph of the null has in common."""
    rows = []
    if null in _KEEP_DEGREES and null not in CYCLIC:  # these keep the degrees to and from each type as well
        for place, open_triad in enumerate(TYPED_TRIADS):
            if open_triad.triad == "030T":
                continue
            row = np.zeros(len(TYPED_TRIADS))
            row[place] = 1
            for other, closed in enumerate(TYPED_TRIADS):
                if closed.triad == "030T":
                    row[other] = _wedges(closed.types)[open_triad.triad] == open_triad.types
            rows.append(row)
    return np.array(rows).reshape(-1, len(TYPED_TRIADS))


def _wedges(types: tuple[int, int, int]) -> dict[str, tuple[int, int, int]]:
    """The open triads that 030T would leave without its edge: types of their roles, as `TypedTriad` orders them."""
    one, two, three = types
    return {"021C": types, "021D": (one, *sorted((two, three))), "021U": (*sorted((one, two)), three)}


def _relations_of_signs(network: Network, null: str, max_gap: int) -> Float[np.ndarray, "relation motif"]:
    """Sums over `TEMPLATES` that every graph of the null has in common."""
    names = [template.name for template in TEMPLATES]
    single = {name: np.eye(len(names))[names.index(name)] for name in names}
    plus, minus = single["residual_self_loop_positive"], single["residual_self_loop_negative"]
    if null in ("layer_preserving", "layer_pair_config"):
        return np.stack([plus + minus])
    rows = [plus, minus] if null in ("typed", "layer_pair_config_signs") else []
    if null == "typed" and _all_paths_within(network, max_gap):
        rows += [single["feedforward_amplification"], single["feedforward_damping"]]
    return np.array(rows).reshape(-1, len(names))


def _all_paths_within(network: Network, max_gap: int) -> bool:
    """Whether no edge that could be part of a longer path spans more layers than are looked at: the numbers of edges
    into and out of each node, which are kept, then give the number of paths."""
    feature = NODE_TYPES.index("feature")
    inner = (network.kind[network.source] == feature) | (network.kind[network.target] == feature)
    gap = network.layer[network.target] - network.layer[network.source]
    return bool((gap[inner] <= max_gap).all())
