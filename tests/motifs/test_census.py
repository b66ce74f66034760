"""The triad census, against igraph and against plain loops."""

from itertools import combinations

import igraph
import numpy as np
import pytest

from reasondiff.motifs.census import TRIADS, TYPED_TRIADS, bits_fit, by_bits, by_neighbours, census, typed_census
from reasondiff.motifs.network import NODE_TYPES, network_of


def random_digraph(seed):
    """(types, source, target) of a digraph with cycles, 3 to 70 nodes (both sides of a machine word), any density."""
    rng = np.random.default_rng(seed)
    nodes = int(rng.integers(3, 71))
    joined = rng.random((nodes, nodes)) < rng.random() * 0.7
    np.fill_diagonal(joined, False)
    source, target = np.nonzero(joined)
    return rng.integers(0, 3, nodes).astype(np.int8), source.astype(np.int32), target.astype(np.int32)


def random_dag(seed):
    kind, source, target = random_digraph(seed)
    upwards = source < target
    return kind, source[upwards], target[upwards]


def plain_typed(kind, source, target):
    """Counts of `TYPED_TRIADS` by looking at all triples of nodes in all roles."""
    edges = set(zip(source.tolist(), target.tolist(), strict=True))
    shapes = {
        "030T": ({(0, 1), (1, 2), (0, 2)}, False),
        "021C": ({(0, 1), (1, 2)}, False),
        "021D": ({(0, 1), (0, 2)}, True),
        "021U": ({(0, 2), (1, 2)}, True),
    }
    found = np.zeros(len(TYPED_TRIADS), dtype=int)
    for nodes in combinations(range(len(kind)), 3):
        for a, b, c in {(x, y, z) for x in nodes for y in nodes for z in nodes if len({x, y, z}) == 3}:
            roles = (a, b, c)
            here = {(i, j) for i in range(3) for j in range(3) if (roles[i], roles[j]) in edges}
            types = tuple(int(kind[node]) for node in roles)
            for place, motif in enumerate(TYPED_TRIADS):
                shape, has_twins = shapes[motif.triad]
                twins = (1, 2) if motif.triad == "021D" else (0, 1)
                counted = 0.5 if has_twins and types[twins[0]] == types[twins[1]] else 1
                if here == shape and types == motif.types:
                    found[place] += int(2 * counted)
    return found // 2


@pytest.mark.parametrize("seed", range(0, 200, 20))
def test_all_sixteen_classes_of_cyclic_digraphs_equal_igraphs(seed):
    for one in range(seed, seed + 20):
        kind, source, target = random_digraph(one)
        theirs = igraph.Graph(n=len(kind), edges=np.stack([source, target], 1).tolist(), directed=True).triad_census()
        ours = census(len(kind), source, target, acyclic=False).tolist()
        assert ours == [int(theirs[name]) for name in TRIADS]


@pytest.mark.parametrize("seed", range(12))
def test_bits_neighbours_and_the_promise_of_no_cycle_give_the_same_counts(seed):
    for graph in (random_digraph(seed), random_dag(seed)):
        assert by_bits(*graph, acyclic=False).tolist() == by_neighbours(*graph, acyclic=False).tolist()
    assert by_bits(*graph, acyclic=True).tolist() == by_bits(*graph, acyclic=False).tolist()


@pytest.mark.parametrize("make", [random_dag, random_digraph])
def test_typed_counts_equal_a_plain_loop_over_triples(make):
    for seed in range(40):
        kind, source, target = make(seed)
        if len(kind) <= 16:
            counts = typed_census(kind, source, target, acyclic=make is random_dag)
            assert counts[len(TRIADS) :].tolist() == plain_typed(kind, source, target).tolist()


def test_typed_counts_of_a_layered_network_add_up_to_the_untyped_ones(random_network):
    network = random_network(0)
    counts = typed_census(network.kind, network.source, network.target, acyclic=True)
    for triad in ("021D", "021U", "021C", "030T"):
        typed = sum(counts[16 + place] for place, motif in enumerate(TYPED_TRIADS) if motif.triad == triad)
        assert typed == counts[TRIADS.index(triad)] > 0


def test_names_say_the_types_of_the_roles():
    names = [motif.name for motif in TYPED_TRIADS]
    assert len(set(names)) == len(names) == 20
    assert {"030T embedding>feature>logit", "021D feature>feature+logit", "021U feature+embedding>logit"} <= {*names}
    assert NODE_TYPES == ("feature", "embedding", "logit")


def test_large_sparse_graphs_are_counted_without_a_row_of_bits_per_node():
    # a chain of n nodes: n - 2 triads 021C, and each of its n - 1 edges alone with each node that neither end adjoins
    n = 60_000
    source = np.arange(n - 1, dtype=np.int32)
    assert not bits_fit(n, n - 1) and bits_fit(2_000, 100_000) and not bits_fit(50_000, 1_000_000)
    counts = dict(zip(TRIADS, census(n, source, source + 1, acyclic=True).tolist(), strict=True))
    assert counts["021C"] == n - 2
    assert counts["012"] == (n - 1) * (n - 2) - 2 * (n - 2)
    assert counts["003"] == n * (n - 1) * (n - 2) // 6 - counts["012"] - counts["021C"]
    assert not any(counts[name] for name in TRIADS if name not in ("003", "012", "021C"))


def test_the_published_graph_has_igraphs_published_census(published_graph, published_counts):
    network = network_of(published_graph)
    counts = census(network.n_nodes, network.source, network.target, acyclic=True)
    assert {f"t{name}": int(n) for name, n in zip(TRIADS, counts, strict=True)} == published_counts[
        "igraph_triad_census"
    ]
