"""A latent that fires as a crosscoder's does is linked to it; chance, rarity and masks are accounted for."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array

from reasondiff.config import Links
from reasondiff.dictionaries.crosscoder import fold
from reasondiff.dictionaries.transcoder import Transcoder
from reasondiff.graphs import codes as codes_module
from reasondiff.graphs.codes import read_codes
from reasondiff.graphs.graph import FEATURE, LOGIT, make_graph
from reasondiff.graphs.links import (
    ELSEWHERE,
    MIN_FIRINGS,
    RARE,
    Codes,
    beside_next_document,
    by_site,
    fire_alike,
    latents_of,
    link_latents,
    linked_shares,
    strongest_correlations,
)
from reasondiff.models.stream import ActivationStream, calibrate, unmasked
from reasondiff.store import ArtefactError, read_table, write_table

TOKENS, LATENTS, OTHERS = 1500, 30, 40
SETTINGS = Links(pair="pair", point="btk", min_correlation=0.7, tokens=10_000, random_draws=5, seed=3)


def random_code(seed: int, latents: int, tokens: int = TOKENS) -> np.ndarray:
    """A dense code whose latents fire on 2 to 20 % of the tokens."""
    draw = np.random.default_rng(seed)
    fires = draw.random((tokens, latents)) < np.linspace(0.02, 0.2, latents)
    return np.where(fires, draw.gamma(2.0, 1.0, (tokens, latents)), 0).astype(np.float32)


def table_of(latents: int, tags=None) -> pd.DataFrame:
    tag = np.array(["shared"] * latents, dtype=object)
    for latent, name in (tags or {}).items():
        tag[latent] = name
    return pd.DataFrame({"latent": np.arange(latents), "tag": tag, "delta": np.arange(latents) / 100})


def linked(transcoder: np.ndarray, crosscoder: np.ndarray, in_graphs, tags=None, document=None) -> pd.DataFrame:
    document = np.arange(len(transcoder)) // 25 if document is None else document
    codes = {2: Codes(document, csr_array(transcoder), {"btk/seed0": csr_array(crosscoder)})}
    tables = {2: {"btk/seed0": table_of(crosscoder.shape[1], tags)}}
    return link_latents(codes, tables, {layer: np.array(latents) for layer, latents in in_graphs.items()}, SETTINGS)


# ------------------------------------------------------------------------------------------------ correlations


def test_correlations_are_those_of_the_dense_codes(monkeypatch):
    monkeypatch.setattr("reasondiff.graphs.links.LATENTS_AT_ONCE", 7)
    first, second = random_code(0, LATENTS), random_code(1, OTHERS)
    second[:, 5] = first[:, 11] + second[:, 5]
    second[MIN_FIRINGS - 1 :, 8] = 0  # fires too rarely, and as latent 2 does
    second[: MIN_FIRINGS - 1, 8] = first[: MIN_FIRINGS - 1, 2]
    every = np.corrcoef(first.T.astype(np.float64), second.T.astype(np.float64))[:LATENTS, LATENTS:]
    every[:, (second > 0).sum(0) < MIN_FIRINGS] = -1
    asked = np.array([2, 11, 0, 29, 17, 23, 5, 6, 7])

    found = strongest_correlations(csr_array(first), csr_array(second), asked)

    assert (found["crosscoder_latent"] == every[asked].argmax(1)).all()
    assert found["correlation"].to_numpy() == pytest.approx(every[asked].max(1), abs=1e-9)
    assert found["crosscoder_latent"][1] == 5


def test_where_nothing_varies_there_is_no_correlation():
    silent = np.zeros((TOKENS, 3), np.float32)

    found = strongest_correlations(csr_array(random_code(0, 4)), csr_array(silent), np.array([1]))

    assert found["crosscoder_latent"].tolist() == [-1] and found["correlation"].isna().all()


def test_a_copy_is_linked_with_correlation_one_and_takes_its_tag():
    """Twice as strong and a little more, which no correlation notices; another latent is unrelated."""
    first, second = random_code(0, LATENTS), random_code(1, OTHERS)
    second[:, 7] = 2 * first[:, 12]

    rows = linked(first, second, {2: [3, 12]}, tags={7: "reasoning_only"})
    graph = rows[rows["why"] == "graph"].set_index("latent")

    assert graph.loc[12, "correlation"] == pytest.approx(1)
    assert graph.loc[12, ["linked", "crosscoder_latent", "tag"]].tolist() == [True, 7, "reasoning_only"]
    assert graph.loc[12, "delta"] == pytest.approx(0.07)
    assert graph.loc[12, ["firings", "tokens"]].tolist() == [(first[:, 12] > 0).sum(), TOKENS]
    assert not graph.loc[3, "linked"] and graph.loc[3, "correlation"] < 0.3
    assert graph.loc[12, "chance"] < 0.3, "in the next document the copy fires elsewhere"


def test_a_latent_that_fires_at_fixed_places_correlates_by_chance_as_well():
    """It fires on the first token of each document, as many do: the chance beside it says so."""
    first, second = random_code(0, LATENTS), random_code(1, OTHERS)
    document = np.arange(TOKENS) // 25
    first[:, 4] = second[:, 9] = np.diff(document, prepend=-1) > 0

    rows = linked(first, second, {2: [4]}, document=document)

    assert rows.loc[0, ["correlation", "chance"]].tolist() == pytest.approx([1, 1])


def test_a_latent_that_fires_rarely_is_not_judged():
    """It fires on three tokens, on all of which a latent of the crosscoder fires: that may be chance."""
    first, second = random_code(0, LATENTS), random_code(1, OTHERS)
    first[3:, 4] = 0
    first[:3, 4] = 1
    second[:, 9] = first[:, 4]

    rows = linked(first, second, {2: [4]})

    assert rows[["latent", "linked", "reason", "firings"]].values.tolist() == [[4, False, RARE, 3]]
    assert rows[["correlation", "chance", "crosscoder_latent", "delta"]].isna().all(axis=None)


def test_latents_of_layers_without_a_crosscoder_are_named():
    rows = linked(random_code(0, LATENTS), random_code(1, OTHERS), {0: [5, 6], 2: [12]})

    elsewhere = rows[rows["layer"] == 0]
    assert elsewhere["latent"].tolist() == [5, 6] and (elsewhere["reason"] == ELSEWHERE).all()
    assert elsewhere["crosscoder"].isna().all() and not elsewhere["linked"].any()


def test_each_token_stands_beside_the_one_as_far_into_the_next_document():
    rows, others = beside_next_document(np.array([7, 7, 7, 2, 2, 9, 9, 9, 9]))

    # document 7 (rows 0-2) beside 2 (3-4), 2 beside 9 (5-8), 9 beside 7
    assert rows.tolist() == [0, 1, 3, 4, 5, 6, 7]
    assert others.tolist() == [3, 4, 5, 6, 0, 1, 2]


def test_random_latents_are_in_no_graph_and_fire_about_as_often():
    firings = np.array([100, 90, 300, 110, 160, 45, 60, 1000, 5, 0])
    latents = np.array([0, 3, 8])  # 8 is too rare to be judged

    found = fire_alike(firings, latents, draws=3, seed=0, layer=1)

    assert set(found["stands_for"]) == {0, 3}
    # nearest to 100 in ratio: 90; then 160 (1.6) and 60 (1.67); to 110: 90, 160, 60 (1.83). 45 and 300 lie too far
    for _, rows in found.groupby("stands_for"):
        assert sorted(rows["latent"]) == [1, 4, 6]
        assert sorted(rows["draw"]) == [0, 1, 2]
    assert len(fire_alike(firings, np.array([7]), draws=3, seed=0, layer=1)) == 0


def test_paths_say_where_a_crosscoder_lies_and_whose_latents_are_asked_for():
    paths = [f"r/crosscoders/a-b/text/layer{layer}/btk/seed0/x.tsv" for layer in (12, 3)]
    reused = pd.DataFrame({"model": ["a", "a", "b", "a"], "seed": [0, 0, 0, 1], "layer": 3, "latent": [9, 2, 4, 5]})

    assert by_site(paths, ["x", "y"]) == {3: {"btk/seed0": "y"}, 12: {"btk/seed0": "x"}}
    assert {layer: found.tolist() for layer, found in latents_of(reused, "a", 0).items()} == {3: [2, 9]}


# ------------------------------------------------------------------------------------------------ shares


def graph_with(nodes) -> object:
    """A graph of these latents: {(layer, position, latent): influence}."""
    rows = [(FEATURE, *node, 1.0, influence, np.nan) for node, influence in nodes.items()]
    rows.append((LOGIT, 9, 5, 1, np.nan, 0.0, 1.0))
    names = ("kind", "layer", "position", "feature", "activation", "influence", "probability")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    ends = {"source": range(len(nodes)), "target": [len(nodes)] * len(nodes), "weight": np.ones(len(nodes))}
    return make_graph(("x",) * 6, {"model": "a", "seed": 0, "prompt_id": "p1", "target": "answer"}, **columns, **ends)


def links_by_hand() -> pd.DataFrame:
    """Latents 1 (linked, reasoning only), 2 (not), 3 (too rare) of layer 2; 7 of layer 0. Two random sets."""
    columns = ["layer", "latent", "why", "stands_for", "draw", "crosscoder", "correlation", "linked", "tag", "reason"]
    rows = [
        (2, 1, "graph", 1, -1, "btk/seed0", 0.9, True, "reasoning_only", ""),
        (2, 2, "graph", 2, -1, "btk/seed0", 0.1, False, "shared", ""),
        (2, 3, "graph", 3, -1, "btk/seed0", np.nan, False, None, RARE),
        (0, 7, "graph", 7, -1, None, np.nan, False, None, ELSEWHERE),
        (2, 20, "random", 1, 0, "btk/seed0", 0.8, True, "shared", ""),
        (2, 21, "random", 1, 1, "btk/seed0", 0.2, False, "shared", ""),
        (2, 22, "random", 2, 0, "btk/seed0", 0.8, True, "reasoning_only", ""),
    ]
    return pd.DataFrame(rows, columns=columns).reindex(columns=[*columns, "firings", "tokens", "delta", "chance"])


NODES = {(0, 1, 7): 0.1, (2, 1, 1): 0.3, (2, 4, 1): 0.3, (2, 4, 2): 0.2, (2, 4, 3): 0.1}


def test_shares_of_a_graph_are_those_worked_out_by_hand():
    """Judged are latent 1 (two nodes) and latent 2; linked: 2 of 3 by count, .6 of .8 by influence. Set 0: latent 1
    linked (shared), 2 linked (reasoning only): 3 of 3, and 1 of 3; set 1 has only latent 1's: 0 of 2."""
    shares = linked_shares(links_by_hand(), [graph_with(NODES)]).set_index(["weighting", "quantity"])

    count, influence = shares.loc["count"], shares.loc["influence"]
    assert count["value"].tolist() == pytest.approx([2 / 3, 2 / 3])
    assert influence["value"].tolist() == pytest.approx([0.75, 0.75])
    assert count["random"].tolist() == pytest.approx([(1 + 0) / 2, (1 / 3 + 0) / 2])
    assert influence["random"].tolist() == pytest.approx([0.5, 0.25 / 2])
    assert count["p"].tolist() == pytest.approx([2 / 3, 1 / 3])  # set 0 reaches 2/3 of linked ones, none of new ones
    assert (shares["n"] == 3).all()
    assert count[["rare", "elsewhere"]].iloc[0].tolist() == pytest.approx([1 / 5, 1 / 5])
    assert influence[["rare", "elsewhere"]].iloc[0].tolist() == pytest.approx([0.1, 0.1])
    assert shares["prompt_id"].eq("p1").all() and shares["crosscoder"].eq("btk/seed0").all()


def test_a_random_set_that_ties_counts_against_the_share():
    """Latent 1 alone is linked, as it is in set 0, and is not in set 1: p = (1 + 1) / (2 + 1)."""
    shares = linked_shares(links_by_hand(), [graph_with({(2, 1, 1): 0.3})]).set_index(["weighting", "quantity"])

    assert shares.loc[("count", "linked"), "p"] == pytest.approx(2 / 3)


def test_links_are_the_same_after_a_way_to_disk_and_back(tmp_path):
    write_table(tmp_path / "links.tsv", links_by_hand(), {})

    read = linked_shares(read_table(tmp_path / "links.tsv"), [graph_with(NODES)])

    pd.testing.assert_frame_equal(read, linked_shares(links_by_hand(), [graph_with(NODES)]))


def test_a_graph_of_other_latents_is_refused():
    with pytest.raises(ValueError, match="latent 5 of layer 2 is in a graph of p1, but not in the links"):
        linked_shares(links_by_hand(), [graph_with({**NODES, (2, 4, 5): 0.1})])


def test_a_graph_without_judged_latents_has_no_shares():
    shares = linked_shares(links_by_hand(), [graph_with({(0, 1, 7): 0.1})])

    assert shares["value"].isna().all() and (shares["n"] == 0).all() and (shares["elsewhere"] == 1).all()


# ------------------------------------------------------------------------------------------------ reading


def a_transcoder() -> Transcoder:
    draw = torch.Generator().manual_seed(0)
    encoder = torch.randn(LATENTS, 16, generator=draw)
    return Transcoder(encoder, torch.zeros(LATENTS), encoder, torch.zeros(16), None, 4, {})


def a_crosscoder():
    draw = torch.Generator().manual_seed(1)
    encoder = torch.randn(OTHERS, 32, generator=draw)
    return fold(encoder, torch.full((OTHERS,), -4.0), encoder, torch.zeros(32), torch.ones(2), 6.0, 4, {})


@pytest.fixture(scope="module")
def streams(small_models, numbers_table, stream_settings):
    """Reads the MLPs of the second model of a pair, and the blocks of both."""

    def make(mlps=("other",), blocks=("qwen2", "other"), foreign=(33,), **changes):
        reading = stream_settings(norm_factor=1.7, **changes)  # such that some tokens are sinks, others in each place
        table, layers = numbers_table, [1, 2]

        def open_one(names, masked, place):
            models = [small_models[name] for name in names]
            return ActivationStream(models, layers, table, masked, reading, 120, "cpu", "float32", place)

        return open_one(mlps, [33], "mlp"), open_one(blocks, list(foreign), "block")

    return make


def read(streams, tokens=10_000):
    statistics = [calibrate(stream, stream.table.documents_of("calibrate"), 500) for stream in streams]
    dictionaries = {1: a_transcoder(), 2: a_transcoder()}, {2: {"btk/seed0": a_crosscoder()}}
    return statistics, read_codes(*streams, *statistics, *dictionaries, tokens)


def test_codes_are_those_of_plain_loops_over_tokens_that_neither_place_masks(streams, monkeypatch):
    monkeypatch.setattr(codes_module, "MIN_TOKENS", 1)
    monkeypatch.setattr(codes_module, "RESPONSES_AT_ONCE", 13 * OTHERS)  # 13 tokens at a time
    mlps, blocks = streams(batch_rows=2)
    statistics, found = read([mlps, blocks])
    transcoder, crosscoder = a_transcoder(), a_crosscoder()
    expected, masked = [], [0, 0]
    for row in range(len(mlps.table)):  # one document at a time
        if row not in mlps.table.documents_of("report"):
            continue
        (mlp,), (block,) = mlps(np.array([row])), blocks(np.array([row]))
        masks = [unmasked(one, 2, s[2], mlps.settings)[0] for one, s in zip((mlp, block), statistics, strict=True)]
        masked = [count + int((masks[1 - n] & ~masks[n]).sum()) for n, count in enumerate(masked)]
        kept = masks[0] & masks[1]
        own = transcoder.encode(mlp.activations[2][kept][:, 0]).dense()
        expected.append((row, own, crosscoder.encode(block.activations[2][kept]).dense()))
    assert min(masked) > 0, "each place masks tokens that the other does not"

    assert set(found) == {2}
    for row, own, other in expected:
        rows = found[2].document == row
        np.testing.assert_allclose(found[2].transcoder.toarray()[rows], own.numpy(), atol=2e-4)
        np.testing.assert_allclose(found[2].crosscoders["btk/seed0"].toarray()[rows], other.numpy(), atol=2e-4)
    assert len(found[2].document) == sum(len(own) for _, own, _ in expected)


def test_reading_stops_when_there_are_tokens_enough(streams, monkeypatch):
    monkeypatch.setattr(codes_module, "MIN_TOKENS", 1)
    every, some = (len(read(streams(batch_rows=1), tokens)[1][2].document) for tokens in (10_000, 100))

    assert 100 <= some < every


def test_too_few_held_out_tokens_are_refused(streams):
    with pytest.raises(ArtefactError, match=r"links need 10000 unmasked held-out tokens .* graphs\.links\.tokens"):
        read(streams())


def test_streams_of_other_tokens_or_of_another_model_are_refused(streams):
    with pytest.raises(ValueError, match="foreign ids differ"):
        read(streams(foreign=(33, 34)))
    with pytest.raises(ValueError, match="transcoders read llama, the crosscoders qwen2, other"):
        read(streams(mlps=("llama",)))
