"""How much of what reaches the logits passes through each node and edge of a graph?"""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from circuit_tracer_graphs import double_precision, to_circuit_tracer
from made_up_graphs import made_up_graph

from reasondiff.graphs.exchange import from_neuronpedia
from reasondiff.graphs.graph import EMBEDDING, ERROR, FEATURE, LOGIT, make_graph, no_graph
from reasondiff.graphs.influence import edge_influences, influences, logit_weights, normalised, scores


def four_nodes():
    """Embedding 0 and error 1 at the first of two tokens, latent 2 of layer 1 after them, logit 3 after the second.

    The latent gets 3 of the token and -1 of the error; the logit 2 of the latent, -1 of the error and 1 of the token.
    """
    return make_graph(
        ("a", "b"), {}, kind=[EMBEDDING, ERROR, FEATURE, LOGIT], layer=[-1, 0, 1, 2], position=[0, 0, 1, 1],
        feature=[5, -1, 9, 7], activation=[np.nan, np.nan, 1.0, np.nan], influence=[np.nan] * 4,
        probability=[np.nan, np.nan, np.nan, 0.5], source=[0, 1, 0, 1, 2], target=[2, 2, 3, 3, 3],
        weight=[3, -1, 1, -1, 2],
    )  # fmt: skip


def test_an_edge_s_share_is_its_size_among_all_edges_into_its_target():
    assert normalised(four_nodes()).tolist() == [0.75, 0.25, 0.25, 0.25, 0.5]


def test_influence_summed_by_hand():
    # latent: 1/2 of the logit. Token: 1/4 directly and 3/4 of the latent's 1/2. Error: 1/4 and 1/4 of 1/2.
    assert influences(four_nodes()).tolist() == [0.625, 0.375, 0.5, 0.0]


def test_an_edge_carries_its_share_of_what_its_target_passes_on():
    # into the latent, which passes 1/2 on: 3/4 and 1/4 of it
    assert edge_influences(four_nodes()).tolist() == [0.375, 0.125, 0.25, 0.25, 0.5]


def test_scores_summed_by_hand():
    # replacement: tokens .625 of tokens and errors 1. Completeness: of the latent's edges 3/4 are no errors (it counts
    # 1/2), of the logit's 3/4 (it counts 1), token and error have no edges into them (.625 and .375, all of it):
    # (.375 + .75 + .625 + .375) / 2.5. The latent is half of the last hop, at the logit's position. Of the token's
    # .625, .375 passes through the latent.
    found = scores(four_nodes())
    assert found.replacement == pytest.approx(0.625)
    assert found.completeness == pytest.approx(2.125 / 2.5)
    assert (found.feature_share, found.share_target_position) == (0.5, 0.5)
    assert (found.share_layer0, found.share_rest) == (0.0, 0.0)
    assert found.tokens_via_features == pytest.approx(0.6)


def test_influences_are_those_of_matrix_powers():
    graph = made_up_graph(3)
    matrix = np.zeros((graph.n_nodes, graph.n_nodes))
    matrix[graph.target, graph.source] = np.abs(graph.weight)
    sums = matrix.sum(1, keepdims=True)
    matrix = np.divide(matrix, sums, out=np.zeros_like(matrix), where=sums > 0)
    inverse = np.linalg.inv(np.eye(graph.n_nodes) - matrix) - np.eye(graph.n_nodes)
    np.testing.assert_allclose(influences(graph), logit_weights(graph) @ inverse, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_scores_are_circuit_tracer_s(seed):
    from circuit_tracer.graph import compute_graph_scores, compute_node_influence

    graph = made_up_graph(seed, logits=1 + seed % 3, density=0.2 + 0.1 * seed)
    with double_precision():
        theirs, order = to_circuit_tracer(graph)
        weights = theirs.adjacency_matrix.new_zeros(graph.n_nodes)
        weights[-len(theirs.logit_targets) :] = theirs.logit_probabilities
        influence = compute_node_influence(theirs.adjacency_matrix, weights) / weights.sum()
        expected = compute_graph_scores(theirs)
    np.testing.assert_allclose(influences(graph)[order], influence, atol=1e-9)
    found = scores(graph)
    assert (found.replacement, found.completeness) == pytest.approx(expected, abs=1e-9)


def test_influence_of_tokens_and_errors_adds_up_to_the_whole():
    # every path starts at a token or an error, if every latent has an edge into it
    graph = made_up_graph(1, density=1.0)
    starts = np.isin(graph.kind, (EMBEDDING, ERROR))
    starts |= (graph.kind == FEATURE) & (np.bincount(graph.target, minlength=graph.n_nodes) == 0)
    assert influences(graph)[starts].sum() == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(3))
def test_influence_past_latents_is_that_of_the_direct_edges(seed):
    graph = made_up_graph(seed)
    through, shares, weights = influences(graph), normalised(graph), logit_weights(graph)
    direct = (graph.kind[graph.source] == EMBEDDING) & (graph.kind[graph.target] == LOGIT)
    past = (shares * weights[graph.target])[direct].sum() / through[graph.kind == EMBEDDING].sum()
    assert scores(graph).tokens_via_features == pytest.approx(1 - past)


def test_parts_of_the_feature_share_add_up_to_it():
    found = scores(made_up_graph(2))
    assert 0 < found.feature_share < 1
    assert found.share_layer0 + found.share_target_position + found.share_rest == pytest.approx(found.feature_share)
    assert min(found.share_layer0, found.share_target_position, found.share_rest) > 0


def test_logits_count_by_their_probability():
    graph = made_up_graph(2)
    logits, known = graph.nodes_of(LOGIT), graph.probability
    np.testing.assert_allclose(logit_weights(graph)[logits], known[logits] / known[logits].sum(), rtol=1e-6)
    nothing_known = replace(graph, probability=np.full_like(known, np.nan))
    assert logit_weights(nothing_known)[logits].tolist() == [1 / 3] * 3


def test_a_graph_without_latents_has_a_feature_share_of_zero():
    found = scores(made_up_graph(0, features=0))
    assert (found.feature_share, found.tokens_via_features) == (0.0, 0.0)
    assert found.replacement > 0


def test_no_graph_has_no_scores():
    empty = no_graph(("a",), {}, "the model never said it")
    assert len(influences(empty)) == len(edge_influences(empty)) == 0
    assert all(np.isnan(value) for value in asdict(scores(empty)).values())


def test_latents_carry_the_last_hop_of_a_published_graph():
    folder = os.environ.get("REASONDIFF_GRAPHS")
    if not folder:
        pytest.skip("REASONDIFF_GRAPHS names no folder of published graphs")
    content = json.loads((Path(folder) / "capital-state-dallas.json").read_text())
    assert scores(from_neuronpedia(content, "Dallas")).feature_share == pytest.approx(0.8937, abs=1e-4)
