"""That the observed graph is one draw among the others, whoever does the work."""

import numpy as np
import pytest
from scipy.stats import binom, kstest

from reasondiff.motifs.counting import MOTIF, motif_counts
from reasondiff.motifs.ensembles import draw_ensemble, draw_places
from reasondiff.motifs.nulls import NULLS, observed_edges, published_null
from reasondiff.motifs.random_numbers import number_stream
from reasondiff.motifs.statistics import tie_broken_p, two_sided_p
from reasondiff.motifs.trades import typed_walk


def counter(network, acyclic=True):
    return lambda edges: motif_counts(network, edges, 5, acyclic)


@pytest.mark.parametrize("null", NULLS)
def test_how_many_threads_share_the_work_changes_nothing(random_network, motif_settings, null):
    network = random_network(0)
    one, three = (
        draw_ensemble(network, null, counter(network, acyclic=False), motif_settings(samples=40), 5, threads)
        for threads in (1, 3)
    )
    assert one.counts.tolist() == three.counts.tolist()
    assert one.fingerprints.tolist() == three.fingerprints.tolist()
    assert one.stretch.tolist() == three.stretch.tolist()
    assert len(one.counts) == 40 and one.mobility == three.mobility > 0


def test_every_place_of_the_chains_is_the_observed_graphs_equally_often():
    places = [draw_places(9, 3, seed) for seed in range(1000)]
    assert {one.lengths for one in places} == {(4, 3, 3)}
    seen = np.bincount([sum(one.lengths[: one.chain]) + one.place for one in places], minlength=10)
    assert (abs(seen - 100) < 5 * (1000 * 0.1 * 0.9) ** 0.5).all()
    assert draw_places(4, 99, 0).lengths == (1, 1, 1, 1, 1)


def test_chains_are_told_apart(random_network, motif_settings):
    network, settings = random_network(0), motif_settings(samples=30, chains=3)
    ensemble = draw_ensemble(network, "typed", counter(network), settings, 1, 1)
    places = draw_places(30, 3, 1)
    own = places.lengths[places.chain]
    expected = [places.place, own - places.place - 1]
    expected += [length for chain, length in enumerate(places.lengths) if chain != places.chain]
    assert np.bincount(ensemble.stretch, minlength=4).tolist() == expected


@pytest.mark.parametrize(("null", "chains"), [("typed", 3), ("typed", 99), ("layer_preserving", 1)])
def test_graphs_drawn_from_a_null_have_uniform_p(random_network, motif_settings, null, chains):
    # 200 graphs from chains of their own; each has its rank among graphs that start from itself
    network, graphs = random_network(4, layers=4, width=5, density=0.5), 200
    settings = motif_settings(samples=19, chains=chains, swaps_per_edge=1)
    draw = published_null(network, null) if null != "typed" else None
    walk, rng = typed_walk(network), np.random.default_rng(0)
    p, cautious = [], []
    for graph in range(graphs):
        state = number_stream(1, graph)
        edges = draw(state) if draw else walk(state, observed_edges(network), 100)
        drawn = type(network)(network.kind, network.layer, network.position, edges.source, edges.target, edges.positive)
        ensemble = draw_ensemble(drawn, null, counter(drawn), settings, graph, 1)
        observed = motif_counts(drawn, edges, 5, True)
        p.append(tie_broken_p(observed, ensemble.counts, rng))
        cautious.append(two_sided_p(observed, ensemble.counts))
    p, cautious = np.array(p), np.array(cautious)
    for motif in ("030T", "030T embedding>feature>feature", "coherent_ffl", "cross_chain_toggle"):
        of_motif = p[:, list(MOTIF).index(motif)]
        assert kstest(of_motif, "uniform").pvalue > 0.01
        for level in (0.01, 0.05, 0.1):
            for either in (of_motif, 1 - of_motif, cautious[:, list(MOTIF).index(motif)]):
                assert (either <= level).sum() <= binom.ppf(0.999, graphs, level)
