"""The table of motifs: what it holds, what it finds, and what it refuses."""

import numpy as np
import pandas as pd
import pytest

from reasondiff.graphs.graph import EMBEDDING, FEATURE, LOGIT, make_graph, no_graph
from reasondiff.motifs.counting import FAMILY, MOTIF, TESTED_TOGETHER, beside_null, count_motifs
from reasondiff.motifs.network import network_of
from reasondiff.motifs.nulls import observed_edges
from reasondiff.motifs.random_numbers import number_stream
from reasondiff.motifs.trades import typed_walk

FACTS = {"model": "m", "seed": 1, "prompt_id": "p", "category": "c", "target": "answer", "phase": "answer"}
KEYS = ["name", "node_share", "null", "family", "motif"]


@pytest.fixture(scope="module")
def table(make_graph_of_layers, motif_settings):
    graphs = {f"g{seed}": make_graph_of_layers(seed, 4, 6, 3, 0.5, FACTS) for seed in range(2)}
    graphs["none"] = no_graph(("a",), FACTS, "it failed")
    settings = motif_settings(
        thresholds=[[1.0, 1.0], [0.7, 0.9]], nulls=["typed", "erdos_renyi"], samples=49, samples_beside=29
    )
    return count_motifs(graphs, settings, "m/seed1", 0, 2), graphs, settings


def test_there_is_one_row_per_graph_threshold_null_and_motif(table):
    rows, _, _ = table
    assert not rows.duplicated(KEYS).any()
    headline, other = rows[rows["node_share"] == 1], rows[rows["node_share"] == 0.7]
    assert len(headline) == 3 * 2 * 44 and len(other) == 3 * 44
    assert set(headline["null"]) == {"typed", "erdos_renyi"} and set(other["null"]) == {"typed"}
    assert (rows["source"] == "m/seed1").all() and (rows["prompt_id"] == "p").all() and (rows["seed"] == 1).all()
    assert (other.loc[other["name"] != "none", "edges"] < 0.95 * headline["edges"].max()).all()


def test_what_is_reported_rests_on_more_graphs_than_what_stands_beside(table):
    rows = table[0][table[0]["name"] != "none"]
    reported = (rows["null"] == "typed") & (rows["node_share"] == 1)
    assert set(rows.loc[reported, "samples"]) == {49} and set(rows.loc[~reported, "samples"]) == {29}


def test_a_graph_without_edges_has_rows_that_claim_nothing(table):
    rows, _, _ = table
    nothing = rows[rows["name"] == "none"]
    assert (nothing[["states", "graph_states", "samples", "rank"]] == 0).all(axis=None)
    figures = ["count", "null_mean", "null_sd", "log_ratio", "delta", "z", "p", "p_adjusted", "mobility"]
    assert nothing[figures].isna().all(axis=None)


def test_rows_do_not_depend_on_the_graphs_beside_them_nor_on_threads(table):
    rows, graphs, settings = table
    alone = count_motifs({"g1": graphs["g1"]}, settings, "m/seed1", 0, 1)
    same = rows[rows["name"] == "g1"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone.drop(columns="p_adjusted"), same.drop(columns="p_adjusted"))
    other = count_motifs({"g1": graphs["g1"]}, settings, "m/seed1", 1, 1)
    assert (other["count"] == alone["count"]).all() and (other["null_mean"] != alone["null_mean"]).any()


def test_only_what_can_vary_is_tested_and_the_correction_covers_its_family(table):
    rows, _, _ = table
    tested = rows["p"].notna()
    assert not (tested & rows["motif_is_determined"]).any()
    assert rows.loc[tested, "p"].ge(2 / 50).all() and tested.any()
    assert (rows["p_adjusted"].notna() == tested).all()
    untyped = rows[tested & (rows["null"] == "typed") & (rows["family"] == "triad")]
    assert set(untyped["motif"]) == {"030T"} and (untyped["rank"] == 1).all()
    for _, family in rows[tested].groupby(TESTED_TOGETHER):
        largest = family["p"].to_numpy().max()
        assert family["p_adjusted"].to_numpy().max() == pytest.approx(largest)
        smallest = family["p"].min()
        times = (family["p"] <= smallest).sum()
        assert family["p_adjusted"].min() == pytest.approx(min(largest, smallest * len(family) / times))


def test_no_graphs_give_an_empty_table(motif_settings):
    nothing = count_motifs({}, motif_settings(), "m/seed1", 0, 1)
    assert len(nothing) == 0 and {"motif", "p_adjusted", "z"} <= set(nothing.columns)


def planted(loops):
    """Latents in five layers of 12 at one position, with loops of feed-forward edges and as many loose chains."""
    rng = np.random.default_rng(0)
    layer = np.repeat(np.arange(5), 12)
    edges = set()
    for _ in range(loops):
        a, b, c = (rng.choice(np.flatnonzero(layer == one)) for one in sorted(rng.choice(5, 3, replace=False)))
        edges |= {(a, b), (b, c), (a, c)}
    source, target = zip(*sorted(edges), strict=True)
    layer, nothing = np.concatenate([[-1], layer, [5]]), [np.nan] * 62
    kind = [EMBEDDING, *[FEATURE] * 60, LOGIT]
    return network_of(
        make_graph(
            ("a",), {}, kind=kind, layer=layer, position=[0] * 62, feature=range(62), activation=nothing,
            influence=nothing, probability=nothing, source=[s + 1 for s in source], target=[t + 1 for t in target],
            weight=[1.0] * len(source),
        )
    )  # fmt: skip


def test_planted_feed_forward_loops_are_found_and_their_rewired_graph_holds_none(motif_settings, with_edges):
    network, settings = planted(60), motif_settings(samples=199)
    rewired = typed_walk(network)(number_stream(0), observed_edges(network), 100)
    rewired = with_edges(network, rewired.source, rewired.target, rewired.positive)
    for where, is_found in ((network, True), (rewired, False)):
        rows = beside_null(where, "typed", settings, 3, 1).set_index("motif")
        for motif in ("030T", "030T feature>feature>feature", "coherent_ffl"):
            assert (rows.loc[motif, "p"] <= 0.01) == is_found
            assert (rows.loc[motif, "log_ratio"] > np.log(1.5)) == is_found
            assert (rows.loc[motif, "z"] > 5) == is_found


def test_the_published_z_of_the_published_graph(published_graph, published_counts, motif_settings):
    network, settings = network_of(published_graph), motif_settings(samples=1000)
    for null in ("layer_preserving", "layer_pair_config"):
        rows = beside_null(network, null, settings, 0, 2)
        rows = rows[rows["family"] == "triad"].set_index("motif")
        for motif in ("021D", "021U", "021C", "030T"):
            theirs = published_counts["unsigned_null"][null]["z"][motif]
            assert abs(rows.loc[motif, "z"] - theirs) <= 0.15 + 0.09 * abs(theirs), (null, motif)
    rows = beside_null(network, "layer_pair_config_signs", settings, 0, 2).set_index("motif")
    theirs = published_counts["signed_null"]["layer_pair_config_signs"]["z"]
    for motif in MOTIF[FAMILY == "signed"]:
        ours = 0.0 if rows.loc[motif, "motif_is_determined"] else rows.loc[motif, "z"]
        assert abs(ours - theirs[motif]) <= 0.15 + 0.09 * abs(theirs[motif]), motif
