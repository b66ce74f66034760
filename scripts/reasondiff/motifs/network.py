"""What of an attribution graph is counted?

Source: docs/methods.md §11.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from reasondiff.graphs.graph import EMBEDDING, ERROR, FEATURE, LOGIT, Graph

NODE_TYPES = ("feature", "embedding", "logit")


@dataclass(frozen=True)
class Network:
    """A directed graph without weights: who adds to whom, with which sign, and where both stand."""

    kind: Int[np.ndarray, " node"]
    """Index in `NODE_TYPES`."""
    layer: Int[np.ndarray, " node"]
    """-1 of embeddings; of logits 1 + the largest layer that the graph names, its logits' own included."""
    position: Int[np.ndarray, " node"]
    """The token, counted from 0."""
    source: Int[np.ndarray, " edge"]
    """Node that an edge starts from."""
    target: Int[np.ndarray, " edge"]
    """Node that it ends in."""
    positive: Bool[np.ndarray, " edge"]
    """Whether the weight is at least 0."""

    @property
    def n_nodes(self) -> int:
        return len(self.kind)

    @property
    def n_edges(self) -> int:
        return len(self.source)

    @property
    def is_countable(self) -> bool:
        """Whether there is anything to count: three nodes and an edge."""
        return self.n_nodes >= 3 and self.n_edges > 0


def network_of(graph: Graph) -> Network:
    """The graph without its error nodes and their edges; nodes that this leaves without an edge stay.

    Logits lie one layer above the largest number in the graph, which is mostly their own: an edge from the last
    block to a logit then spans two layers. That is the convention of the published counts, which limits to the span of
    an edge rest on.
    """
    kept = graph.part(graph.kind != ERROR, np.ones(graph.n_edges, dtype=bool))
    layer = kept.layer.copy()
    if kept.n_nodes:
        layer[kept.kind == EMBEDDING] = -1
        layer[kept.kind == LOGIT] = graph.layer.max() + 1
    types = np.zeros(kept.n_nodes, dtype=np.int8)
    for number, kind in enumerate((FEATURE, EMBEDDING, LOGIT)):
        types[kept.kind == kind] = number
    return Network(
        kind=types,
        layer=layer.astype(np.int32),
        position=kept.position.astype(np.int32),
        source=kept.source.astype(np.int32),
        target=kept.target.astype(np.int32),
        positive=kept.weight >= 0,
    )
