"""What of an attribution graph is counted."""

import numpy as np

from reasondiff.graphs.graph import make_graph
from reasondiff.motifs.network import NODE_TYPES, network_of


def small_graph():
    # embedding 0 -> latent 1 (layer 0) -> logit 4 (layer 3 of a model of 3 blocks); error 2 -> latent 3 (layer 2)
    nan = [np.nan] * 5
    return make_graph(
        ("a", "b"), {}, kind=[2, 0, 1, 0, 3], layer=[-1, 0, 0, 2, 3], position=[0, 0, 1, 1, 1],
        feature=[7, 1, -1, 5, 9], activation=nan, influence=nan, probability=nan,
        source=[0, 1, 2, 1], target=[1, 4, 3, 3], weight=[1.0, -2.0, 3.0, 0.5],
    )  # fmt: skip


def test_error_nodes_are_dropped_with_their_edges():
    network = network_of(small_graph())
    assert [NODE_TYPES[kind] for kind in network.kind] == ["embedding", "feature", "feature", "logit"]
    edges = zip(network.source.tolist(), network.target.tolist(), network.positive.tolist(), strict=True)
    assert sorted(edges) == [(0, 1, True), (1, 2, True), (1, 3, False)]


def test_nodes_left_without_an_edge_stay():
    graph = small_graph()
    alone = network_of(graph.part(np.ones(5, dtype=bool), graph.source != 1))
    assert alone.n_nodes == 4 and alone.n_edges == 1
    assert alone.is_countable


def test_logits_lie_above_the_largest_layer_and_embeddings_below_the_first():
    assert network_of(small_graph()).layer.tolist() == [-1, 0, 2, 4]


def test_two_nodes_or_no_edge_are_nothing_to_count():
    graph = small_graph()
    assert not network_of(graph.part(np.ones(5, dtype=bool), np.zeros(4, dtype=bool))).is_countable
    assert not network_of(graph.part(graph.layer <= 0, np.ones(4, dtype=bool))).is_countable


def test_the_published_graph_has_the_published_size(published_graph, published_counts):
    network = network_of(published_graph)
    assert (published_graph.n_nodes, published_graph.n_edges) == (94, 2205)
    assert (network.n_nodes, network.n_edges) == (published_counts["nodes"], published_counts["edges"]) == (83, 1719)
    assert int(network.positive.sum()) == published_counts["n_excitatory"]
    layers = {str(layer): int((network.layer == layer).sum()) for layer in np.unique(network.layer)}
    assert layers == published_counts["effective_layers"]
