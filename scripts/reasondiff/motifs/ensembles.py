"""What do the counts look like over many graphs of a null?

The published nulls give independent graphs. Ours walks, and the observed graph must be one draw among the others for
its rank to mean anything: chains lead away from a common ancestor, and the observed graph is put at a place in them
that is drawn at random. The walk is symmetric, so it is led back from there to the ancestor by walking on, and
from the ancestor to the other places: under the null the observed graph is then as likely to be at any of them, given
all graphs, however slowly the walk mixes.

Source: docs/methods.md §11; Besag and Clifford 1989, Biometrika 76, 633-642, with chains of any length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt64

from reasondiff.config import Motifs
from reasondiff.motifs.network import Network
from reasondiff.motifs.nulls import (
    OURS,
    Edges,
    edge_set,
    fingerprint,
    moved_share,
    observed_edges,
    published_null,
)
from reasondiff.motifs.random_numbers import number_stream
from reasondiff.motifs.trades import typed_walk

Count = Callable[[Edges], Int[np.ndarray, " motif"]]
"""From the edges of a graph, how many of each motif it holds."""


@dataclass(frozen=True)
class Ensemble:
    """The graphs drawn from a null."""

    counts: Int[np.ndarray, "sample motif"]
    moved: Float[np.ndarray, " sample"]
    """Share of a graph's edges that the observed graph does not have, from 0 to 1."""
    fingerprints: UInt64[np.ndarray, " sample"]
    """Equal for equal graphs."""
    stretch: Int[np.ndarray, " sample"]
    """Graphs of one number follow one another along a chain."""

    @property
    def mobility(self) -> float:
        """The mean of `moved`."""
        return float(self.moved.mean())

    @property
    def graph_states(self) -> int:
        """How many different graphs there are."""
        return len(np.unique(self.fingerprints))


def draw_ensemble(network: Network, null: str, count: Count, settings: Motifs, seed: int, threads: int) -> Ensemble:
    """`settings.samples` graphs of a null. How many threads share the work does not change them."""
    if null == OURS:
        return _walked(network, count, settings, seed, threads)
    draw = published_null(network, null)
    parts = np.array_split(np.arange(settings.samples), threads)

    def drawn(part: Int[np.ndarray, " drawn"]) -> Iterator[Edges]:
        return (draw(number_stream(seed, int(sample))) for sample in part)

    return _gathered(network, count, [lambda part=part: drawn(part) for part in parts], threads, chained=False)


@dataclass(frozen=True)
class Places:
    """Where the observed graph lies among the places of some chains."""

    lengths: tuple[int, ...]
    """Places on each chain; the common ancestor is none of them."""
    chain: int
    """The chain with the observed graph."""
    place: int
    """Its place on it, counted from 0 at the ancestor's end."""


def draw_places(samples: int, chains: int, seed: int) -> Places:
    """Places for some samples and the observed graph, which gets any of them with equal chances."""
    chains = min(chains, samples + 1)
    lengths = [len(part) for part in np.array_split(np.arange(samples + 1), chains)]
    drawn = int(np.random.default_rng([seed, 0]).integers(samples + 1))
    chain = int(np.searchsorted(np.cumsum(lengths), drawn, side="right"))
    return Places(tuple(lengths), chain, drawn - sum(lengths[:chain]))


def _walked(network: Network, count: Count, settings: Motifs, seed: int, threads: int) -> Ensemble:
    walk, observed = typed_walk(network), observed_edges(network)
    places = draw_places(settings.samples, settings.chains, seed)

    def along(edges: Edges, length: int, stream: int) -> Iterator[Edges]:
        state = number_stream(seed, 1, stream)
        for _ in range(length):
            edges = walk(state, edges, settings.swaps_per_edge)
            yield edges

    *back, ancestor = along(observed, places.place + 1, 0)
    onward = places.lengths[places.chain] - places.place - 1
    stretches = [lambda: iter(back), lambda: along(observed, onward, 1)]
    others = [(chain, length) for chain, length in enumerate(places.lengths) if chain != places.chain]
    for chain, length in others:
        stretches.append(lambda chain=chain, length=length: along(ancestor, length, 2 + chain))
    return _gathered(network, count, stretches, threads, chained=True)


def _gathered(
    network: Network, count: Count, stretches: list[Callable[[], Iterable[Edges]]], threads: int, chained: bool
) -> Ensemble:
    """All graphs of all stretches, in their order; a thread takes a stretch at a time."""
    observed = edge_set(network)

    def run(stretch: Callable[[], Iterable[Edges]]) -> list[tuple]:
        return [
            (count(edges), moved_share(network, observed, edges), fingerprint(network, edges)) for edges in stretch()
        ]

    with ThreadPoolExecutor(threads) as pool:
        done = list(pool.map(run, stretches))
    counts, moved, fingerprints = zip(*[row for rows in done for row in rows], strict=True)
    stretch = np.repeat(np.arange(len(done)), [len(rows) for rows in done])
    return Ensemble(
        np.stack(counts),
        np.array(moved),
        np.array(fingerprints, dtype=np.uint64),
        stretch if chained else np.arange(len(counts)),
    )
