"""What does each graph amount to, and may it be called an explanation?"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_up_graphs import made_up_graph

from reasondiff.config import GraphGates, Graphs, Interventions
from reasondiff.graphs.graph import EMBEDDING, FEATURE, LOGIT, make_graph, no_graph
from reasondiff.graphs.pruning import prune, stored_part
from reasondiff.graphs.summary import COLUMNS, latents_of_graphs, refusals, summarise
from reasondiff.store import read_table, write_table

GATES = GraphGates(feature_share=0.5, coverage=1.0)


@pytest.fixture(scope="module")
def settings():
    interventions = Interventions(features=4, quantiles=2, matched=4, bootstrap=100, seed=0)
    return Graphs(
        window=16, max_features=None, batch_size=8, runners_up=2, stored_share=0.95, stored_nodes=1000,
        prune_nodes=0.8, prune_edges=0.98, prompts_of_job=1, viewer_examples=2, labelled=3, links=None, seed=0,
        interventions=interventions,
    )  # fmt: skip


def pruned_all(graphs, settings):
    return [prune(graph, settings.prune_nodes, settings.prune_edges) for graph in graphs]


def small(**facts):
    """Tokens 0 and 1, at each a latent of layer 1 and 3 (numbers 5 and 6) of 4 blocks, the logit at the second."""
    return make_graph(
        ("a", "b"), {"status": "traced", "feature_share": 0.75, "coverage": 1.0, "blocks": 4, **facts},
        kind=[EMBEDDING, EMBEDDING, FEATURE, FEATURE, LOGIT], layer=[-1, -1, 1, 3, 4], position=[0, 1, 0, 1, 1],
        feature=[8, 9, 5, 6, 7], activation=[np.nan] * 2 + [1, 2] + [np.nan], influence=[np.nan] * 5,
        probability=[np.nan] * 4 + [0.5], source=[0, 2, 3, 1], target=[2, 3, 4, 4], weight=[2, -1, 3, 1],
    )  # fmt: skip


def test_shape_of_a_pruned_graph_summed_by_hand(settings):
    # the later latent carries 3/4, the earlier one all of that, at layers 1 and 3 of 4: (.25 + .75) / 2. Of absolute
    # weights 2, 1, 3 and 1 only the 1 from latent to latent leads to another position.
    wide = settings.model_copy(update={"prune_nodes": 1.0, "prune_edges": 1.0, "stored_share": 1.0})
    row = summarise(pruned_all([small()], wide), GATES).iloc[0]
    assert (row["nodes"], row["edges"], row["features_pruned"]) == (5, 4, 2)
    assert row["depth"] == pytest.approx(0.5)
    assert row["crossing_share"] == pytest.approx(1 / 7)


def test_deeper_influence_makes_a_graph_deeper(settings):
    wide = settings.model_copy(update={"prune_nodes": 1.0, "prune_edges": 1.0, "stored_share": 1.0})
    # twice the influence at layer 3: (.25 + 2 * .75) / 3
    graph = replace(small(), influence=np.array([0.5, 0.5, 0.25, 0.5, 0.0], dtype=np.float32))
    assert summarise(pruned_all([graph], wide), GATES)["depth"][0] == pytest.approx(1.75 / 3)


def test_a_row_holds_the_scores_of_the_whole_and_counts_of_the_pruned_graph(settings):
    whole = made_up_graph(1)
    part = stored_part(whole, settings.stored_share, settings.stored_nodes)
    pruned = prune(whole, settings.prune_nodes, settings.prune_edges)
    frame = summarise(pruned_all([part], settings), GATES)
    assert list(frame) == COLUMNS
    row = frame.iloc[0]
    for name in ("model", "target_token", "features", "replacement", "feature_share", "coverage", "replaced_top1"):
        assert row[name] == whole.facts[name]
    assert (row["nodes"], row["edges"]) == (pruned.n_nodes, pruned.n_edges)
    assert row["features_pruned"] == len(pruned.nodes_of(FEATURE)) > 0
    assert row["stored_share"] == part.facts["stored_share"] < 1


def test_a_graph_that_was_not_made_has_a_row_and_no_figures(settings):
    facts = {name: made_up_graph(1).facts[name] for name in ("model", "seed", "prompt_id", "target", "phase")}
    missing = no_graph((), {**facts, "status": "none"}, "the response has no think phase")
    frame = summarise(pruned_all([made_up_graph(1), missing], settings), GATES)
    row = frame.iloc[1]
    assert (row["status"], row["reason"]) == ("none", "the response has no think phase")
    assert row["refused"] == "there is no graph: the response has no think phase"
    assert not row["explains"]
    figures = ["nodes", "edges", "features", "replacement", "feature_share", "depth", "crossing_share", "replaced_top1"]
    assert row[figures].isna().all()
    assert frame.iloc[0][figures].notna().all()
    assert latents_of_graphs(pruned_all([missing], settings)).empty


def test_a_summary_without_graphs_is_a_table_without_rows(settings):
    assert list(summarise(pruned_all([], settings), GATES)) == COLUMNS
    assert len(summarise(pruned_all([], settings), GATES)) == len(latents_of_graphs(pruned_all([], settings))) == 0


def test_a_summary_is_written_and_read(settings, tmp_path):
    missing = no_graph((), {"status": "failed", "model": "rl"}, "out of memory")
    frame = summarise(pruned_all([made_up_graph(1), missing], settings), GATES)
    write_table(tmp_path / "summary.tsv", frame, {})
    back = read_table(tmp_path / "summary.tsv")
    assert back["nodes"].tolist()[0] == frame["nodes"][0]
    assert back["feature_share"][0] == pytest.approx(frame["feature_share"][0])
    assert back["explains"].tolist() == [True, False]
    assert back["reason"][1] == "out of memory"


@pytest.mark.parametrize(
    "facts, said",
    [
        ({}, []),
        ({"feature_share": 0.5}, []),
        ({"feature_share": 0.12}, ["feature share 0.12 is under 0.5"]),
        ({"feature_share": 0.0}, ["feature share 0 is under 0.5"]),
        ({"feature_share": float("nan")}, ["feature share unknown is under 0.5"]),
        ({"feature_share": None}, ["feature share unknown is under 0.5"]),
        ({"coverage": 4 / 6, "blocks": 6}, ["2 of 6 blocks have no transcoder"]),
        ({"coverage": 0.0, "feature_share": 0.0, "blocks": 6},
         ["feature share 0 is under 0.5", "6 of 6 blocks have no transcoder"]),
        ({"status": "failed", "reason": "no memory"}, ["there is no graph: no memory"]),
    ],
)  # fmt: skip
def test_gates_say_why_they_refuse(facts, said, settings):
    graph = small(**facts)
    assert refusals(graph.facts, GATES) == said
    row = summarise(pruned_all([graph], settings), GATES).iloc[0]
    assert row["explains"] == (not said)
    assert (row["refused"] if said else "") == "; ".join(said)


def chain(influence, **facts):
    """A token, the latents 5 of layer 1 at both tokens or 6 of layer 3, and the logit, of given influences."""
    latents = len(influence)
    return make_graph(
        ("a", "b"), {"model": "base", "seed": 0, "prompt_id": "p", "target": "answer", **facts},
        kind=[EMBEDDING, *[FEATURE] * latents, LOGIT], layer=[-1, *[1 if latents > 1 else 3] * latents, 4],
        position=[0, *range(latents), 1], feature=[9, *[5 if latents > 1 else 6] * latents, 7],
        activation=[np.nan, *[1] * latents, np.nan], influence=[1, *influence, 0],
        probability=[np.nan] * (latents + 1) + [0.5], source=[*[0] * latents, *range(1, latents + 1)],
        target=[*range(1, latents + 1), *[latents + 1] * latents], weight=[1] * (2 * latents),
    )  # fmt: skip


def test_latents_in_most_graphs_come_first(settings):
    wide = settings.model_copy(update={"prune_nodes": 1.0, "prune_edges": 1.0, "stored_share": 1.0})
    graphs = [
        chain([0.25, 0.5]), chain([0.25]), chain([0.125], target="think"), chain([0.5], prompt_id="q"),
        chain([0.5], seed=1),
    ]  # fmt: skip
    # latent 5 stands at both positions of one graph, 6 in three graphs of two prompts and once in another seed's
    expected = pd.DataFrame({
        "model": ["base"] * 3, "seed": [0, 0, 1], "layer": [3, 1, 3], "latent": [6, 5, 6], "graphs": [3, 1, 1],
        "prompts": [2, 1, 1], "influence": [0.25 + 0.125 + 0.5, 0.25 + 0.5, 0.5],
    })  # fmt: skip
    pd.testing.assert_frame_equal(latents_of_graphs(pruned_all(graphs, wide)), expected, check_dtype=False)


def test_latents_that_are_pruned_are_in_no_graph(settings):
    graph = made_up_graph(1)
    found, pruned = (
        latents_of_graphs(pruned_all([graph], settings)),
        prune(graph, settings.prune_nodes, settings.prune_edges),
    )
    kept = {(int(pruned.layer[row]), int(pruned.feature[row])) for row in pruned.nodes_of(FEATURE)}
    assert set(zip(found["layer"], found["latent"], strict=True)) == kept
    assert len(kept) < len(graph.nodes_of(FEATURE))
