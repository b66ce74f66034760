"""Signed patterns, against a plain search from the table that defines them."""

from itertools import permutations

import numpy as np
import pytest

from reasondiff.motifs.network import network_of
from reasondiff.motifs.templates import TEMPLATES, signed_counts


def placements(template, edges, nodes):
    """Ways to place a template's nodes on distinct nodes so that all of its edges are there, by trying one by one."""
    letters = template.nodes

    def extend(chosen):
        if len(chosen) == len(letters):
            return 1
        found = 0
        for node in nodes:
            if node in chosen.values():
                continue
            trial = {**chosen, letters[len(chosen)]: node}
            placed = [edge for edge in template.edges if edge[0] in trial and edge[1] in trial]
            if all((trial[a], trial[b], sign) in edges for a, b, sign in placed):
                found += extend(trial)
        return found

    return extend({})


def symmetries(template):
    """Ways to rename a template's nodes that leave it as it is."""
    wanted = set(template.edges)
    names = template.nodes
    renamings = [dict(zip(names, other, strict=True)) for other in permutations(names)]
    return sum({(name[a], name[b], sign) for a, b, sign in wanted} == wanted for name in renamings)


def counts_of(network, max_gap):
    return signed_counts(network.layer, network.source, network.target, network.positive, max_gap)


@pytest.mark.parametrize("max_gap", [1, 2, 9])
def test_counts_equal_a_plain_search_for_the_defined_patterns(random_network, max_gap):
    network = random_network(0, layers=3, width=4, positions=2, density=0.8)
    gap = network.layer[network.target] - network.layer[network.source]
    rows = zip(network.source.tolist(), network.target.tolist(), network.positive.tolist(), gap.tolist(), strict=True)
    edges = {(source, target, positive) for source, target, positive, rise in rows if rise <= max_gap}
    plain = [placements(one, edges, range(network.n_nodes)) // symmetries(one) for one in TEMPLATES]
    assert counts_of(network, max_gap).tolist() == plain
    assert max_gap < 9 or min(plain) > 0


def test_cross_chain_patterns_by_hand(random_network, with_edges):
    # c excites a and b; a inhibits x and y, b inhibits y and z: 2 x 2 choices, less the one where both take y
    network = random_network(0, layers=3, width=3, positions=1)
    layer = network.layer.tolist()
    c, (a, b), (x, y, z) = layer.index(0), np.flatnonzero(network.layer == 1)[:2], np.flatnonzero(network.layer == 2)
    edges = [(c, a, True), (c, b, True), (a, x, False), (a, y, False), (b, y, False), (b, z, False)]
    named = dict(
        zip([one.name for one in TEMPLATES], counts_of(with_edges(network, *zip(*edges, strict=True)), 9), strict=True)
    )
    assert named["cross_chain_toggle"] == 3
    assert named["cross_chain_inhibition"] == 0
    # a excites x, which b inhibits, and b excites y, z, which a inhibits: 1 x 2
    edges = [(a, x, True), (b, x, False), (b, y, True), (b, z, True), (a, y, False), (a, z, False)]
    named = dict(
        zip([one.name for one in TEMPLATES], counts_of(with_edges(network, *zip(*edges, strict=True)), 9), strict=True)
    )
    assert named["cross_chain_inhibition"] == 2


@pytest.mark.parametrize(("max_gap", "field"), [(5, "signed_fast_gap5"), (10_000, "signed_fast_gap_inf")])
def test_the_published_graph_has_the_published_signed_counts(published_graph, published_counts, max_gap, field):
    counts = counts_of(network_of(published_graph), max_gap)
    assert {one.name: int(count) for one, count in zip(TEMPLATES, counts, strict=True)} == published_counts[field]
