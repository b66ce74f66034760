"""What each null keeps, that nothing else is kept, and that samples do not depend on how they are made."""

from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest

from reasondiff.config import NULL_MODELS
from reasondiff.motifs.nulls import (
    CYCLIC,
    NULLS,
    edge_set,
    fingerprint,
    moved_share,
    observed_edges,
    published_null,
)
from reasondiff.motifs.random_numbers import number_stream
from reasondiff.motifs.trades import typed_walk

PUBLISHED = [name for name in NULLS if name != "typed"]


def graphs_of(network, null, count, seed=0):
    if null != "typed":
        draw = published_null(network, null)
        return [draw(number_stream(seed, sample)) for sample in range(count)]
    walk, state, edges, found = typed_walk(network), number_stream(seed), observed_edges(network), []
    for _ in range(count):
        edges = walk(state, edges, 10)
        found.append(edges)
    return found


def tally(*columns):
    return Counter(zip(*[np.asarray(column).tolist() for column in columns], strict=True))


def kept(network, null, edges):
    """What the null promises to keep, worked out from a graph."""
    source, target, sign = edges.source, edges.target, edges.positive
    layer, kind, position = network.layer, network.kind, network.position
    by_layers = tally(layer[source], layer[target])
    degrees = tally(source), tally(target)
    if null == "erdos_renyi":
        return [len(source)]
    if null == "configuration":
        return [*degrees]
    if null == "layer_preserving":
        return [by_layers]
    if null == "layer_pair_config":
        return [tally(source, layer[target]), tally(target, layer[source])]
    if null == "layer_pair_config_signs":
        return [tally(source, layer[target], sign), tally(target, layer[source])]
    position_class = np.sign(position[target] - position[source])
    return [
        tally(source, kind[target], sign),
        tally(target, kind[source], sign),
        tally(layer[source], layer[target], position_class, sign),
    ]


def test_every_null_of_the_config_is_described():
    assert set(NULLS) == set(NULL_MODELS)


@pytest.mark.parametrize("null", NULLS)
@pytest.mark.parametrize("seed", range(3))
def test_what_a_null_keeps_is_kept(random_network, null, seed):
    network = random_network(seed, density=0.5)
    before = kept(network, null, observed_edges(network))
    for edges in graphs_of(network, null, 20):
        assert kept(network, null, edges) == before


@pytest.mark.parametrize("null", NULLS)
def test_random_graphs_have_no_loops_no_edge_twice_and_move(random_network, null):
    network = random_network(0)
    observed, found = edge_set(network), graphs_of(network, null, 20)
    for edges in found:
        pairs = set(zip(edges.source.tolist(), edges.target.tolist(), strict=True))
        assert len(pairs) == network.n_edges
        assert all(source != target for source, target in pairs)
        assert moved_share(network, observed, edges) == pytest.approx(
            len(pairs - set(zip(network.source.tolist(), network.target.tolist(), strict=True))) / network.n_edges
        )
    assert np.mean([moved_share(network, observed, edges) for edges in found]) > 0.05
    assert len({int(fingerprint(network, edges)) for edges in found}) == 20


@pytest.mark.parametrize("null", NULLS)
def test_only_the_nulls_that_say_so_leave_the_order_of_layers(random_network, null):
    network = random_network(0)
    backward = [bool((network.layer[e.source] >= network.layer[e.target]).any()) for e in graphs_of(network, null, 10)]
    assert all(backward) if null in CYCLIC else not any(backward)


def test_ours_alone_keeps_the_causal_mask(random_network):
    network = random_network(1)
    earlier = {
        null: any((network.position[e.source] > network.position[e.target]).any() for e in graphs_of(network, null, 10))
        for null in NULLS
    }
    assert earlier == {null: null != "typed" for null in NULLS}


@pytest.mark.parametrize("null", NULLS)
def test_a_seed_gives_its_graphs_again_and_another_gives_others(random_network, null):
    network = random_network(2)
    prints = [[int(fingerprint(network, one)) for one in graphs_of(network, null, 5, seed)] for seed in (3, 3, 4)]
    assert prints[0] == prints[1]
    assert not set(prints[0]) & set(prints[2])


def test_a_graph_has_one_fingerprint_in_any_order_and_another_with_a_sign_changed(random_network, with_edges):
    network = random_network(0)
    order = np.random.default_rng(0).permutation(network.n_edges)
    shuffled = with_edges(network, network.source[order], network.target[order], network.positive[order])
    flipped = network.positive.copy()
    flipped[[0, 1]] = ~flipped[[0, 1]]
    changed = with_edges(network, network.source, network.target, flipped)
    prints = [int(fingerprint(network, observed_edges(one))) for one in (network, shuffled, changed)]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("null", ["configuration", "layer_pair_config"])
def test_a_hash_table_gives_the_graphs_that_bits_give(random_network, null, monkeypatch):
    network = random_network(0)
    by_bits, moved = graphs_of(network, null, 10), edge_set(network)
    monkeypatch.setattr("reasondiff.motifs.nulls.SMALL_BYTES", 0)
    monkeypatch.setattr("reasondiff.motifs.nulls.BYTES_PER_EDGE", 0)
    by_hash, moved_by_hash = graphs_of(network, null, 10), edge_set(network)
    assert len(moved.bits) and not len(moved_by_hash.bits) and not len(moved.table)
    for one, other in zip(by_bits, by_hash, strict=True):
        assert one.target.tolist() == other.target.tolist() and one.source.tolist() == other.source.tolist()
        assert moved_share(network, moved, one) == moved_share(network, moved_by_hash, other) > 0


def small_network(random_network, with_edges):
    """Two embeddings, two latents in each of two layers, two logits; the last three at a later position."""
    network = random_network(0, layers=2, width=2, positions=2, density=1.0)
    position = np.array([0, 0, 0, 0, 0, 1, 1, 1], dtype=np.int32)
    nodes = type(network)(network.kind, network.layer, position, network.source, network.target, network.positive)
    ends = [
        (0, 2, 1), (1, 3, 1), (0, 4, 1), (1, 5, 0), (0, 5, 1), (2, 4, 1), (3, 5, 0), (2, 6, 1), (3, 7, 1), (4, 6, 1),
        (5, 7, 1), (4, 7, 1),
    ]  # fmt: skip
    return with_edges(nodes, *zip(*ends, strict=True))


def all_graphs(network):
    """Every signed graph with what `typed` keeps, by trying all sets of as many edges along the causal mask."""
    layer, position = network.layer, network.position
    nodes = range(network.n_nodes)
    possible = [(s, t) for s, t in product(nodes, nodes) if layer[s] < layer[t] and position[s] <= position[t]]
    wanted = kept(network, "typed", observed_edges(network))
    out_degree, found = tally(network.source), []
    choices = [combinations([t for s, t in possible if s == node], out_degree[(node,)]) for node in nodes]
    pairs = tally(layer[network.source], layer[network.target])
    for chosen in product(*choices):
        ends = [(s, t) for s, targets in enumerate(chosen) for t in targets]
        source, target = (np.array(side, dtype=np.int32) for side in zip(*ends, strict=True))
        if tally(layer[source], layer[target]) != pairs or tally(target) != tally(network.target):
            continue
        for positive in combinations(range(len(ends)), int(network.positive.sum())):
            signs = np.isin(np.arange(len(ends)), positive)
            edges = type(observed_edges(network))(source, target, signs)
            if kept(network, "typed", edges) == wanted:
                found.append(int(fingerprint(network, edges)))
    return found


def test_the_typed_walk_visits_all_graphs_with_the_same_sums_equally_often(random_network, with_edges):
    network = small_network(random_network, with_edges)
    possible, visits = all_graphs(network), Counter()
    visits.update(int(fingerprint(network, edges)) for edges in graphs_of(network, "typed", 4000))
    assert set(visits) == set(possible) and len(possible) == 9
    expected, states = 4000 / len(visits), len(visits)
    chi_squared = sum((count - expected) ** 2 / expected for count in visits.values())
    assert chi_squared < states + 4 * (2 * states) ** 0.5  # its mean and four standard deviations


def test_nodes_that_are_joined_to_the_same_nodes_trade_signs(random_network, with_edges):
    # two embeddings, both joined to two latents, each exciting one and inhibiting the other: two graphs, no edge moves
    network = random_network(0, layers=1, width=2, positions=2, density=1.0)
    here = np.zeros_like(network.position)
    nodes = type(network)(network.kind, network.layer, here, network.source, network.target, network.positive)
    joined = with_edges(nodes, [0, 0, 1, 1], [2, 3, 2, 3], [True, False, False, True])
    signs = [edges.positive[np.lexsort([edges.target, edges.source])][0] for edges in graphs_of(joined, "typed", 400)]
    assert abs(np.mean(signs) - 0.5) < 4 * 0.5 / 400**0.5


@pytest.mark.parametrize("null", ["erdos_renyi", "layer_preserving"])
def test_edges_are_placed_anywhere_equally_often(random_network, null):
    network = random_network(0, layers=2, width=3, positions=2, density=0.5)
    seen = np.zeros((network.n_nodes, network.n_nodes))
    for edges in graphs_of(network, null, 2000):
        seen[edges.source, edges.target] += 1 / 2000
    pairs = tally(network.layer[network.source], network.layer[network.target])
    sizes = Counter(network.layer.tolist())
    for s, t in product(range(network.n_nodes), repeat=2):
        if null == "erdos_renyi":
            chance = network.n_edges / (network.n_nodes * (network.n_nodes - 1)) * (s != t)
        else:
            layers = network.layer[s], network.layer[t]
            chance = pairs[layers] / (sizes[layers[0]] * sizes[layers[1]])
        assert abs(seen[s, t] - chance) < 5 * (0.25 / 2000) ** 0.5


def test_signs_that_are_drawn_anew_have_the_observed_share(random_network):
    network = random_network(0)
    for null in ("configuration", "erdos_renyi", "layer_preserving", "layer_pair_config"):
        shares = [edges.positive.mean() for edges in graphs_of(network, null, 300)]
        assert len(set(shares)) > 1
        assert np.mean(shares) == pytest.approx(network.positive.mean(), abs=5 * 0.5 / (300 * network.n_edges) ** 0.5)
