"""How fast are motifs counted in graphs and in their nulls, beside igraph's census and a plain Python loop of swaps?

python benchmarks/motifs.py [--threads 2] [--nulls 1000]

The graph is the published one in the folder that REASONDIFF_GRAPHS names. The reference draws nulls of it as published
(`layer_pair_config`: 10 swaps tried per edge of each couple of layers) with Python's sets and lists, and counts each by
igraph; it is timed on 20 nulls, in the same run, and its rate taken for all. Each row runs in a process of its own and
is the best of three; what is compiled is compiled before.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from measure import Measured, machine, measure, timed

REFERENCE_NULLS, REPEATS = 20, 3
SIZES = {"2,000 nodes, 100,000 edges": (2_000, 100_000), "50,000 nodes, 1,000,000 edges": (50_000, 1_000_000)}


def best(work: Callable[[], int]) -> tuple[int, float]:
    """(how many, seconds) of the fastest of some calls of `work`, which returns how many it did."""
    return min((timed(work) for _ in range(REPEATS)), key=lambda done: done[1])


def published_network():
    from reasondiff.graphs.sources import read_folder
    from reasondiff.motifs.network import network_of

    return network_of(read_folder(os.environ["REASONDIFF_GRAPHS"])["capital-state-dallas"])


def settings(samples: int):
    from reasondiff.config import Motifs

    return Motifs(
        thresholds=((1.0, 1.0),), max_gap=5, nulls=("typed",), samples=samples, samples_beside=samples, chains=4,
        swaps_per_edge=10, min_states=20, sources={}, bootstrap=100, seed=0,
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------- the reference


def plain_null(source: list, target: list, blocks: list, seed: int) -> list:
    """Targets after 10 swaps tried per edge of each block."""
    import random

    draw, new, joined = random.Random(seed), list(target), set(zip(source, target, strict=True))
    for first, last in blocks:
        for _ in range(10 * (last - first) if last - first > 1 else 0):
            i, j = draw.randrange(first, last), draw.randrange(first, last)
            one, other = (source[i], new[j]), (source[j], new[i])
            if i == j or one in joined or other in joined:
                continue
            joined -= {(source[i], new[i]), (source[j], new[j])}
            joined |= {one, other}
            new[i], new[j] = new[j], new[i]
    return new


def reference(counter: str, nulls: int) -> tuple[int, float]:
    """Nulls by plain Python, each counted by igraph's `counter`."""
    import igraph
    import numpy as np

    network = published_network()
    first, second = network.layer[network.source], network.layer[network.target]
    order = np.lexsort([second, first])
    layers = np.stack([first, second], axis=1)[order]
    starts = [0, *(np.flatnonzero((np.diff(layers, axis=0) != 0).any(axis=1)) + 1).tolist(), len(order)]
    blocks = list(zip(starts, starts[1:], strict=False))
    source, target = network.source[order].tolist(), network.target[order].tolist()

    def work() -> int:
        for seed in range(nulls):
            edges = list(zip(source, plain_null(source, target, blocks, seed), strict=True))
            graph = igraph.Graph(n=network.n_nodes, edges=edges, directed=True)
            graph.triad_census() if counter == "triad_census" else graph.motifs_randesu(size=3)
        return nulls

    return best(work)


# ----------------------------------------------------------------------------------------------- ours


def ours(null: str, what: str, nulls: int, threads: int) -> tuple[int, float]:
    """Nulls of one kind with the triads alone counted, or all motifs."""
    from reasondiff.motifs.census import census
    from reasondiff.motifs.counting import motif_counts
    from reasondiff.motifs.ensembles import draw_ensemble

    network = published_network()

    def count(edges):
        if what == "triads":
            return census(network.n_nodes, edges.source, edges.target, acyclic=True)
        return motif_counts(network, edges, 5, acyclic=True)

    draw_ensemble(network, null, count, settings(20), 0, threads)
    return best(lambda: len(draw_ensemble(network, null, count, settings(nulls), 1, threads).counts))


def random_dag(nodes: int, edges: int):
    """(types, source, target): edges from lower to higher numbers, any equally likely."""
    import numpy as np

    rng = np.random.default_rng(0)
    ends = np.unique(np.sort(rng.integers(0, nodes, (int(1.2 * edges), 2)), axis=1), axis=0)
    ends = rng.permutation(ends[ends[:, 0] < ends[:, 1]])[:edges].astype(np.int32)
    return (np.arange(nodes) < nodes // 100).astype(np.int8), ends[:, 0].copy(), ends[:, 1].copy()


def one_census(whose: str, nodes: int, edges: int, times: int) -> tuple[int, float]:
    """The census of one random graph, `times` over."""
    from reasondiff.motifs.census import typed_census

    kind, source, target = random_dag(nodes, edges)
    if whose == "igraph":
        import igraph

        graph = igraph.Graph(n=nodes, edges=list(zip(source.tolist(), target.tolist(), strict=True)), directed=True)
        return best(lambda: sum(bool(graph.triad_census()) for _ in range(times)))
    typed_census(kind[:10], source[:0], target[:0], acyclic=True)
    if whose == "ours":
        typed_census(kind, source, target, acyclic=True)
        return best(lambda: sum(len(typed_census(kind, source, target, acyclic=True)) > 0 for _ in range(times)))
    return 1, 1.0  # the graph alone, for its memory


# ----------------------------------------------------------------------------------------------- tables


def null_rows(nulls: int, threads: int) -> list[dict]:
    measured = [
        measure(f"Python and igraph ({counter})", reference, counter, REFERENCE_NULLS, threads=1)
        for counter in ("triad_census", "motifs_randesu")
    ]
    base = measured[0]
    for null, what in (("layer_pair_config", "triads"), ("layer_pair_config", "all motifs"), ("typed", "all motifs")):
        for count in sorted({1, threads}):
            name = f"ours, {null}, {what}, {count} thread{'s' if count > 1 else ''}"
            measured.append(measure(name, ours, null, what, nulls, count, threads=1))
    return [
        {
            "": row.name,
            f"s for {nulls:,} nulls": f"{nulls * row.seconds / row.tokens:.2f}",
            "ratio": f"{row.tokens_per_second / base.tokens_per_second:.0f}",
            "peak memory, GiB": f"{row.peak_memory_gib:.2f}",
        }
        for row in measured
    ]


def census_rows() -> list[dict]:
    rows: list[tuple[str, Measured]] = []
    for size, (nodes, edges) in SIZES.items():
        for whose in ("nothing counted", "ours", *(["igraph"] if nodes < 10_000 else [])):
            rows.append((size, measure(whose, one_census, whose, nodes, edges, 1, threads=1)))
    return [
        {
            "": size,
            "counted by": row.name,
            "ms": "" if row.name == "nothing counted" else f"{1000 * row.seconds / row.tokens:.1f}",
            "peak memory, GiB": f"{row.peak_memory_gib:.2f}",
        }
        for size, row in rows
    ]


def show(title: str, rows: list[dict]) -> None:
    import pandas as pd

    print(f"**{title}** ({machine()})\n\n{pd.DataFrame(rows).to_markdown(index=False)}\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--nulls", type=int, default=1000)
    wanted = parser.parse_args()
    if not os.environ.get("REASONDIFF_GRAPHS"):
        raise SystemExit("set REASONDIFF_GRAPHS to the folder with the published graph capital-state-dallas.json")
    title = f"Nulls of a graph of 83 nodes and 1,719 edges; the reference timed on {REFERENCE_NULLS}"
    show(title, null_rows(wanted.nulls, wanted.threads))
    show("Triad census of one random acyclic graph, ours with node types", census_rows())


if __name__ == "__main__":
    main()
