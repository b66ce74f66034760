"""Which nodes and edges carry most of what reaches the logits?"""

from dataclasses import fields, replace

import numpy as np
import pytest
from circuit_tracer_graphs import double_precision, to_circuit_tracer
from made_up_graphs import made_up_graph

from reasondiff.graphs.graph import EMBEDDING, ERROR, FEATURE, LOGIT, make_graph, no_graph, read_graph, write_graph
from reasondiff.graphs.pruning import prune, ranked, stored_part

NODE_COLUMNS = ("kind", "layer", "position", "feature")


def keys(graph):
    return set(zip(*(getattr(graph, name).tolist() for name in NODE_COLUMNS), strict=True))


def links(graph):
    ends = list(zip(*(getattr(graph, name).tolist() for name in NODE_COLUMNS), strict=True))
    return {(ends[source], ends[target]) for source, target in zip(graph.source, graph.target, strict=True)}


def assert_same(graph, other):
    for one in fields(graph):
        if one.name not in ("tokens", "facts"):
            np.testing.assert_array_equal(getattr(graph, one.name), getattr(other, one.name))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shares", [(0.4, 0.9), (0.8, 0.98), (0.7, 0.5), (0.95, 0.8), (0.0, 0.3)])
def test_pruning_is_circuit_tracer_s(seed, shares):
    from circuit_tracer.graph import prune_graph

    graph = made_up_graph(seed, blocks=5, positions=6, features=40, logits=1 + seed % 3, density=0.25 + 0.15 * seed)
    with double_precision():
        theirs, order = to_circuit_tracer(graph)
        result = prune_graph(theirs, *shares)
    place = np.argsort(order)  # of each of our nodes among theirs
    edges = result.edge_mask.numpy()[place[graph.target], place[graph.source]]
    assert_same(prune(graph, *shares), graph.part(result.node_mask.numpy()[place], edges))
    np.testing.assert_allclose(ranked(graph).cumulative[order], result.cumulative_scores, atol=1e-5)


def test_pruning_takes_nodes_away():
    graph = made_up_graph(1, features=40)
    pruned = prune(graph, 0.7, 0.9)
    assert 0 < len(pruned.nodes_of(FEATURE)) < len(graph.nodes_of(FEATURE))
    assert 0 < pruned.n_edges < graph.n_edges
    assert pruned.facts["pruning"] == {"node_share": 0.7, "edge_share": 0.9}


@pytest.mark.parametrize("seed", range(4))
def test_what_remains_leads_somewhere(seed):
    pruned = prune(made_up_graph(seed, features=40, density=0.3), 0.8, 0.6)
    leads = np.isin(np.arange(pruned.n_nodes), pruned.source)
    led_to = np.isin(np.arange(pruned.n_nodes), pruned.target)
    assert leads[np.isin(pruned.kind, (FEATURE, ERROR))].all()
    assert led_to[pruned.kind == FEATURE].all()


def test_a_chain_that_leads_nowhere_is_taken_away_from_its_end():
    # token 0 -> latents 1 -> 2 -> 3, of which the last reaches the logit by an edge too weak to be kept; token 0 -> 4
    graph = make_graph(
        ("a",), {}, kind=[EMBEDDING, FEATURE, FEATURE, FEATURE, LOGIT], layer=[-1, 0, 1, 2, 3], position=[0] * 5,
        feature=[1, 1, 2, 3, 4], activation=[np.nan, 1, 1, 1, np.nan], influence=[np.nan] * 5,
        probability=[np.nan] * 4 + [0.9], source=[0, 1, 2, 3, 0], target=[1, 2, 3, 4, 4], weight=[1, 1, 1, 0.01, 1],
    )  # fmt: skip
    assert prune(graph, 1.0, 1.0).n_nodes == 5
    pruned = prune(graph, 1.0, 0.9)
    assert pruned.kind.tolist() == [EMBEDDING, LOGIT]
    assert (pruned.source.tolist(), pruned.target.tolist(), pruned.weight.tolist()) == ([0], [1], [1.0])


def test_tokens_and_logits_are_never_pruned():
    graph = made_up_graph(0)
    for kept in (prune(graph, 0.0, 0.0), stored_part(graph, 0.0, 0)):
        assert len(kept.nodes_of(EMBEDDING)) == len(graph.nodes_of(EMBEDDING))
        assert len(kept.nodes_of(LOGIT)) == len(graph.nodes_of(LOGIT))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_the_stored_part_prunes_as_the_whole_does(seed, known, tmp_path):
    whole = made_up_graph(seed, features=60, density=0.3)
    if not known:
        whole = replace(whole, influence=np.full_like(whole.influence, np.nan))
    part = stored_part(whole, 0.8, 1000)
    assert part.n_nodes < whole.n_nodes
    write_graph(tmp_path / "graph.npz", part, {})
    part = read_graph(tmp_path / "graph.npz")
    for node_share in (0.3, 0.6, 0.8):
        assert_same(prune(part, node_share, 0.9), prune(whole, node_share, 0.9))


def test_a_part_of_few_nodes_says_how_far_it_can_be_pruned():
    whole = made_up_graph(5, features=60, density=0.3)
    part = stored_part(whole, 0.99, 12)
    others = np.isin(part.kind, (FEATURE, ERROR)).sum()
    carried = part.facts["stored_share"]
    assert others == 12
    assert 0 < carried < 0.99
    assert_same(prune(part, carried, 0.9), prune(whole, carried, 0.9))
    assert prune(whole, 0.99, 0.9).n_nodes > prune(part, 0.99, 0.9).n_nodes
    assert prune(part, 0.99, 0.9).facts["pruning"]["node_share"] == carried


def test_of_nodes_alike_a_full_part_holds_all_or_none():
    # a token feeds three latents alike, of which two may be stored: which would be a matter of order
    graph = make_graph(
        ("a",), {}, kind=[EMBEDDING, FEATURE, FEATURE, FEATURE, LOGIT], layer=[-1, 0, 0, 0, 1], position=[0] * 5,
        feature=[1, 1, 2, 3, 4], activation=[np.nan, 1, 1, 1, np.nan], influence=[np.nan] * 5,
        probability=[np.nan] * 4 + [0.9], source=[0, 0, 0, 1, 2, 3], target=[1, 2, 3, 4, 4, 4], weight=[1.0] * 6,
    )  # fmt: skip
    assert len(stored_part(graph, 0.99, 2).nodes_of(FEATURE)) == 0
    assert len(stored_part(graph, 0.99, 3).nodes_of(FEATURE)) == 3


def test_a_part_holds_all_edges_among_its_nodes_and_the_whole_s_influences():
    whole = made_up_graph(2, features=60, density=0.3)
    part = stored_part(whole, 0.7, 1000)
    chosen = keys(part)
    expected = {(source, target) for source, target in links(whole) if source in chosen and target in chosen}
    assert links(part) == expected
    assert part.facts["influence_total"] == pytest.approx(whole.influence.sum(), rel=1e-6)
    assert part.facts["influence_total"] > part.influence.sum()
    assert part.facts["prompt_id"] == whole.facts["prompt_id"]


def test_a_graph_stored_whole_says_so():
    whole = made_up_graph(2, density=0.15)
    part = stored_part(whole, 1.0, 1000)
    assert (part.influence[part.kind == FEATURE] == 0).any()
    assert_same(part, whole)
    assert part.facts["stored_share"] == 1.0


def test_a_token_of_little_influence_is_stored_and_leaves_nothing_out():
    # token 1 carries 1/10 directly, the latent and token 0 that feeds it 9/10 each: .9 of the sum is the latter two
    graph = make_graph(
        ("a", "b"), {}, kind=[EMBEDDING, EMBEDDING, FEATURE, LOGIT], layer=[-1, -1, 0, 1], position=[0, 1, 1, 1],
        feature=[1, 2, 3, 4], activation=[np.nan, np.nan, 1, np.nan], influence=[np.nan] * 4,
        probability=[np.nan] * 3 + [0.9], source=[0, 2, 1], target=[2, 3, 3], weight=[1, 9, 1],
    )  # fmt: skip
    part = stored_part(graph, 0.9, 1000)
    assert (part.n_nodes, part.facts["stored_share"]) == (4, 1.0)


def test_influences_that_are_not_known_are_worked_out_as_they_are_stored():
    graph = made_up_graph(2)
    unknown = replace(graph, influence=np.full_like(graph.influence, np.nan))
    np.testing.assert_array_equal(ranked(unknown).influence, ranked(graph).influence)


def test_what_is_pruned_still_knows_the_whole_s_influence():
    whole = made_up_graph(2)
    pruned = prune(whole, 0.6, 0.9)
    assert ranked(pruned).total == ranked(whole).total > pruned.influence.sum()


def test_storing_a_part_again_does_not_raise_what_it_can_be_pruned_to():
    part = stored_part(made_up_graph(2, features=60), 0.8, 1000)
    assert stored_part(part, 1.0, 1000).facts["stored_share"] == part.facts["stored_share"] < 1


def test_no_graph_remains_none():
    empty = no_graph(("a",), {"status": "none"}, "the model never said it")
    assert prune(empty, 0.8, 0.9).n_nodes == stored_part(empty, 0.8, 10).n_nodes == 0
    assert prune(empty, 0.8, 0.9).facts["reason"] == "the model never said it"


@pytest.mark.parametrize("shares", [(1.1, 0.5), (0.5, -0.1)])
def test_shares_outside_zero_and_one_are_refused(shares):
    with pytest.raises(ValueError, match="must be from 0 to 1"):
        prune(made_up_graph(), *shares)
